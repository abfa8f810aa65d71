// A supervisor that goes on in the background, in a session of its own, and reports once to the process that started
// it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace basin {

struct Forked {
  bool in_background = false;  // this is the new process; otherwise the old one
  UniqueFd report;             // new process: write a line to it, once; old one: read it
};

// Call it before there are threads. The new process has no terminal; its standard output and errors go to `log_path`.
// It is no child of the old one, and outlives it.
absl::StatusOr<Forked> ForkToBackground(const std::string& log_path);

// A report that ended in a line; the empty line where it never came: the process has died. Blocks.
std::string ReadReport(const UniqueFd& report);
void WriteReport(const UniqueFd& report, const std::string& line);
// The line of an error, and back: OK for any other line. What exit code it means stays.
std::string ErrorReport(const absl::Status& error);
absl::Status ErrorOfReport(const std::string& report);

}  // namespace basin
