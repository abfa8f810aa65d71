#include "estimator/kubernetes/pod_supervision.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "estimator/agent/steady_now.h"
#include "estimator/kubernetes/manifests.h"
#include "estimator/kubernetes/pod_plan.h"
#include "estimator/run/run_limits.h"

namespace basin {
namespace {

constexpr absl::Duration kGoneLimit = absl::Seconds(20);
constexpr absl::Duration kDeleteLimit = absl::Seconds(60);
constexpr absl::Duration kHardDeletion = absl::Seconds(15);
// A kill that RunState orders comes over a connection that may have to be made first.
constexpr absl::Duration kTalkSlack = absl::Seconds(2);

std::vector<RunTask> TasksOf(const Plan& plan) {
  std::vector<RunTask> tasks;
  for (size_t i = 0; i < plan.tasks.size(); ++i) {
    tasks.push_back({plan.tasks[i].place.name, i, plan.tasks[i].takes_listener});
  }
  return tasks;
}

std::vector<RunNode> NodesOf(const Plan& plan) {
  std::vector<RunNode> nodes;
  for (const PlannedTask& task : plan.tasks) nodes.push_back({task.place.host, /*needs_ports=*/false});
  return nodes;
}

// The cluster's own scheduler and network set no limit here, and silence of the API server is no pod's.
RunLimits PodLimits(RunLimits limits, bool speaks) {
  limits.max_duration = limits.ping = limits.lease = limits.open_limit = absl::InfiniteDuration();
  limits.detach_grace = absl::ZeroDuration();
  // A pod that is ended by its deletion has this long in any case.
  limits.cancel_grace += speaks ? kTalkSlack : kTalkSlack + absl::Seconds(kPodFarewellSeconds);
  limits.goodbye_limit = absl::Minutes(5);
  limits.most_opening = static_cast<size_t>(-1);
  return limits;
}

}  // namespace

PodSupervision::PodSupervision(const SupervisedRun& run, const PodRun& pods, const RunFolder& folder,
                               RunHistory& history, const SuperviseOptions& options, std::string token)
    : run_(run),
      cluster_(pods),
      settings_(pods.settings),
      folder_(folder),
      history_(history),
      options_(options),
      token_(std::move(token)),
      outputs_mode_(ParsePodPlace(pods.settings.outputs, "exec").kind),
      state_(TasksOf(run.plan), NodesOf(run.plan), {}, PodLimits(options.limits, Speaks())),
      record_(run.record),
      pods_(run.plan.tasks.size()) {
  if (record_.tasks.size() != run.plan.tasks.size()) {
    record_.tasks.clear();
    for (const PlannedTask& task : run.plan.tasks) {
      record_.tasks.emplace_back();
      record_.tasks.back().name = task.place.name;
    }
  }
  for (size_t i = 0; i < pods_.size(); ++i) {
    const PlacedTask& place = run.plan.tasks[i].place;
    pods_[i].task = place.name;
    record_.tasks[i].address = place.port == 0 ? "" : absl::StrCat(place.host, ":", place.port);
  }
  chief_ = ChiefTask(run.plan);
  history_.TellBy([](const std::string& line) { Warn(line); });
}

// Of a run that is taken over: what an earlier supervisor has fetched.
void PodSupervision::RecallOutputs() {
  const absl::StatusOr<std::string> journal = ReadFile(folder_.JournalPath(), size_t{1} << 30);
  if (!journal.ok()) return;
  for (const absl::string_view line : absl::StrSplit(*journal, '\n', absl::SkipEmpty())) {
    const nlohmann::json event = nlohmann::json::parse(ToStd(line), nullptr, /*allow_exceptions=*/false);
    if (!event.is_object() || event.value("event", "") != "outputs" || !event.contains("task")) continue;
    for (Pod& pod : pods_) {
      if (event["task"] != pod.task.Name()) continue;
      pod.has_outputs = true;
      if (const auto why = event.find("not_kept"); why != event.end() && why->is_string()) pod.not_kept = *why;
    }
  }
}

PodSupervision::~PodSupervision() { history_.TellBy(nullptr); }

RunOutcome PodSupervision::Run(int signals, ControlSocket* control) {
  history_.Record(absl::Now(), record_);
  const absl::Time now = SteadyNow();
  begun_ = answered_ = now;
  has_answered_ = run_.resumed;
  is_created_ = cluster_.manifests.empty();
  if (run_.resumed) RecallOutputs();
  const bool had_begun = run_.resumed && run_.begun != absl::InfiniteFuture();
  if (had_begun && options_.limits.max_duration != absl::InfiniteDuration()) {
    max_duration_at_ = run_.begun + options_.limits.max_duration + (now - absl::Now());
  }
  // One whose pods had not all come goes on to wait for them: the cluster has it, whoever watches.
  Do(had_begun ? state_.OnResume(run_.begun + (now - absl::Now()), now) : state_.OnBegin(now));
  if (!is_created_) {
    if (const absl::Status created = Create(); !created.ok()) {
      Do(state_.OnRefused(std::string(created.message()), ExitCodeFor(created) == kExitUsage, SteadyNow()));
      for (size_t i = 0; i < pods_.size(); ++i) Do(state_.OnLost(i, "", SteadyNow()));
    }
  }
  for (size_t i = 0; i < pods_.size() && !state_.stopping(); ++i) {
    NodeReport report;
    report.rejoined = had_begun;
    if (had_begun) report.started = {i};
    pods_[i].is_started = had_begun;
    Do(state_.OnConnected(i, report, SteadyNow()));
  }
  if (options_.cancel) Do(state_.OnCancel(SteadyNow(), "canceled by basin cancel"));
  while (!state_.finished()) {
    Wait(signals, *control);
    const absl::Time turn = SteadyNow();
    ServicePoll(turn);
    for (size_t i = 0; i < pods_.size(); ++i) {
      ServiceLog(i, turn);
      ServiceLink(i, turn);
      ServiceDeletion(i, turn);
    }
    // Before they are seen as lost: one may be the cause.
    for (size_t i = 0; i < pods_.size(); ++i) JudgeEnd(i, turn);
    for (size_t i = 0; i < pods_.size(); ++i) JudgeEnding(i, turn);
    ServiceSignals(signals, control);
    for (size_t i = 0; i < pods_.size(); ++i) AdvancePod(i, SteadyNow());
    OnTimers(SteadyNow());
    Do(state_.OnTime(SteadyNow()));
    TellWaiting();
    if (record_changed_) {
      record_changed_ = false;
      history_.Record(absl::Now(), record_);
    }
    history_.OnTime(absl::Now());
    if (history_.IsRemoved() && !state_.stopping() && !state_.finished()) {
      Do(state_.OnRefused(RemovedReason(folder_, run_.record.run_id), false, SteadyNow()));
    }
  }
  DeleteObjects(signals);
  may_finish_ = true;
  TellChanges();
  return {state_.phase(), record_.exit_code.value_or(kExitFailed), history_.record(), 0};
}

absl::Status PodSupervision::Create() {
  nlohmann::ordered_json list = {{"apiVersion", "v1"}, {"kind", "List"}, {"items", cluster_.manifests}};
  const absl::StatusOr<std::string> made =
      RunKubectl(settings_, "create the run's objects", {"create", "-f", "-"}, list.dump());
  if (!made.ok()) {
    is_created_ = true;  // some of them may be there: they are deleted at the end
    return made.status();
  }
  is_created_ = true;
  history_.Journal(
      absl::Now(), "kubernetes",
      nlohmann::json({{"name", ObjectNameOf(run_.record.run_id)}, {"controller", settings_.controller}}).dump());
  Info(absl::StrCat(settings_.controller == "jobset" ? "JobSet " : "Service and Jobs ",
                    ObjectNameOf(run_.record.run_id),
                    settings_.name_space.empty() ? "" : " in namespace " + settings_.name_space));
  return absl::OkStatus();
}

void PodSupervision::Wait(int signals, const ControlSocket& control) {
  std::vector<pollfd> waits = {{signals, POLLIN, 0}};
  control.AddWaits(&waits);
  absl::Time deadline = std::min({state_.NextDeadline(), max_duration_at_, poll_ ? poll_->deadline() : next_poll_});
  if (poll_) poll_->AddWaits(&waits);
  if (events_) events_->AddWaits(&waits);
  for (const Pod& pod : pods_) {
    if (pod.log) pod.log->AddWaits(&waits);
    if (pod.deletion) pod.deletion->AddWaits(&waits);
    if (pod.link) {
      pod.link->AddWaits(&waits);
      deadline = std::min({deadline, pod.link->NextDeadline(), pod.next_ping});
    }
    for (const absl::Time again : {pod.log_again, pod.link_again}) {
      if (again > SteadyNow()) deadline = std::min(deadline, again);
    }
  }
  const absl::Duration left = std::min(deadline - SteadyNow(), history_.NextDeadline() - absl::Now());
  const int limit = left == absl::InfiniteDuration()
                        ? 1000
                        : static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(left) + 1, 0, 1000));
  poll(waits.data(), waits.size(), limit);
}

