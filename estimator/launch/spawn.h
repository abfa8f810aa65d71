// Starts a launcher's process with pipes to its standard input, output and errors.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/launch/launcher.h"

namespace basin {

// `program` is a path, or a name looked up along PATH; argv[0] is the process's own name. It leads a session, so that
// Ctrl-C of the terminal reaches the supervisor alone. NOT_FOUND where the program cannot be executed.
absl::StatusOr<AgentPipe> SpawnPiped(const std::string& program, const std::vector<std::string>& argv);

}  // namespace basin
