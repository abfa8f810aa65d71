// Which target a job runs on, out of the files that define some.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/launch/target.h"

namespace basin {

struct TargetSources {
  std::string user_file;     // ~/.config/basin/targets.yaml; may not exist
  std::string project_file;  // targets.yaml beside the job; may not exist
  std::string given_file;    // --targets; must exist where it is named
};

// The target "local", whose one machine is this.
Target LocalTarget();

// "local", then those of the files; of one name the given file's wins, then the project's, then the user's.
absl::StatusOr<std::vector<Target>> KnownTargets(const TargetSources& sources);

// INVALID_ARGUMENT for a name that is none, naming those that are and where they may be defined. Files are read only
// where the name is not "local".
absl::StatusOr<Target> FindTarget(const std::string& name, const TargetSources& sources);

}  // namespace basin