void PodSupervision::ServiceSignals(int signals, ControlSocket* control) {
  signalfd_siginfo info;
  while (read(signals, &info, sizeof(info)) == sizeof(info)) {
    const bool by_keyboard = info.ssi_signo == SIGINT && info.ssi_code == SI_KERNEL;
    Cancel(absl::StrCat("canceled by SIG", sigabbrev_np(static_cast<int>(info.ssi_signo))),
           interrupts_.OnSignal(by_keyboard, state_.stopping(), SteadyNow()));
  }
  for (const std::string& line : control->Service()) {
    if (line == "cancel") {
      Cancel("canceled by basin cancel", state_.stopping() ? Interrupts::kKill : Interrupts::kCancel);
    }
  }
}

void PodSupervision::Cancel(const std::string& why, Interrupts::Answer answer) {
  if (answer == Interrupts::kAsk) {
    return Info(
        absl::StrCat("press Ctrl-C again within ", absl::ToInt64Seconds(Interrupts::kAskedFor),
                     " s to cancel the run; its pods run on without this terminal, and basin attach follows them"));
  }
  Info(answer == Interrupts::kKill ? "killing all tasks" : "canceling the run; once more kills all tasks at once");
  history_.Journal(absl::Now(), answer == Interrupts::kKill ? "kill" : "cancel",
                   nlohmann::json({{"reason", why}}).dump());
  Do(state_.OnCancel(SteadyNow(), why));
  if (answer == Interrupts::kKill && is_silent_) GiveUp(absl::StrCat("the cluster does not answer: ", no_answer_));
}

