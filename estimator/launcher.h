// How tasks are started and stopped on a target: the seam below the supervisor.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "estimator/plan.h"
#include "estimator/run_state.h"

namespace basin {

struct LauncherEvent {
  enum Kind { kStarted, kExited, kGone };
  Kind kind;
  size_t task = 0;
  pid_t pid = 0;  // kStarted
  TaskExit exit;  // kExited
};

class Launcher {
 public:
  virtual ~Launcher() = default;
  // Starts task number `task`; its output goes to `log_path`. On an error nothing was started and no event comes.
  // Otherwise kGone is the last event, whatever happens.
  virtual absl::Status Start(size_t task, const PlannedTask& planned, const std::string& log_path) = 0;
  // To the task and all that it has started; no effect on one that is gone.
  virtual void Terminate(size_t task) = 0;
  virtual void Kill(size_t task) = 0;
  // Returns on events, at `deadline`, or when `wake_fd` can be read (-1: none). Events of one task are in order, and
  // those of several come in the tasks' order.
  virtual std::vector<LauncherEvent> Wait(absl::Time deadline, int wake_fd) = 0;
  // Ends whatever is left, also below a guard that was itself killed. Call it when all tasks are gone.
  virtual void SweepUp() = 0;
};

// Tasks as processes on this machine, each under a guard (guard.h). `grace` goes to the guards. The calling process
// must have no children of its own: it becomes their subreaper, and SweepUp ends all.
std::unique_ptr<Launcher> MakeLocalLauncher(absl::Duration grace);

}  // namespace basin
