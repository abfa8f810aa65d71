#include "estimator/run_state.h"

#include <string.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"

namespace basin {

const char* RunPhaseName(RunPhase phase) {
  switch (phase) {
    case RunPhase::kNotStarted:
      return "NotStarted";
    case RunPhase::kPreparing:
      return "Preparing";
    case RunPhase::kRunning:
      return "Running";
    case RunPhase::kFinalizing:
      return "Finalizing";
    case RunPhase::kCancelRequested:
      return "CancelRequested";
    case RunPhase::kCompleted:
      return "Completed";
    case RunPhase::kFailed:
      return "Failed";
    case RunPhase::kCanceled:
      return "Canceled";
  }
  return "Unknown";
}

std::string TaskExit::Text() const {
  if (signal == 0) return absl::StrCat("exited with code ", code);
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? absl::StrCat("was ended by SIG", name) : absl::StrCat("was ended by signal ", signal);
}

RunState::RunState(std::vector<TaskId> tasks, const RunLimits& limits) : limits_(limits) {
  for (const TaskId& name : tasks) tasks_.push_back({name});
}

std::vector<RunAction> RunState::OnBegin(absl::Time now) {
  phase_ = RunPhase::kPreparing;
  cancel_at_ = now + limits_.max_duration;
  std::vector<RunAction> actions;
  for (size_t i = 0; i < tasks_.size(); ++i) actions.push_back({RunAction::kStart, i});
  return actions;
}

std::vector<RunAction> RunState::OnStarted(size_t task, absl::Time) {
  tasks_[task].started = true;
  const bool all = std::all_of(tasks_.begin(), tasks_.end(), [](const Task& one) { return one.started; });
  if (phase_ == RunPhase::kPreparing && all) phase_ = RunPhase::kRunning;
  return {};
}

std::vector<RunAction> RunState::OnExited(size_t task, TaskExit exit, absl::Time now) {
  std::vector<RunAction> actions;
  Task& one = tasks_[task];
  if (one.exit) return actions;
  one.exit = exit;
  if (!exit.ok() && !one.told_to_stop) {
    Fail(task, absl::StrCat(one.name.Sentence(), " ", exit.Text()), now, &actions);
  }
  Advance(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnGone(size_t task, absl::Time now) {
  std::vector<RunAction> actions;
  Task& one = tasks_[task];
  one.gone = true;
  if (!one.exit && !one.told_to_stop) {
    Fail(task, absl::StrCat(one.name.Sentence(), " was lost: its guard ended without a report"), now, &actions);
  }
  Advance(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnCancel(absl::Time now, const std::string& why) {
  std::vector<RunAction> actions;
  if (finished()) return actions;
  if (phase_ == RunPhase::kCancelRequested || failed_task_) {
    KillAll(&actions);
    return actions;
  }
  phase_ = RunPhase::kCancelRequested;
  reason_ = why;
  cancel_at_ = absl::InfiniteFuture();
  StopAll(now, &actions);
  Advance(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnTime(absl::Time now) {
  std::vector<RunAction> actions;
  if (finished()) return actions;
  if (now >= cancel_at_) {
    cancel_at_ = absl::InfiniteFuture();
    if (phase_ == RunPhase::kPreparing || phase_ == RunPhase::kRunning) {
      return OnCancel(
          now, absl::StrCat("max_run_duration_seconds (", absl::ToInt64Seconds(limits_.max_duration), ") is over"));
    }
  }
  if (now >= kill_at_) KillAll(&actions);
  Advance(now, &actions);
  return actions;
}

absl::Time RunState::NextDeadline() const {
  if (finished()) return absl::InfiniteFuture();
  return std::min({cancel_at_, evaluator_until_, ps_until_, kill_at_});
}

int RunState::exit_code() const {
  if (phase_ == RunPhase::kCompleted) return kExitOk;
  if (failed_task_) {
    const std::optional<TaskExit>& exit = tasks_[*failed_task_].exit;
    if (exit && exit->signal == 0 && exit->code == kExitUsage) return kExitUsage;
  }
  return kExitFailed;
}

bool RunState::TrainingDone() const {
  const bool has_chief =
      std::any_of(tasks_.begin(), tasks_.end(), [](const Task& task) { return task.name.role == Role::kChief; });
  const Role trainer = has_chief ? Role::kChief : Role::kWorker;
  return std::all_of(tasks_.begin(), tasks_.end(), [trainer](const Task& task) {
    return task.name.role != trainer || (task.exit && task.exit->ok());
  });
}

bool RunState::AnyLeft(Role role) const {
  return std::any_of(tasks_.begin(), tasks_.end(),
                     [role](const Task& task) { return task.name.role == role && !task.exit && !task.gone; });
}

void RunState::Stop(size_t task, std::vector<RunAction>* actions) {
  Task& one = tasks_[task];
  if (one.told_to_stop || one.gone) return;
  one.told_to_stop = true;
  actions->push_back({RunAction::kTerm, task});
}

void RunState::StopAll(absl::Time now, std::vector<RunAction>* actions) {
  for (size_t i = 0; i < tasks_.size(); ++i) Stop(i, actions);
  evaluator_until_ = ps_until_ = absl::InfiniteFuture();
  kill_at_ = std::min(kill_at_, now + limits_.cancel_grace);
}

void RunState::KillAll(std::vector<RunAction>* actions) {
  kill_at_ = absl::InfiniteFuture();
  for (size_t i = 0; i < tasks_.size(); ++i) {
    tasks_[i].told_to_stop = true;
    if (!tasks_[i].gone) actions->push_back({RunAction::kKill, i});
  }
}

void RunState::Fail(size_t task, const std::string& why, absl::Time now, std::vector<RunAction>* actions) {
  if (failed_task_ || phase_ == RunPhase::kCancelRequested || finished()) return;
  failed_task_ = task;
  reason_ = why;
  phase_ = RunPhase::kFinalizing;
  cancel_at_ = absl::InfiniteFuture();
  StopAll(now, actions);
}

void RunState::Advance(absl::Time now, std::vector<RunAction>* actions) {
  if (finished() || phase_ == RunPhase::kNotStarted) return;
  if (std::all_of(tasks_.begin(), tasks_.end(), [](const Task& task) { return task.gone; })) {
    phase_ = failed_task_                           ? RunPhase::kFailed
             : phase_ == RunPhase::kCancelRequested ? RunPhase::kCanceled
                                                    : RunPhase::kCompleted;
    actions->push_back({RunAction::kFinish});
    return;
  }
  if ((phase_ == RunPhase::kRunning || phase_ == RunPhase::kPreparing) && TrainingDone()) {
    phase_ = RunPhase::kFinalizing;
    cancel_at_ = absl::InfiniteFuture();
    evaluator_until_ = now + limits_.evaluator_linger;
  }
  if (phase_ != RunPhase::kFinalizing || failed_task_) return;
  // The evaluator reads from the ps, so their time begins when it is done.
  if (evaluator_until_ != absl::InfiniteFuture() && (now >= evaluator_until_ || !AnyLeft(Role::kEvaluator))) {
    for (size_t i = 0; i < tasks_.size(); ++i) {
      if (tasks_[i].name.role == Role::kEvaluator && !tasks_[i].exit) Stop(i, actions);
    }
    evaluator_until_ = absl::InfiniteFuture();
    ps_until_ = now + limits_.ps_linger;
  }
  if (now >= ps_until_) StopAll(now, actions);
}

}  // namespace basin