// Nothing more can be done about any pod.
void PodSupervision::GiveUp(const std::string& why) {
  for (size_t i = 0; i < pods_.size(); ++i) {
    pods_[i].link.reset();
    if (!pods_[i].has_outputs) HaveOutputs(i, why);
    pods_[i].has_left = true;
    NoteGone(i);
  }
}

void PodSupervision::OnTimers(absl::Time now) {
  if (now >= max_duration_at_) {
    max_duration_at_ = absl::InfiniteFuture();
    if (!state_.stopping() && state_.phase() < RunPhase::kFinalizing) {
      Do(state_.OnCancel(now, absl::StrCat("max_run_duration_seconds (",
                                           absl::ToInt64Seconds(options_.limits.max_duration), ") is over")));
    }
  }
}

void PodSupervision::Do(std::vector<RunAction> actions) {
  for (size_t i = 0; i < actions.size(); ++i) {
    const RunAction action = actions[i];
    std::vector<RunAction> more;
    switch (action.kind) {
      case RunAction::kTerm:
      case RunAction::kKill:
        if (!pods_[action.index].must_term) pods_[action.index].must_term_since = SteadyNow();
        pods_[action.index].must_term = true;
        pods_[action.index].must_kill |= action.kind == RunAction::kKill;
        next_poll_ = std::min(next_poll_, SteadyNow());
        break;
      case RunAction::kMakePlan:
        history_.Journal(absl::Now(), "plan", nlohmann::json({{"attempt", 1}}).dump());
        more = state_.OnPlanned(SteadyNow());
        break;
      case RunAction::kCollect:
        pods_[action.index].must_collect = true;
        break;
      case RunAction::kBye:
        pods_[action.index].must_leave = true;
        break;
      case RunAction::kDrop:
        pods_[action.index].link.reset();
        break;
      case RunAction::kFinish:
        record_.ended = absl::Now();
        break;
      default:
        break;  // the cluster opens and starts; nothing else is asked of a pod before that
    }
    actions.insert(actions.end(), more.begin(), more.end());
  }
  TellChanges();
}

