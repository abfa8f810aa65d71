// What `basin doctor` sees of a target under Slurm, from the login node. No job is submitted.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "estimator/job/job.h"
#include "estimator/launch/doctor.h"
#include "estimator/launch/run_tool.h"
#include "estimator/launch/target.h"

namespace basin {

// What Slurm's programs said. A status: it could not be run.
struct SlurmSeen {
  absl::StatusOr<ToolResult> version = absl::UnknownError("");     // sinfo --version
  absl::StatusOr<ToolResult> ping = absl::UnknownError("");        // scontrol ping
  absl::StatusOr<ToolResult> partitions = absl::UnknownError("");  // sinfo -h -o "%P %a %l %D %T"
  absl::StatusOr<ToolResult> test = absl::UnknownError("");        // sbatch --test-only
  std::string runs_folder;
  std::string runs_file_system;  // "nfs", "ext4"; empty: not known
};

// Asks them. `job`: what would be submitted; the target's own options are merged into it. Takes seconds.
SlurmSeen LookAtSlurm(const Target& target, const Job& job, const std::string& program, const std::string& runs_folder);

// Pure. Each finding's node is the target.
std::vector<DoctorFinding> DiagnoseSlurm(const Target& target, const Job& job, const SlurmSeen& seen);

}  // namespace basin
