// The words of srun, and what srun's and sbatch's complaints mean. Pure.
#pragma once

#include <string>
#include <vector>

#include "estimator/launch/launcher.h"
#include "estimator/launch/target.h"

namespace basin {

// srun that starts `command` on one node of the target's allocation, as a step of its own: killing a task kills its
// whole step, so that no two agents may share one.
std::vector<std::string> SrunCommand(const Target& target, const AgentRequest& request,
                                     const std::vector<std::string>& command);

// What sbatch said as it refused a job, and what to do.
std::string SbatchComplaint(const std::string& errors);

// Why srun led to no agent, and what to do. `program` is the basin that was to run there.
std::string SrunComplaint(const AgentRequest& request, const std::string& program, const PipeEnd& end);

}  // namespace basin
