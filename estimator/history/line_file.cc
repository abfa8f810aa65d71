#include "estimator/history/line_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// Where the last whole line ends: after it a search backwards, a piece at a time.
absl::StatusOr<uint64_t> EndOfLastLine(int fd, uint64_t size, const std::string& path) {
  char piece[4096];
  uint64_t end = size;
  while (end > 0) {
    const uint64_t from = end > sizeof(piece) ? end - sizeof(piece) : 0;
    const ssize_t got = pread(fd, piece, end - from, static_cast<off_t>(from));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return ErrnoStatus(got < 0 ? errno : EIO, absl::StrCat("read ", path));
    if (const void* found = memrchr(piece, '\n', static_cast<size_t>(got)); found != nullptr) {
      return from + static_cast<uint64_t>(static_cast<const char*>(found) - piece) + 1;
    }
    end = from;
  }
  return 0;
}

}  // namespace

absl::StatusOr<LineFile> LineFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  LineFile file(path, fd, 0);
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, absl::StrCat("look at ", path));
  const auto size = static_cast<uint64_t>(info.st_size);
  BASIN_ASSIGN_OR_RETURN(file.bytes_, EndOfLastLine(fd, size, path));
  if (file.bytes_ < size && ftruncate(fd, static_cast<off_t>(file.bytes_)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cut the torn last line of ", path));
  }
  return file;
}

LineFile::LineFile(LineFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), bytes_(other.bytes_) {}
LineFile& LineFile::operator=(LineFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
LineFile::~LineFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status LineFile::Append(absl::string_view lines, bool sync) {
  uint64_t at = bytes_;
  while (!lines.empty()) {
    const ssize_t wrote = pwrite(fd_, lines.data(), lines.size(), static_cast<off_t>(at));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      const absl::Status failed = ErrnoStatus(wrote < 0 ? errno : ENOSPC, absl::StrCat("write ", path_));
      if (ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) {
        // The next line is written over what is torn.
      }
      return failed;
    }
    lines.remove_prefix(static_cast<size_t>(wrote));
    at += static_cast<uint64_t>(wrote);
  }
  bytes_ = at;
  if (sync && fdatasync(fd_) != 0) return ErrnoStatus(errno, absl::StrCat("sync ", path_));
  return absl::OkStatus();
}

bool LineFile::IsThere() const {
  struct stat named, own;
  if (stat(path_.c_str(), &named) != 0) return errno != ENOENT && errno != ENOTDIR;
  return fstat(fd_, &own) != 0 || (named.st_dev == own.st_dev && named.st_ino == own.st_ino);
}

}  // namespace basin
