// The states of a run: which tasks to start and stop, and what the run has come to. A pure decider: events and the time
// go in, actions come out.
//
//   NotStarted -> Preparing -> Running -> Finalizing -> Completed | Failed
//                     \------------\------> CancelRequested -> Canceled
//
// Running ends when the chief has ended with 0 or, without a chief, all workers have. Then the evaluator has a minute
// to finish, then the ps (which end by themselves once the run is finished) and other workers ten seconds, before they
// get SIGTERM; none of that changes the outcome. A task that ends otherwise than with 0, before it was told to stop,
// fails the run: all others are stopped.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "estimator/layout.h"

namespace basin {

enum class RunPhase {
  kNotStarted,
  kPreparing,
  kRunning,
  kFinalizing,
  kCancelRequested,
  kCompleted,
  kFailed,
  kCanceled
};
// As the estimator's users know it: "Running".
const char* RunPhaseName(RunPhase phase);

struct TaskExit {
  int code = 0;
  int signal = 0;  // not 0: ended by that signal, and `code` means nothing
  bool ok() const { return code == 0 && signal == 0; }
  // "exited with code 3", "was ended by SIGKILL".
  std::string Text() const;
};

struct RunAction {
  enum Kind { kStart, kTerm, kKill, kFinish };
  Kind kind;
  size_t task = 0;  // its place in the list of tasks; unused for kFinish
};

struct RunLimits {
  absl::Duration cancel_grace = absl::Seconds(5);  // from SIGTERM to SIGKILL
  absl::Duration evaluator_linger = absl::Seconds(60);
  absl::Duration ps_linger = absl::Seconds(10);
  absl::Duration max_duration = absl::InfiniteDuration();
};

class RunState {
 public:
  RunState(std::vector<TaskId> tasks, const RunLimits& limits);

  // Each event returns what to do now, in order.
  std::vector<RunAction> OnBegin(absl::Time now);
  std::vector<RunAction> OnStarted(size_t task, absl::Time now);
  std::vector<RunAction> OnExited(size_t task, TaskExit exit, absl::Time now);
  // Nothing of the task is left, also of what it had started. Comes after OnExited; without one the task is lost.
  std::vector<RunAction> OnGone(size_t task, absl::Time now);
  // The first call cancels, the next kills.
  std::vector<RunAction> OnCancel(absl::Time now, const std::string& why);
  std::vector<RunAction> OnTime(absl::Time now);

  // When OnTime is due next; InfiniteFuture where it is not.
  absl::Time NextDeadline() const;

  RunPhase phase() const { return phase_; }
  bool finished() const { return phase_ >= RunPhase::kCompleted; }
  // The task whose end failed the run.
  std::optional<size_t> failed_task() const { return failed_task_; }
  // Why it failed or was canceled; empty otherwise.
  const std::string& reason() const { return reason_; }
  std::optional<TaskExit> exit_of(size_t task) const { return tasks_[task].exit; }
  // Of `basin submit`: 0 completed; 2 where a task said that its input is wrong; otherwise 1.
  int exit_code() const;

 private:
  struct Task {
    TaskId name;
    bool started = false;
    bool gone = false;
    bool told_to_stop = false;
    std::optional<TaskExit> exit;
  };

  bool TrainingDone() const;
  bool AnyLeft(Role role) const;
  void StopAll(absl::Time now, std::vector<RunAction>* actions);
  void Stop(size_t task, std::vector<RunAction>* actions);
  void KillAll(std::vector<RunAction>* actions);
  void Fail(size_t task, const std::string& why, absl::Time now, std::vector<RunAction>* actions);
  // Goes on with the end of the run as far as it can.
  void Advance(absl::Time now, std::vector<RunAction>* actions);

  const RunLimits limits_;
  std::vector<Task> tasks_;
  RunPhase phase_ = RunPhase::kNotStarted;
  std::optional<size_t> failed_task_;
  std::string reason_;
  absl::Time cancel_at_ = absl::InfiniteFuture();
  absl::Time evaluator_until_ = absl::InfiniteFuture();
  absl::Time ps_until_ = absl::InfiniteFuture();
  absl::Time kill_at_ = absl::InfiniteFuture();
};

}  // namespace basin
