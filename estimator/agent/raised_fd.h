// Descriptors above those that a child's dup2 fills, so that between fork and exec none is written over by another.
#pragma once

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace basin {

// Another descriptor for the same file, at 16 or above, closed at exec. `what`: for the message ("open a descriptor").
absl::StatusOr<UniqueFd> Raised(int fd, const char* what);

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};
absl::StatusOr<Pipe> MakeRaisedPipe();

}  // namespace basin
