// Carries out a run: starts the plan's tasks, follows them, shows progress, stops them, and keeps the run's record. It
// decides nothing: RunState does.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "estimator/launcher.h"
#include "estimator/plan.h"
#include "estimator/run_folder.h"
#include "estimator/run_state.h"
#include "estimator/stats.h"

namespace basin {

struct SuperviseOptions {
  RunLimits limits;
  // Asked once, after the tasks have started (their starts fork, so threads come later); none: no progress is shown.
  std::function<std::unique_ptr<StatsSource>()> open_stats;
  // Columns of the terminal on standard error, where progress then is one line rewritten; 0: plain lines.
  int terminal_width = 0;
};

struct RunOutcome {
  RunPhase phase = RunPhase::kFailed;
  int exit_code = 1;
  RunRecord record;
  int64_t last_step = 0;  // as progress saw it
};

// Blocks until the run is over and nothing of it is left. SIGINT, SIGTERM and SIGHUP cancel it, a second one kills;
// they are blocked for this thread and those it starts, from the call on. Messages and progress go to standard error.
// An error means that nothing was started.
absl::StatusOr<RunOutcome> Supervise(const Plan& plan, const RunFolder& folder, Launcher& launcher,
                                     const SuperviseOptions& options);

}  // namespace basin
