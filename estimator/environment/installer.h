// Runs a tool that installs something, to its end, telling what it prints.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

struct InstallerOutcome {
  int exit_code = 0;              // 128 + signal where it was killed
  std::vector<std::string> last;  // its last lines that are not empty, at most 12
  std::string Ending() const;     // "exit code 1" or "signal 9", and the last lines indented
};

// argv[0] is looked for on PATH. The tool has this process's environment less what would lead its
// Python astray (PYTHONPATH, PYTHONHOME, ...), and writes both its outputs to `say`, line by line, on the calling
// thread. NOT_FOUND where there is no such program; other codes where it cannot be started. `input`: what it reads.
absl::StatusOr<InstallerOutcome> RunInstaller(const std::vector<std::string>& argv,
                                              const std::function<void(absl::string_view line)>& say,
                                              const std::string& input = "");

// NAME=VALUE of this process's environment that a tool elsewhere (in a container) needs as well: pip's settings,
// proxies, certificates; and what RunInstaller adds.
std::vector<std::string> ToolVariablesElsewhere();

}  // namespace basin
