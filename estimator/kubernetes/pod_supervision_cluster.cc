// What the cluster and the pods' logs say of a run, and how it becomes events of RunState and pieces of the history.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "estimator/agent/steady_now.h"
#include "estimator/kubernetes/manifests.h"
#include "estimator/kubernetes/pod_supervision.h"

namespace basin {
namespace {

constexpr absl::Duration kPollLimit = absl::Seconds(20);
// Often while much may change at once, which it does right after the beginning; a queue may take hours.
constexpr absl::Duration kPollOften = absl::Milliseconds(250);
constexpr absl::Duration kOften = absl::Seconds(10);
constexpr absl::Duration kPollSoon = absl::Seconds(1);
constexpr absl::Duration kPollEvery = absl::Seconds(3);
// The cluster's controllers need a moment to make the pods, and its scheduler to place them.
constexpr absl::Duration kUsualMissing = absl::Seconds(5);
constexpr absl::Duration kEventsEvery = absl::Seconds(10);
constexpr absl::Duration kLogAgain = absl::Seconds(1);
// Of a container that has ended: all that it printed comes at once.
constexpr absl::Duration kMostLogSilence = absl::Seconds(30);
// For a pod that has ended to be known as the reason why the cluster ends another, and for its log to say more.
constexpr absl::Duration kCauseWait = absl::Seconds(5);
constexpr absl::Duration kLogWait = absl::Seconds(2);
constexpr int kMostLogFailures = 5;
constexpr int kUsualPullSeconds = 300;

// "worker 1, pod basin-...-worker-0-1-x7k2p on node gpu-3".
std::string NameOf(const TaskId& task, const PodView& view) {
  return absl::StrCat(task.Sentence(), ", pod ", view.name, view.node.empty() ? "" : " on node ", view.node);
}

}  // namespace

void PodSupervision::ServicePoll(absl::Time now) {
  if (events_) {
    if (const std::optional<KubectlResult> result = events_->Service(now)) {
      events_.reset();
      const std::string warning = NewestWarning(result->out, ObjectNameOf(run_.record.run_id));
      if (!warning.empty() && !waiting_.empty()) waiting_ = warning;
    }
  }
  if (!poll_ && now >= next_poll_) {
    const std::string kinds = settings_.controller == "jobset" ? "pods,jobsets.jobset.x-k8s.io" : "pods,jobs";
    absl::StatusOr<std::unique_ptr<KubectlCall>> call = KubectlCall::Start(
        settings_, {"get", kinds, absl::StrCat("--selector=", kRunLabel, "=", run_.record.run_id), "-o", "json"}, "",
        now + kPollLimit);
    next_poll_ = now + kPollEvery;
    asked_ = now;
    if (!call.ok()) {
      no_answer_ = std::string(call.status().message());
    } else {
      poll_ = *std::move(call);
    }
  }
  if (poll_) {
    if (const std::optional<KubectlResult> result = poll_->Service(now)) {
      poll_.reset();
      const bool settled = state_.phase() == RunPhase::kRunning;
      next_poll_ = now + (settled ? kPollEvery : now < begun_ + kOften ? kPollOften : kPollSoon);
      absl::Status status = KubectlStatus(settings_, "look at the run's pods", *result);
      if (status.ok()) {
        const absl::StatusOr<PodsView> view = ReadClusterView(result->out);
        status = view.status();
        if (view.ok()) {
          answered_ = now;
          last_asked_ = asked_;
          has_answered_ = true;
          no_answer_.clear();
          TakeView(*view, now);
        }
      }
      if (!status.ok()) {
        no_answer_ = std::string(status.message());
        next_poll_ = now + kPollEvery;
        // Later it is a login that has expired, or a mistake that somebody mends: the pods run on meanwhile.
        if ((absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status)) && !has_answered_) {
          answered_ = now;
          last_asked_ = asked_;
          Do(state_.OnRefused(no_answer_, /*wrong_input=*/true, now));
        }
      }
    }
  }
  is_silent_ = now >= answered_ + options_.limits.lease && !no_answer_.empty();
}