std::string PodSupervision::NotKept() const {
  std::vector<std::string> parts;
  for (const Pod& pod : pods_) {
    if (!pod.not_kept.empty())
      parts.push_back(absl::StrCat("outputs of ", pod.task.Sentence(), " not kept: ", pod.not_kept));
  }
  if (parts.size() > 2) {
    const std::string others = absl::StrCat("and of ", parts.size() - 2, " more; the journal names all");
    parts.resize(2);
    parts.push_back(others);
  }
  return absl::StrJoin(parts, "; ");
}

void PodSupervision::TellChanges() {
  if (state_.finished() && !may_finish_) return;
  for (const PhaseChange& change : state_.TakeChanges()) {
    const RunPhase before = record_.phase;
    record_.phase = change.phase;
    record_.reason = change.reason;
    if (state_.finished()) {
      const std::string not_kept = NotKept();
      // What ran to its end and whose outputs are lost is work that failed, for whoever goes on with them.
      record_.exit_code = state_.exit_code() == kExitOk && !not_kept.empty() ? kExitFailed : state_.exit_code();
      absl::StrAppend(&record_.reason, record_.reason.empty() || not_kept.empty() ? "" : "; ", not_kept);
      record_.ended = absl::Now();
    }
    record_changed_ = false;
    history_.Record(absl::Now(), record_);
    if (change.phase == RunPhase::kRunning && before != RunPhase::kRunning) {
      Info("Running: all tasks have started");
      if (options_.limits.max_duration != absl::InfiniteDuration() && max_duration_at_ == absl::InfiniteFuture()) {
        max_duration_at_ = change.time + options_.limits.max_duration;
      }
    }
    if (change.phase == RunPhase::kFinalizing && state_.failed()) {
      Error(absl::StrCat(state_.reason(), state_.failed_task() ? "; the other tasks are stopped" : ""));
    }
    if (options_.on_phase) options_.on_phase(change.phase);
  }
  if (state_.finished()) TellLastLines();
}

// States that the cluster knows and RunState does not: a run waits for room, or nothing is heard of it.
void PodSupervision::TellWaiting() {
  if (state_.finished()) return;
  if (state_.stopping()) {
    if (is_silent_ && !told_silence_) {
      told_silence_ = true;
      Warn(absl::StrCat("the run cannot be ended now: ", no_answer_,
                        "; it goes on trying. Once more (Ctrl-C, basin cancel) gives its pods up"));
    }
    return;
  }
  RunPhase phase = state_.phase();
  std::string reason;
  if (is_silent_) {
    phase = RunPhase::kNotResponding;
    reason = no_answer_;
  } else if (phase < RunPhase::kRunning && !waiting_.empty()) {
    phase = RunPhase::kQueued;
    reason = waiting_;
  } else if (record_.phase != RunPhase::kQueued && record_.phase != RunPhase::kNotResponding) {
    return;
  }
  if (phase == record_.phase && (reason.empty() || reason == record_.reason)) return;
  record_.phase = phase;
  record_.reason = reason;
  history_.Record(absl::Now(), record_);
  Info(absl::StrCat(RunPhaseName(phase), reason.empty() ? "" : ": ", reason));
  if (options_.on_phase) options_.on_phase(phase);
}

