// A task's command, put into a container of the run's image: the same paths, network and processes as on the node, but
// the image's files and variables.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/agent/node_folder.h"
#include "estimator/agent/task_command.h"
#include "estimator/container/in_container.h"

namespace basin {

struct TaskContainer {
  const NodeImage& image;
  const ContainerRequest& request;
  const NodeFolder& folder;
  std::string name;  // the container's
};

// `words` is what TaskWords made; `environment` what the supervisor and the node set for this task, without anything
// that is inherited. Looks for files.
absl::StatusOr<EngineCommand> TaskInContainer(const TaskContainer& container, const TaskSurroundings& surroundings,
                                              const std::vector<std::string>& words, const Environment& environment);

// Basin's own programs, library and Python package, to be seen at their own paths: their folders, or the files alone
// where they lie among others' (/usr/bin), which would hide the image's.
std::vector<ContainerMount> ProgramMounts(const Programs& programs);

// Where notes of a task's containers lie (container/removal.h); "environment" for its preparation.
std::string RemovalsOf(const NodeFolder& folder, const std::string& task);

}  // namespace basin