void PodSupervision::TakeView(const PodsView& view, absl::Time now) {
  controller_failed_ = view.failed;
  std::vector<std::string> waiting;
  if (!view.waiting.empty()) waiting.push_back(view.waiting);
  size_t missing = 0;
  for (size_t i = 0; i < pods_.size(); ++i) {
    Pod& pod = pods_[i];
    const auto found = view.pods.find(pod.task);
    pod.is_missing = pod.is_seen && found == view.pods.end();
    const bool has_ended = pod.is_missing || (found != view.pods.end() && found->second.has_ended);
    pod.ended_since = has_ended ? std::min(pod.ended_since, now) : absl::InfiniteFuture();
    if (found == view.pods.end()) {
      const bool is_judged = !pod.log && pod.ending_since == absl::InfiniteFuture() && !CauseMayCome(i, now);
      if (pod.is_seen && !pod.is_gone && is_judged) {
        Lose(i, controller_failed_.empty() ? "was deleted"
                                           : absl::StrCat("was ended by the cluster: ", controller_failed_));
      } else if (!pod.is_seen) {
        ++missing;
      }
      continue;
    }
    pod.is_seen = true;
    pod.view = found->second;
    if (!pod.view.is_scheduled && !pod.is_gone) {
      waiting.push_back(absl::StrCat(pod.task.Sentence(), " waits for a node of the cluster",
                                     pod.view.reason.empty() ? "" : ": ", pod.view.reason));
    }
    TakePodView(i, now);
  }
  const bool somebody_makes = view.has_controller && view.failed.empty();
  nobody_makes_since_ = missing == 0 || somebody_makes ? absl::InfiniteFuture() : std::min(nobody_makes_since_, now);
  if (now >= nobody_makes_since_ + kUsualMissing) {
    const std::string why = view.failed.empty() ? "what makes them was deleted" : view.failed;
    Do(state_.OnRefused(absl::StrCat(missing, " of ", pods_.size(), " pods will not come: ", why), false, now));
  }
  if (missing == 0) missing_since_ = absl::InfiniteFuture();
  if (missing > 0 && waiting.empty()) {
    missing_since_ = std::min(missing_since_, now);
    if (now < missing_since_ + kUsualMissing) return;
    waiting.push_back(absl::StrCat(missing, " of ", pods_.size(), " pods are not there yet"));
    // Who makes the pods tells in events what keeps it: a quota, a policy.
    if (!events_ && now >= next_events_) {
      next_events_ = now + kEventsEvery;
      absl::StatusOr<std::unique_ptr<KubectlCall>> call = KubectlCall::Start(
          settings_, {"get", "events", "--field-selector=type=Warning", "-o", "json"}, "", now + kPollLimit);
      if (call.ok()) events_ = *std::move(call);
    }
    // Better words may have come already.
    if (!waiting_.empty()) return;
  }
  waiting_ = waiting.empty() ? "" : waiting[0];
  if (waiting.size() > 1) absl::StrAppend(&waiting_, " (and ", waiting.size() - 1, " more)");
}

// Of a pod that is missing: once one has ended badly the cluster ends all of them, and what the one says may not have
// been read yet.
bool PodSupervision::CauseMayCome(size_t index, absl::Time now) const {
  const Pod& pod = pods_[index];
  if (controller_failed_.empty() || now >= pod.ended_since + kCauseWait) return false;
  return std::any_of(pods_.begin(), pods_.end(),
                     [&pod](const Pod& one) { return &one != &pod && one.is_seen && !one.is_missing && !one.is_gone; });
}

void PodSupervision::TakePodView(size_t index, absl::Time now) {
  Pod& pod = pods_[index];
  if (record_.tasks[index].host != pod.view.node) {
    record_.tasks[index].host = pod.view.node;
    record_changed_ = true;
  }
  if (pod.is_gone) return;
  if (pod.view.is_scheduled && !pod.view.is_running && !pod.view.reason.empty() && pod.view.reason != pod.told_reason) {
    pod.told_reason = pod.view.reason;
    Warn(absl::StrCat(pod.task.Sentence(), ": ", pod.view.reason));
  }
  if (!pod.view.cannot_pull) pod.cannot_pull_since = absl::InfiniteFuture();
  if (pod.view.cannot_pull) {
    pod.cannot_pull_since = std::min(pod.cannot_pull_since, now);
    const absl::Duration patience = absl::Seconds(settings_.pull_seconds.value_or(kUsualPullSeconds));
    if (pod.view.never_starts || now >= pod.cannot_pull_since + patience) {
      Do(state_.OnRefused(absl::StrCat(pod.task.Sentence(), ": ", pod.view.reason), /*wrong_input=*/false, now));
    }
  }
}