void PodSupervision::TellLastLines() {
  if (!state_.failed_task() || last_lines_told_) return;
  last_lines_told_ = true;
  const std::string log = folder_.LogPath(pods_[*state_.failed_task()].task);
  const std::vector<std::string> lines = LastLines(log, kShownLogLines);
  Info(absl::StrCat("last lines of ", log, lines.empty() ? " (empty)" : ":"));
  for (const std::string& line : lines) Info(absl::StrCat("  ", line));
}

// All that was made for the run; its folder has what is worth keeping.
void PodSupervision::DeleteObjects(int signals) {
  if (!is_created_) return;
  for (Pod& pod : pods_) {
    pod.log.reset();
    pod.link.reset();
  }
  poll_.reset();
  const std::string label = absl::StrCat("--selector=", kRunLabel, "=", run_.record.run_id);
  const std::string kinds = settings_.controller == "jobset" ? "jobsets.jobset.x-k8s.io,configmaps,secrets"
                                                             : "jobs,services,configmaps,secrets";
  std::string left = absl::StrCat("kubectl delete ", kinds, " ", label);
  absl::Status status = RunKubectl(settings_, "delete the run's objects",
                                   {"delete", kinds, label, "--ignore-not-found", "--wait=false"}, "", kDeleteLimit)
                            .status();
  absl::Time until = SteadyNow() + options_.limits.cancel_grace + kDeleteLimit;
  bool hard = false;
  while (status.ok()) {
    const absl::StatusOr<std::string> names =
        RunKubectl(settings_, "look whether the pods are gone", {"get", "pods", label, "-o", "name"}, "", kGoneLimit);
    status = names.status();
    if (!names.ok() || absl::StripAsciiWhitespace(*names).empty()) break;
    if (SteadyNow() > until) {
      if (hard) {
        status = absl::UnavailableError(absl::StrCat("pods are still there: ", absl::StripAsciiWhitespace(*names)));
        break;
      }
      hard = true;
      until = SteadyNow() + kHardDeletion;
      RunKubectl(settings_, "delete the pods", {"delete", "pods", label, "--grace-period=0", "--force", "--wait=false"})
          .status()
          .IgnoreError();
    }
    // Whoever has had enough of waiting says so.
    pollfd wait = {signals, POLLIN, 0};
    signalfd_siginfo info;
    if (poll(&wait, 1, 200) > 0 && read(signals, &info, sizeof(info)) == sizeof(info)) until = SteadyNow();
  }
  if (status.ok()) return;
  Warn(absl::StrCat("objects of the run may be left in the cluster: ", status.message(), "; remove them: ", left));
  history_.Journal(absl::Now(), "left_in_cluster", nlohmann::json({{"why", std::string(status.message())}}).dump());
}

absl::StatusOr<RunOutcome> SupervisePods(const SupervisedRun& run, const PodRun& pods, const RunFolder& folder,
                                         RunHistory& history, const SuperviseOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL);
  sigset_t watched;
  sigemptyset(&watched);
  for (const int one : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&watched, one);
  pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  const UniqueFd signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals.get() < 0) return ErrnoStatus(errno, "signalfd");
  BASIN_ASSIGN_OR_RETURN(const std::string token, ReadFile(folder.TokenPath(), 4096));
  BASIN_ASSIGN_OR_RETURN(ControlSocket control, ControlSocket::Listen(folder.path()));
  PodSupervision supervision(run, pods, folder, history, options, std::string(absl::StripAsciiWhitespace(token)));
  return supervision.Run(signals.get(), &control);
}

}  // namespace basin
