// The script that sbatch is given for a run. Pure.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "estimator/job/job.h"
#include "estimator/job/slurm_options.h"

namespace basin {

// `options`: of target and job together. `program`: basin, and `folder`: the run's, by paths that the nodes know.
// INVALID_ARGUMENT for a line end or its like in any of them, which could not be kept within its line; for memory that
// only some roles of a node name, or the options as well as the roles.
absl::StatusOr<std::string> SlurmScript(const Job& job, const SlurmOptions& options, const std::string& program,
                                        const std::string& folder);

// The time limit to ask for, in seconds; 0: the partition's own. slurm.time, else max_run_duration_seconds and what is
// needed before the tasks start and after they were canceled.
int64_t SlurmTimeLimit(const Job& job, const SlurmOptions& options);
// How long before that limit Slurm tells the supervisor (SIGUSR1), which then ends the run: the outputs must come in.
int64_t SlurmSignalLead(const Job& job, const SlurmOptions& options);

}  // namespace basin