// Of a container that has ended, and that did not say how its task ended: it was killed, or never ran.
void PodSupervision::JudgeEnd(size_t index, absl::Time now) {
  Pod& pod = pods_[index];
  if (pod.is_gone || !pod.view.has_ended || pod.ending_since != absl::InfiniteFuture()) return;
  if (pod.log_is_whole) {
    if (!pod.view.reason.empty()) return Lose(index, absl::StrCat("has ended: ", pod.view.reason));
    if (!pod.has_exited) NoteExited(index, {pod.view.exit_code, 0, false}, "");
    return NoteGone(index);
  }
  // The cluster says enough, and ends the others for it.
  if (pod.view.reason.empty() || pod.has_exited || pod.must_term || now < pod.ended_since + kLogWait) return;
  Do(state_.OnRefused(absl::StrCat(NameOf(pod.task, pod.view), " has ended: ", pod.view.reason), false, now));
}

// Of one that the cluster ends before its time: it does so with all of them once one has ended badly, and that one is
// the cause.
void PodSupervision::JudgeEnding(size_t index, absl::Time now) {
  Pod& pod = pods_[index];
  if (pod.ending_since == absl::InfiniteFuture()) return;
  const bool is_over = state_.stopping() || state_.phase() >= RunPhase::kFinalizing;
  const bool another = std::any_of(pods_.begin(), pods_.end(), [&pod](const Pod& one) {
    if (one.ending_since != absl::InfiniteFuture()) return one.ending_since < pod.ending_since;
    return one.ended_since != absl::InfiniteFuture() && !one.has_exited;
  });
  const bool is_known = last_asked_ > pod.ending_since && !another;
  if (!is_over && !is_known && now < pod.ending_since + kCauseWait) return;
  pod.ending_since = absl::InfiniteFuture();
  if (!is_over) {
    Do(state_.OnRefused(absl::StrCat(NameOf(pod.task, pod.view), ": the cluster ends it: the pod was deleted, ",
                                     "preempted, or its node is drained"),
                        /*wrong_input=*/false, now));
  }
  for (const PodEvent& event : std::exchange(pod.held, {})) HandleLog(index, event);
}

// Its pod is no more, and the task did not end by itself.
void PodSupervision::Lose(size_t index, const std::string& why) {
  Pod& pod = pods_[index];
  if (pod.is_gone) return;
  if (!pod.has_exited && !pod.must_term) {
    Do(state_.OnRefused(absl::StrCat(NameOf(pod.task, pod.view), " ", why), false, SteadyNow()));
  }
  if (!pod.has_outputs) HaveOutputs(index, "its pod is gone");
  pod.link.reset();
  pod.has_left = true;
  NoteGone(index);
}

void PodSupervision::ServiceLog(size_t index, absl::Time now) {
  Pod& pod = pods_[index];
  if (!pod.log) {
    if (!pod.is_seen || !pod.view.is_running || pod.log_is_whole || now < pod.log_again) return;
    pod.reader = PodLogReader();
    // Of a pod that had ended before, all comes at once.
    absl::StatusOr<std::unique_ptr<KubectlCall>> call =
        KubectlCall::Start(settings_, {"logs", "--follow", pod.view.name, absl::StrCat("--container=", kPodContainer)},
                           "", absl::InfiniteFuture());
    pod.log_again = now + kLogAgain;
    if (!call.ok()) return;
    pod.log = *std::move(call);
  }
  std::optional<KubectlResult> result = pod.log->Service(now);
  const std::string bytes = result ? result->out : pod.log->TakeOutput();
  if (!bytes.empty()) pod.log_heard = now;
  for (const PodEvent& event : pod.reader.Take(bytes)) HandleLog(index, event);
  if (pod.reader.begins_late() && !pod.log_began_late) {
    pod.log_began_late = true;
    Warn(
        absl::StrCat(pod.task.Sentence(), ": the cluster has thrown away the beginning of its log before it was read"));
  }
  const bool has_ended = pod.ended_since != absl::InfiniteFuture();
  if (!result && has_ended && now >= std::max(pod.log_heard, pod.ended_since) + kMostLogSilence) {
    result = KubectlResult{1, "", absl::StrCat("nothing came for ", absl::ToInt64Seconds(kMostLogSilence), " s")};
  }
  if (!result) return;
  pod.log.reset();
  pod.log_again = now + kLogAgain;
  next_poll_ = std::min(next_poll_, now);  // it has ended, most likely
  const absl::Status status = KubectlStatus(settings_, absl::StrCat("read the log of pod ", pod.view.name), *result);
  if (status.ok()) {
    pod.log_failures = 0;
    pod.log_is_whole = has_ended;
    return;
  }
  if (absl::IsUnauthenticated(status)) return;  // until somebody logs in
  if (absl::IsPermissionDenied(status)) {
    return Do(state_.OnRefused(std::string(status.message()), /*wrong_input=*/true, now));
  }
  // Deleted with its pod, or thrown away: there is no more of it.
  if (absl::IsNotFound(status) || ++pod.log_failures >= kMostLogFailures) pod.log_is_whole = has_ended;
}

