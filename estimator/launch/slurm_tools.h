// Slurm's programs on this machine: sbatch, scontrol, scancel. Each call may take seconds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "estimator/launch/run_tool.h"
#include "estimator/launch/slurm_job.h"

namespace basin {

// Runs sbatch without the SBATCH_* of the environment, which beat what stands in a script, and warns of those that are
// set. They are back when it returns. Errors as of RunTool.
absl::StatusOr<ToolResult> RunSbatch(const std::vector<std::string>& argv, absl::Duration limit);

// Submits a script that lies at `path`; the number of the job. FAILED_PRECONDITION where sbatch is not on PATH, or
// refuses: with its words and what to do. Also where it submits to another cluster than the one it speaks with: that
// job is canceled.
absl::StatusOr<std::string> SubmitToSlurm(const std::string& path);

// Of one job; nullopt where Slurm knows none of that number (any more). Any error: Slurm cannot be asked now. slurmctld
// may be busy: what takes longer than `limit` is given up.
absl::StatusOr<std::optional<SlurmJob>> AskSlurm(const std::string& id, absl::Duration limit = absl::Seconds(20));

// Takes a job out of the queue; one that has begun meanwhile is left alone.
absl::Status TakeFromQueue(const std::string& id);
// Tells the batch script of a job that runs, which is its supervisor, to cancel the run.
absl::Status TellBatchScript(const std::string& id);
// Ends a job, whatever it does.
absl::Status EndSlurmJob(const std::string& id);

// "h[0-2]" as names.
absl::StatusOr<std::vector<std::string>> HostNamesOf(const std::string& node_list);

}  // namespace basin
