#include "estimator/container/input_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/files.h"

namespace basin {

absl::StatusOr<UniqueFd> InputFile(const std::string& text) {
  UniqueFd file(memfd_create("basin-input", MFD_CLOEXEC));
  if (file.get() < 0) return ErrnoStatus(errno, "make a file in memory");
  for (size_t done = 0; done < text.size();) {
    const ssize_t wrote = write(file.get(), text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return ErrnoStatus(errno, "write a file in memory");
    done += static_cast<size_t>(wrote);
  }
  if (lseek(file.get(), 0, SEEK_SET) != 0) return ErrnoStatus(errno, "rewind a file in memory");
  return file;
}

}  // namespace basin
