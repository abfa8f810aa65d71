// Speaking with the agent in a pod by kubectl exec, which is the conversation that other targets have all the time
// (agent.proto); and ending pods where that cannot be.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "estimator/agent/steady_now.h"
#include "estimator/kubernetes/manifests.h"
#include "estimator/kubernetes/pod_plan.h"
#include "estimator/kubernetes/pod_supervision.h"
#include "estimator/launch/spawn.h"
#include "estimator/run/chunk_streams.h"
#include "estimator/run/run_limits.h"

namespace basin {
namespace {

constexpr absl::Duration kPodLease = absl::Minutes(2);
// For a connection to be made, and between two signs of life of one.
constexpr absl::Duration kMostSilence = absl::Seconds(60);
constexpr absl::Duration kPodPingEvery = absl::Seconds(10);
constexpr absl::Duration kLinkAgain = absl::Seconds(1);
constexpr absl::Duration kDeleteAgain = absl::Seconds(1);
// For a pod that runs to say that its agent is there.
constexpr absl::Duration kMostAgentWait = absl::Seconds(10);
constexpr int kMostLinkFailures = 3;

}  // namespace

bool PodSupervision::CanSpeak(const Pod& pod) const {
  return Speaks() && pod.is_seen && pod.view.is_running && !pod.view.has_ended && !pod.view.is_deleting &&
         !pod.has_left && pod.link_failures < kMostLinkFailures;
}

// What is to be done about a pod, from what RunState wants of it and what is known.
void PodSupervision::AdvancePod(size_t index, absl::Time now) {
  Pod& pod = pods_[index];
  if (pod.must_term && !pod.is_gone) {
    if (!pod.view.is_running && !pod.link) {
      // What was seen before may have changed since.
      if (last_asked_ <= pod.must_term_since) return;
      NoteGone(index);  // it has not begun; the deletion at the end finds it
      HaveOutputs(index, "");
      pod.has_left = true;
    } else if (!CanSpeak(pod) && !pod.link && !pod.view.has_ended) {
      DeletePod(index, pod.must_kill);
    }
  }
  // Outputs come as soon as a task is over: its pod waits for that, and holds what it has of the cluster.
  const bool wants_outputs = pod.is_gone && !pod.has_outputs;
  if (wants_outputs && outputs_mode_ == "none") HaveOutputs(index, "");
  if (wants_outputs && outputs_mode_ == "claim" && pod.log_is_whole) {
    HaveOutputs(index, "its pod ended before they were kept");
  }
  if (wants_outputs && Speaks() && !CanSpeak(pod) && !pod.link) {
    HaveOutputs(index, pod.link_problem.empty() ? "its pod has ended before they were fetched" : pod.link_problem);
  }
  // Before the pod's own process has met its agent there is nothing to take over, and it would find another one there.
  const bool may_term = pod.must_term && !pod.is_gone && (pod.has_agent || now >= pod.must_term_since + kMostAgentWait);
  if (!pod.link && CanSpeak(pod) && now >= pod.link_again && (may_term || wants_outputs)) OpenLink(index, now);
  if (pod.link && pod.is_welcomed) TellAgent(index);
  if (pod.must_collect && pod.has_outputs) {
    pod.must_collect = false;
    Do(state_.OnCollected(index, now));
  }
  // Together, for the first pod that ends otherwise than well ends the others.
  const bool all = std::all_of(pods_.begin(), pods_.end(), [](const Pod& one) { return one.must_leave; });
  if (pod.must_leave && all && !pod.link) {
    pod.has_left = true;
    Do(state_.OnGoodbye(index, now));
  }
}

void PodSupervision::OpenLink(size_t index, absl::Time now) {
  Pod& pod = pods_[index];
  pod.link_again = now + kLinkAgain;
  const std::string program = settings_.programs.empty() ? "basin" : settings_.programs + "/basin";
  const std::vector<std::string> argv =
      KubectlWords(settings_, {"exec", "--stdin", pod.view.name, absl::StrCat("--container=", kPodContainer), "--",
                               program, "agent", "--run", run_.record.run_id, "--node", absl::StrCat(index), "--base",
                               absl::StrCat(kPodWorkFolder, "/base")});
  const absl::StatusOr<AgentPipe> pipe = SpawnPiped(argv[0], argv);
  if (!pipe.ok()) return LinkFailed(index, std::string(pipe.status().message()));
  pod.link = std::make_unique<NodeLink>(*pipe);
  pod.silent_at = now + kMostSilence;
  pod.is_welcomed = pod.told_term = pod.told_kill = pod.told_collect = pod.told_bye = false;
}

void PodSupervision::ServiceLink(size_t index, absl::Time now) {
  Pod& pod = pods_[index];
  if (!pod.link) return;
  std::vector<LinkEvent> events;
  const NodeLink* link = pod.link.get();
  if (pod.link->Service(now, &events)) pod.silent_at = now + kMostSilence;
  for (const LinkEvent& event : events) {
    if (pod.link.get() != link) return;  // an event before has ended it
    if (event.kind == LinkEvent::kSpeaks) SayHello(index);
    if (event.kind == LinkEvent::kMessage) HandleMessage(index, event.message);
    if (event.kind == LinkEvent::kEnded) {
      const std::unique_ptr<NodeLink> ended = std::move(pod.link);
      const std::string errors = LastLines(ended->Finish().errors);
      if (pod.told_bye) {
        pod.has_left = true;
      } else {
        // Without the permission, or without the pod, no repetition helps.
        const absl::Status status = KubectlStatus(settings_, "reach the agent", {1, "", errors});
        if (absl::IsPermissionDenied(status) || absl::IsNotFound(status)) pod.link_failures = kMostLinkFailures - 1;
        if (absl::IsUnauthenticated(status)) --pod.link_failures;  // none of the pod's: until somebody logs in
        LinkFailed(index, errors.empty() ? event.text : errors);
      }
    }
  }
  if (pod.link && now >= pod.silent_at) LinkFailed(index, "no answer for 60 s");
  if (pod.link && pod.is_welcomed && now >= pod.next_ping) {
    pod.next_ping = now + kPodPingEvery;
    ToAgent message;
    message.mutable_ping()->set_number(++pod.pings);
    pod.link->Send(message);
  }
}

void PodSupervision::LinkFailed(size_t index, const std::string& why) {
  Pod& pod = pods_[index];
  pod.link.reset();
  pod.link_problem = absl::StrCat("kubectl exec: ", why);
  next_poll_ = std::min(next_poll_, SteadyNow());  // the pod may have ended
  if (++pod.link_failures < kMostLinkFailures) return;
  Warn(absl::StrCat(pod.task.Sentence(), ": its agent cannot be spoken with: ", pod.link_problem));
}

void PodSupervision::SayHello(size_t index) {
  ToAgent message;
  estimator::v1::Hello* hello = message.mutable_hello();
  hello->set_run_id(run_.record.run_id);
  hello->set_node(static_cast<uint32_t>(index));
  // The pod's own is 1.
  hello->set_epoch((run_.epoch << kConnectionBits) + ++connections_);
  hello->set_token(token_);
  hello->set_lease_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(kPodLease)));
  hello->set_grace_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(run_.target.detach_grace)));
  hello->set_cancel_grace_ms(static_cast<uint32_t>(run_.job.cancel_grace_seconds * 1000));
  pods_[index].link->Send(message);
}

