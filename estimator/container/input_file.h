// A text that a program is to read from its standard input, without a pipe that somebody must fill.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace basin {

// A file in memory, on no disk, at its beginning; close-on-exec.
absl::StatusOr<UniqueFd> InputFile(const std::string& text);

}  // namespace basin
