// Runs a program of this machine to its end and takes what it says: sbatch, scontrol and their kin.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace basin {

struct ToolResult {
  int exit_code = -1;  // 128 + signal where it was killed
  std::string printed;
  std::string errors;
};

// `argv[0]` is a path or a name looked up along PATH. NOT_FOUND where it cannot be executed; DEADLINE_EXCEEDED after
// `limit`, and the program has been ended then. Its standard input is empty.
absl::StatusOr<ToolResult> RunTool(const std::vector<std::string>& argv, absl::Duration limit);

}  // namespace basin
