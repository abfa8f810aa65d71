// What a job's text alone cannot tell: whether its files are there, and whether its target is large enough.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "estimator/job/job.h"

namespace basin {

// Reads the disk: source_directory is a folder, the entry script a file in it that can be run (*.py, *.sh, or
// executable), and the files of the packages are there. NOT_FOUND or INVALID_ARGUMENT, with the path that was looked
// at.
absl::Status CheckJobFiles(const Job& job);

// Pure. `machines`: how many the target has. INVALID_ARGUMENT where the job asks for more.
// INVALID_ARGUMENT for resources of roles that only Slurm can grant, on a target that is another.
absl::Status CheckRolesOnTarget(const Job& job, bool is_slurm);
absl::Status CheckTarget(const Job& job, int machines);

// For a word of the command line that `submit` does not know ("--node_count", "use_gpu=true"): INVALID_ARGUMENT that
// says what can be changed at submit, and where the rest is changed.
// `nearest`: the flag that may be meant; empty where none is near.
absl::Status UnknownOverride(absl::string_view word, absl::string_view nearest = "");

}  // namespace basin
