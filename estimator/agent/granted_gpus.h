// Which of a node's GPUs are this job's, where Slurm has granted some: what it granted is subdivided, never widened.
// Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace basin {

struct GrantedGpus {
  std::vector<std::string> gpus;  // in the order of the grant
  std::string problem;            // why there are none, for people; empty where there are some, or Slurm is not here
};

// `all`: UUIDs as the node lists them, in the order of their numbers. `environment`: of a process in a step of Slurm's
// (SLURM_JOB_ID); without it all are its own. There CUDA_VISIBLE_DEVICES names those of the step, by number or by the
// beginning of the UUID; where it is missing, SLURM_STEP_GPUS or SLURM_JOB_GPUS do.
GrantedGpus GpusGrantedBySlurm(const std::vector<std::string>& all,
                               const std::vector<std::pair<std::string, std::string>>& environment);

}  // namespace basin
