#include "estimator/agent/raised_fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr int kFirstRaised = 16;

}  // namespace

absl::StatusOr<UniqueFd> Raised(int fd, const char* what) {
  UniqueFd raised(fcntl(fd, F_DUPFD_CLOEXEC, kFirstRaised));
  if (raised.get() < 0) return ErrnoStatus(errno, what);
  return raised;
}

absl::StatusOr<Pipe> MakeRaisedPipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "make a pipe");
  const UniqueFd low_read(ends[0]), low_write(ends[1]);
  Pipe pipe;
  BASIN_ASSIGN_OR_RETURN(pipe.read_end, Raised(low_read.get(), "make a pipe"));
  BASIN_ASSIGN_OR_RETURN(pipe.write_end, Raised(low_write.get(), "make a pipe"));
  return pipe;
}

}  // namespace basin