void PodSupervision::HandleMessage(size_t index, const FromAgent& message) {
  Pod& pod = pods_[index];
  switch (message.body_case()) {
    case FromAgent::kWelcome:
      return HandleWelcome(index, message.welcome());
    case FromAgent::kTaskStarted:
      return NoteStarted(index, message.task_started().pid());
    case FromAgent::kTaskExited:
      return NoteExited(index, {message.task_exited().code(), message.task_exited().signal(), false},
                        message.task_exited().problem());
    case FromAgent::kTaskGone:
      return NoteGone(index);
    case FromAgent::kFileChunk:
      if (StoreChunk(index, message.file_chunk())) pod.link_failures = 0;
      if (!message.file_chunk().data().empty()) pod.link->Stored(message.file_chunk().data().size());
      return;
    case FromAgent::kCollected: {
      const estimator::v1::Collected& collected = message.collected();
      std::vector<std::string> stays;
      for (const auto& [name, is_output] : pod.unstored) {
        // Of a run that was removed, outputs alone are worth telling of.
        if (is_output || !history_.IsRemoved()) stays.push_back(name);
      }
      const uint64_t count = stays.size() + std::max<uint64_t>(collected.left_out_count(),
                                                               static_cast<uint64_t>(collected.left_out_size()));
      stays.insert(stays.end(), collected.left_out().begin(), collected.left_out().end());
      history_.Journal(absl::Now(), "outputs",
                       nlohmann::json({{"task", pod.task.Name()},
                                       {"files", collected.files()},
                                       {"bytes", collected.bytes()},
                                       {"left_out", stays},
                                       {"left_out_count", count}})
                           .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      return HaveOutputs(index, stays.empty() ? "" : absl::StrCat(count, " of its files (", stays[0], ")"));
    }
    case FromAgent::kGoodbye:
      pod.has_left = true;
      pod.link.reset();
      return;
    case FromAgent::kRefused:
      return LinkFailed(index, absl::StrCat("the agent refuses: ", message.refused().reason()));
    default:
      return;
  }
}

void PodSupervision::HandleWelcome(size_t index, const estimator::v1::Welcome& welcome) {
  Pod& pod = pods_[index];
  if (!welcome.rejoined()) {
    // The pod's own has ended already or never came, and the relay has started another, which has nothing.
    ToAgent message;
    message.mutable_bye();
    pod.link->Send(message);
    pod.told_bye = true;
    pod.link_problem = "kubectl exec: the agent in the pod has ended";
    return;
  }
  pod.is_welcomed = true;
  pod.next_ping = SteadyNow() + kPodPingEvery;
  ToAgent message;
  estimator::v1::StreamFiles* streams = message.mutable_stream_files();
  for (const RunHistory::StoredFile& file : history_.Stored()) {
    if (file.stream != RunStream::kAgent && !(file.task == pod.task)) continue;
    estimator::v1::FilePosition* position = streams->add_positions();
    position->set_stream(StreamKindOf(file.stream));
    position->set_task(file.stream == RunStream::kAgent ? 0 : static_cast<uint32_t>(index));
    position->set_path(file.path);
    position->set_offset(file.bytes);
  }
  pod.link->Send(message);
  for (const estimator::v1::TaskStarted& started : welcome.started()) NoteStarted(index, started.pid());
  for (const estimator::v1::TaskExited& exited : welcome.exited()) {
    NoteExited(index, {exited.code(), exited.signal(), false}, exited.problem());
  }
  if (welcome.gone_size() > 0) NoteGone(index);
}

// What is due over a conversation that stands.
void PodSupervision::TellAgent(size_t index) {
  Pod& pod = pods_[index];
  ToAgent message;
  if (!pod.is_gone && pod.must_term && (!pod.told_term || (pod.must_kill && !pod.told_kill))) {
    pod.told_term = true;
    pod.told_kill = pod.must_kill;
    message.mutable_signal_task()->set_task(static_cast<uint32_t>(index));
    message.mutable_signal_task()->set_kill(pod.must_kill);
  } else if (pod.is_gone && !pod.has_outputs && !pod.told_collect && !pod.must_leave) {
    pod.told_collect = true;
    message.mutable_collect_outputs()->set_limit_bytes(kOutputsLimit);
  } else if ((pod.has_outputs || pod.must_leave) && !pod.told_bye) {
    // Others of the training may go at once, and give back what they have of the cluster. The last of them, and one
    // that ends badly, would end the other pods: they stay until all is fetched.
    const bool trains = pod.task.role == Role::kWorker || pod.task.role == Role::kEvaluator;
    const bool may_go = trains && index != chief_ && pod.exited_well && !state_.stopping();
    const bool all = std::all_of(pods_.begin(), pods_.end(), [](const Pod& one) { return one.must_leave; });
    if (!may_go && !all) return;
    pod.told_bye = true;
    message.mutable_bye();
  } else {
    return;
  }
  pod.link->Send(message);
}

bool PodSupervision::StoreChunk(size_t index, const estimator::v1::FileChunk& chunk) {
  Pod& pod = pods_[index];
  const std::string name =
      absl::StrCat(chunk.path().empty() ? "log or metrics" : chunk.path(), " (could not be stored here)");
  if (history_.Store(PieceOf(chunk, pod.task, index == chief_)).ok()) {
    pod.unstored.erase(name);
    return true;
  }
  if (pod.link) pod.unstored.emplace(name, chunk.stream() == estimator::v1::OUTPUT);
  return false;
}

void PodSupervision::HaveOutputs(size_t index, const std::string& not_kept) {
  Pod& pod = pods_[index];
  if (pod.has_outputs) return;
  pod.has_outputs = true;
  // A task that had not begun has none.
  if (not_kept.empty() || !pod.is_started) return;
  pod.not_kept = not_kept;
  Warn(absl::StrCat("outputs of ", pod.task.Sentence(), " are not kept: ", not_kept));
  history_.Journal(absl::Now(), "outputs",
                   nlohmann::json({{"task", pod.task.Name()}, {"not_kept", not_kept}})
                       .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void PodSupervision::DeletePod(size_t index, bool hard) {
  Pod& pod = pods_[index];
  bool& done = hard ? pod.deleted_hard : pod.deleted_kindly;
  if (done || pod.deletion || pod.view.name.empty() || SteadyNow() < pod.delete_again) return;
  std::vector<std::string> words = {"delete", "pod", pod.view.name, "--ignore-not-found", "--wait=false"};
  if (hard) words.insert(words.end(), {"--grace-period=0", "--force"});
  absl::StatusOr<std::unique_ptr<KubectlCall>> call =
      KubectlCall::Start(settings_, words, "", SteadyNow() + absl::Seconds(30));
  pod.delete_again = SteadyNow() + kDeleteAgain;
  if (!call.ok()) return;
  pod.deletion = *std::move(call);
  pod.deletes_hard = hard;
  done = true;
  next_poll_ = std::min(next_poll_, SteadyNow() + absl::Milliseconds(200));
}

void PodSupervision::ServiceDeletion(size_t index, absl::Time now) {
  Pod& pod = pods_[index];
  if (!pod.deletion) return;
  const std::optional<KubectlResult> result = pod.deletion->Service(now);
  if (!result) return;
  pod.deletion.reset();
  const absl::Status status = KubectlStatus(settings_, absl::StrCat("delete pod ", pod.view.name), *result);
  if (status.ok() || absl::IsNotFound(status)) return;
  pod.delete_again = now + kDeleteAgain;
  (pod.deletes_hard ? pod.deleted_hard : pod.deleted_kindly) = false;
  // What is not granted is not asked for again: the end of the run deletes what made the pod.
  if (!absl::IsPermissionDenied(status) || pod.is_gone) return;
  Warn(status.message());
  HaveOutputs(index, "its pod could not be deleted");
  pod.has_left = true;
  NoteGone(index);
}

}  // namespace basin
