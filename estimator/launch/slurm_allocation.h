// The Slurm allocation in which this process runs.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "estimator/launch/target.h"
#include "estimator/run/supervisor.h"

namespace basin {

using EnvironmentVariable = std::function<std::optional<std::string>(const std::string& name)>;

// Its number, by SLURM_JOB_ID; empty where there is none.
std::string AllocationHere(const EnvironmentVariable& variable);

// Gives the target the nodes and CPUs of that allocation. FAILED_PRECONDITION where Slurm's variables do not tell,
// or tell of a heterogeneous job, whose nodes differ.
// REQUIRES: there is one.
absl::Status EnterAllocation(const EnvironmentVariable& variable, Target* target);

// How often Slurm has restarted the job: 0 in its first life.
int RestartsHere(const EnvironmentVariable& variable);

// Asks Slurm what it does to the allocation (SuperviseOptions::batch_verdict), for half of the agents' `lease` at most:
// a controller that is loaded answers late.
std::function<BatchVerdict()> VerdictOfAllocation(const std::string& job_id, int restarts, absl::Duration lease);

}  // namespace basin
