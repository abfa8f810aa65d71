// What a task is started as: its words and its environment, from what the supervisor asks and what this node has. Pure,
// but for FindTaskProgram, which looks for files.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/agent/messages.h"
#include "estimator/agent/placeholders.h"
#include "estimator/agent/programs.h"

namespace basin {

using Environment = std::vector<std::pair<std::string, std::string>>;  // by name, each once

struct TaskSurroundings {
  NodePaths paths;
  Programs programs;
  std::string metrics_file;
  std::string environment_prefix;  // of the run's pip or conda environment; empty: none
  bool is_conda = false;
  Environment mpi;          // what mpirun has told a rank
  std::string node_folder;  // for what mpirun starts, to find the agent
};

// The agent's environment without what belongs to its own start (SSH_*) or to another task (TF_CONFIG, BASIN_RANK and
// the like, and what an mpirun has set, where a run is submitted from inside one).
Environment InheritedEnvironment(const char* const* variables);

// What is asked for wins over what is inherited; BASIN_RUN_DIR, BASIN_METRICS_FILE and BASIN_LIBRARY are the node's.
// PATH begins with Basin's programs, then the environment's; PYTHONPATH with Basin's package.
Environment TaskEnvironment(const Environment& inherited, const agent::StartTask& request,
                            const TaskSurroundings& surroundings);

// The same without what is inherited and without PATH and PYTHONPATH: for a task in a container, where these are the
// image's own.
Environment ContainedEnvironment(const agent::StartTask& request, const TaskSurroundings& surroundings);

// The words, placeholders replaced, "--listen-fd N" added where the task gets its listener, wrapped in a shell that
// runs the setup lines first. Where they end the task, also well, it says which line did, and ends with another code
// than 0.
std::vector<std::string> TaskWords(const agent::StartTask& request, const TaskSurroundings& surroundings);

// That shell's last words, where the end of a task's log has them: "setup line 2 ended the task ..."; else empty.
std::string SetupProblem(absl::string_view log_end);

// Looks for the program as execvp would, from the folder `folder` and with the PATH of `environment`; a script's
// interpreter too (#!). Returns its path. NOT_FOUND: it is not along PATH; FAILED_PRECONDITION: what is there cannot be
// started. Both say what was looked for, where.
absl::StatusOr<std::string> FindTaskProgram(const std::string& program, const Environment& environment,
                                            const std::string& folder);

std::vector<std::string> EnvironmentLines(const Environment& environment);

}  // namespace basin