void PodSupervision::HandleLog(size_t index, const PodEvent& event) {
  Pod& pod = pods_[index];
  pod.has_agent = pod.has_agent || (event.kind != PodEvent::kPod && event.kind != PodEvent::kEnding);
  if (pod.ending_since != absl::InfiniteFuture() &&
      (event.kind == PodEvent::kExited || event.kind == PodEvent::kGone || event.kind == PodEvent::kRefused)) {
    pod.held.push_back(event);
    return;
  }
  switch (event.kind) {
    case PodEvent::kPod:
    case PodEvent::kAgent:
      return;
    case PodEvent::kState:
      if (!pod.is_started && event.text != pod.told_reason) {
        pod.told_reason = event.text;
        Info(absl::StrCat(pod.task.Sentence(), ": ", event.text));
      }
      return;
    case PodEvent::kStarted:
      return NoteStarted(index, event.number);
    case PodEvent::kExited:
      return NoteExited(index, event.exit, event.text);
    case PodEvent::kEnding: {
      // Before its time, unless the cluster does so because the training is over, which a supervisor that speaks with
      // the pods knows first. Elsewhere only the end of those that decide is before its time.
      const bool has_chief = run_.plan.tasks[chief_].place.name.role == Role::kChief;
      const bool decides = pod.task.role == (has_chief ? Role::kChief : Role::kWorker);
      if (pod.is_gone || pod.has_exited || pod.must_term || !(Speaks() || decides)) return;
      if (state_.phase() >= RunPhase::kFinalizing) return;
      pod.ending_since = std::min(pod.ending_since, SteadyNow());
      next_poll_ = std::min(next_poll_, pod.ending_since);
      return;
    }
    case PodEvent::kGone:
      return NoteGone(index);
    case PodEvent::kRefused:
      if (pod.is_gone) return;
      if (!pod.has_exited && !pod.must_term) {
        Do(state_.OnRefused(absl::StrCat(NameOf(pod.task, pod.view), ": ", event.text), event.number == kExitUsage,
                            SteadyNow()));
      }
      HaveOutputs(index, "");
      pod.has_left = true;
      return NoteGone(index);
    case PodEvent::kKept:
      return NoteKept(index, event.text);
    case PodEvent::kLog: {
      FilePiece piece;
      piece.task = pod.task;
      piece.is_chief = index == chief_;
      piece.offset = event.offset;
      piece.data = event.text;
      history_.Store(piece).IgnoreError();  // the history tells of it
      return;
    }
    case PodEvent::kChunk:
      StoreChunk(index, event.chunk);
      return;
  }
}

void PodSupervision::NoteStarted(size_t index, int pid) {
  if (record_.tasks[index].pid == 0) {
    record_.tasks[index].pid = pid;
    record_changed_ = true;
  }
  if (pods_[index].is_started) return;
  pods_[index].is_started = true;
  Do(state_.OnStarted(index, SteadyNow()));
}

void PodSupervision::NoteExited(size_t index, const TaskExit& exit, const std::string& problem) {
  Pod& pod = pods_[index];
  if (pod.has_exited || pod.is_gone) return;
  pod.has_exited = true;
  pod.exited_well = exit.ok();
  record_.tasks[index].exit = exit;
  record_changed_ = true;
  Do(state_.OnExited(index, exit, SteadyNow(), problem));
}

// It has copied its outputs to the claim, or could not. The line may come again, with the rest of a log.
void PodSupervision::NoteKept(size_t index, const std::string& text) {
  Pod& pod = pods_[index];
  if (pod.has_outputs) return;
  absl::string_view why = text;
  if (absl::ConsumePrefix(&why, kNotKept)) return HaveOutputs(index, std::string(why));
  if (!text.empty()) {
    history_.Journal(absl::Now(), "outputs",
                     nlohmann::json({{"task", pod.task.Name()}, {"kept", settings_.outputs}, {"in_pod", text}}).dump());
  }
  HaveOutputs(index, "");
}

void PodSupervision::NoteGone(size_t index) {
  if (pods_[index].is_gone) return;
  pods_[index].is_gone = true;
  Do(state_.OnGone(index, SteadyNow()));
}

}  // namespace basin
