// Carries out a run: reaches its nodes, starts the plan's tasks there, follows them, shows progress, stops them, and
// keeps the run's history. It decides nothing: RunState does.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "estimator/history/run_history.h"
#include "estimator/job/plan.h"
#include "estimator/launch/launcher.h"
#include "estimator/run/run_state.h"
#include "estimator/run/stats.h"
#include "estimator/snapshot/unpack.h"

namespace basin {

struct SupervisedRun;
// What its agents know the run by: their folders of an attempt before may still be in use.
std::string AgentRunId(const SupervisedRun& run);
// Why a run ends whose folder somebody has removed (RunHistory::IsRemoved).
std::string RemovedReason(const RunFolder& folder, const std::string& run_id);

// A run as its supervisor takes it over, from `basin submit` or from another supervisor.
struct SupervisedRun {
  Job job;
  Target target;  // its first job.node_count nodes
  Plan plan;      // of a new run with provisional ports; of one taken over, as recorded
  uint64_t epoch = 1;
  std::vector<std::pair<std::string, std::string>> secrets;  // for the tasks' environment, stored nowhere
  std::string environment_spec;                              // empty: nothing is prepared
  std::string container;                                     // of a ContainerRequest; empty: no containers
  const StagedSnapshot* snapshot = nullptr;                  // none: the tasks begin in empty folders
  bool resumed = false;
  int attempt = 1;  // of a run that a batch system starts more than once; each has agents of its own
  absl::Time begun = absl::InfiniteFuture();  // resumed: when the tasks had started
  RunRecord record;                           // run_id, experiment, created, target, git
};

// What the batch system says of the job in which the supervisor runs.
struct BatchVerdict {
  enum Kind {
    kGoesOn,
    kCanceled,
    kFailed,
    kRequeued  // it will be started again, and the run with it
  };
  Kind kind = kGoesOn;
  std::string reason;
};

struct SuperviseOptions {
  RunLimits limits;
  // How to observe the cluster of a plan, asked once the tasks have started; none: no progress is shown.
  std::function<std::unique_ptr<StatsSource>(const Plan&)> open_stats;
  // Columns of the terminal on standard error, where progress then is one line rewritten; 0: plain lines.
  int terminal_width = 0;
  // A script that brings its own parameter server and does not listen on its port so long after its start is named.
  absl::Duration listen_limit = absl::Seconds(60);
  // Told each state as it comes, in this thread.
  std::function<void(RunPhase)> on_phase;
  // Cancels as soon as the loop begins: a supervisor that takes over to do just that.
  bool cancel = false;
  // Within a batch system's job: asked when SIGTERM comes, and when a node or a task ends unasked. It keeps
  // the loop waiting, so it takes seconds at most: a small part of the lease.
  // SIGUSR1 then says that the job's time is nearly over, and fails the run with `time_is_over`.
  std::function<BatchVerdict()> batch_verdict;
  std::string time_is_over;
  // What another process says by SIGINT, for the run's reason; empty: SIGINT.
  std::string sigint_means;
};

struct RunOutcome {
  // Final; or Queued, where the batch system takes the job back: the run is not over, and another supervisor follows.
  RunPhase phase = RunPhase::kFailed;
  int exit_code = 1;
  RunRecord record;
  int64_t last_step = 0;  // as progress saw it
};

// Blocks until the run is over and nothing of it is left. SIGINT, SIGTERM and SIGHUP cancel it (interrupts.h), a
// further one kills, unless the batch system knows better; they are blocked for this thread and those it starts, from
// the call on. So does the removal of the run's folder, which fails the run. Messages and progress go to standard
// error. The caller holds the run's SupervisorLock. An error means that nothing was started.
absl::StatusOr<RunOutcome> Supervise(const SupervisedRun& run, const RunFolder& folder, Launcher& launcher,
                                     RunHistory& history, const SuperviseOptions& options);

}  // namespace basin
