// Builds the environment of a spec on this machine, once, under BASE/environments/NAME/, and reuses it. Blocks, for
// minutes where much is installed: `basin environment-build` runs it in a process of its own, whose end stops it.
//
//   BASE/environments/             0700
//     NAME/                        (EnvironmentName; "-py3.11.2" follows where the node's own Python is part of it)
//                                  built in place, for a virtual environment cannot be moved
//       basin-environment.json     written last: without it the folder is half built, and is built anew
//     NAME.yml                     of a conda environment: its file
//     NAME.lock                    held (flock) while it is built, with the builder's pid in it
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/container/container.h"
#include "estimator/environment/environment_spec.h"
#include "estimator/environment/installer.h"

namespace basin {

struct BuiltEnvironment {
  std::string prefix;  // empty for a spec that installs nothing
  std::string python;  // absolute; empty where a spec that installs nothing meets a machine without python3
  bool reused = false;
  std::optional<NodeImage> image;  // where the scripts run in containers
};

// Where an environment is built and used: this machine itself, or an image on it.
struct BuildPlace {
  // Runs a tool there, as RunInstaller does here.
  std::function<absl::StatusOr<InstallerOutcome>(const std::vector<std::string>& argv,
                                                 const std::function<void(absl::string_view line)>& say)>
      run;
  std::string where;     // for people
  std::string identity;  // part of the environment's name: what is built for one image is of no use in another
  bool is_image = false;
};
BuildPlace ThisMachine();

// `say` gets one line of progress at a time, without its line feed, the installers' output among them, on the calling
// thread. FAILED_PRECONDITION where a tool is missing (python3, its venv, all three of micromamba, mamba and conda),
// with the fix; ABORTED where an installer failed, with its last lines. What it left is built anew next time. One that
// is whole is never removed nor written to, for jobs may be running in it: FAILED_PRECONDITION where it cannot be used.
absl::StatusOr<BuiltEnvironment> BuildEnvironment(const EnvironmentSpec& spec, const std::string& base,
                                                  const std::function<void(absl::string_view line)>& say,
                                                  const BuildPlace& place = ThisMachine());

// The result file of `basin environment-build`: {"prefix": ..., "python": ..., "reused": ...} or {"problem": ...}; and
// back, a problem as FAILED_PRECONDITION.
std::string BuiltEnvironmentToJson(const BuiltEnvironment& environment);
std::string EnvironmentProblemToJson(const absl::Status& problem);
absl::StatusOr<BuiltEnvironment> ParseBuiltEnvironment(absl::string_view json);

}  // namespace basin
