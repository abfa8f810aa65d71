// An image as the place where an environment is built: each tool runs in a container of its own, which sees the folder
// of environments, and what pip is told to read.
#pragma once

#include <string>

#include "estimator/container/container.h"
#include "estimator/environment/build_environment.h"

namespace basin {

struct ImagePlaceOptions {
  std::string run_id;
  std::string name;      // of the containers, one after the other
  std::string removals;  // folder of notes (removal.h)
  std::string base;      // whose environments/ is written to
};

BuildPlace ImagePlace(const NodeImage& image, const ContainerRequest& request, const EnvironmentSpec& spec,
                      const ImagePlaceOptions& options);

// Paths of this machine that the lines of requirements and constraints name: "/wheels/a.whl", "-f /wheels",
// "a @ file:///wheels/a.whl". Pure.
std::vector<std::string> PathsIn(const std::vector<std::string>& lines);

}  // namespace basin
