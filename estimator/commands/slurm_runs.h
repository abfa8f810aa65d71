// Runs that Slurm starts, seen from the login node: submitted to its queue, followed, ended.
#pragma once

#include <cstdio>
#include <string>

#include "absl/status/statusor.h"
#include "estimator/history/run_folder.h"
#include "estimator/run/follow.h"
#include "estimator/run/supervisor.h"

namespace basin {

// The script for a job; `run.target` has the job's options merged into its own.
absl::StatusOr<std::string> ScriptOf(const SupervisedRun& run, const std::string& program, const RunFolder& folder);

// Stages the snapshot in the run's folder, writes script and submission.json there, and hands the script to sbatch;
// then the run is Queued. Returns the job's number. The run's folder exists, with job and plan; nobody holds its lock.
absl::StatusOr<std::string> SubmitToQueue(const SupervisedRun& run, const RunFolder& folder,
                                          const std::string& program);

// Follows a run of the queue to its end. Why it waits is shown on standard error. `may_cancel`: as `basin submit`,
// where SIGTERM, and Ctrl-C twice, cancel the run; otherwise they end the following alone.
absl::StatusOr<FollowEnd> FollowQueuedRun(const RunFolder& folder, std::FILE* lines, bool may_cancel);

// Writes the end of a run whose job is over and whose supervisor could not: by what Slurm says of it. OK where there is
// nothing to do.
absl::Status SettleQueuedRun(const RunFolder& folder);

// Cancels: out of the queue, or by its supervisor. Returns once the run is CancelRequested or over.
absl::Status CancelQueuedRun(const RunFolder& folder);

}  // namespace basin
