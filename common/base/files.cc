#include "common/base/files.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr absl::string_view kTemporaryMark = ".basin-tmp.";
constexpr size_t kNameBytesKept = 200;  // a name has at most 255

}  // namespace

absl::Status ErrnoStatus(int error, absl::string_view what) {
  return absl::Status(absl::ErrnoToStatusCode(error),
                      absl::StrCat(what, ": ", std::generic_category().message(error), " (", error, ")"));
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  absl::Cleanup close_fd = [fd] { close(fd); };
  std::string content;
  char buffer[64 << 10];
  while (true) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", path));
    if (got == 0) return content;
    if (content.size() + got > max_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat(path, ": larger than ", max_bytes, " bytes"));
    }
    content.append(buffer, got);
  }
}

absl::StatusOr<std::string> ReadTail(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", path));
  const auto size = static_cast<uint64_t>(info.st_size);
  uint64_t at = size - std::min<uint64_t>(size, max_bytes);
  std::string content(size - at, '\0');
  size_t have = 0;
  while (have < content.size()) {
    const ssize_t got = pread(fd, content.data() + have, content.size() - have, static_cast<off_t>(at + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", path));
    if (got == 0) break;  // it was cut meanwhile
    have += static_cast<size_t>(got);
  }
  content.resize(have);
  return content;
}

absl::Status WriteAll(int fd, absl::string_view bytes, absl::string_view what) {
  while (!bytes.empty()) {
    const ssize_t wrote = write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) {
      pollfd wait = {fd, POLLOUT, 0};
      poll(&wait, 1, -1);
      continue;
    }
    if (wrote < 0) return ErrnoStatus(errno, absl::StrCat("write ", what));
    bytes.remove_prefix(static_cast<size_t>(wrote));
  }
  return absl::OkStatus();
}

absl::Status WriteAllAt(int fd, absl::string_view bytes, uint64_t offset, absl::string_view what) {
  while (!bytes.empty()) {
    const ssize_t wrote = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return ErrnoStatus(errno, absl::StrCat("write ", what));
    bytes.remove_prefix(static_cast<size_t>(wrote));
    offset += static_cast<uint64_t>(wrote);
  }
  return absl::OkStatus();
}

std::string TemporaryPathFor(const std::string& path) {
  const size_t name = path.rfind('/') + 1;  // 0 where there is no folder
  return absl::StrCat(path.substr(0, name), ".", path.substr(name, kNameBytesKept), kTemporaryMark, getpid());
}

bool IsTemporaryName(absl::string_view name) {
  const size_t mark = name.rfind(kTemporaryMark);
  if (!absl::StartsWith(name, ".") || mark == absl::string_view::npos) return false;
  const absl::string_view pid = name.substr(mark + kTemporaryMark.size());
  return !pid.empty() && std::all_of(pid.begin(), pid.end(), absl::ascii_isdigit);
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view content, int mode) {
  const std::string temporary = TemporaryPathFor(path);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("create ", path));
  absl::Cleanup close_fd = [fd] { close(fd); };
  absl::Cleanup remove_temporary = [&temporary] { unlink(temporary.c_str()); };
  BASIN_RETURN_IF_ERROR(WriteAll(fd, content, path));
  if (fsync(fd) != 0) return ErrnoStatus(errno, absl::StrCat("fsync ", path));
  if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, absl::StrCat("rename to ", path));
  std::move(remove_temporary).Cancel();
  return absl::OkStatus();
}

absl::Status MakeFolders(const std::string& path, int mode) {
  for (size_t at = 1; at <= path.size(); ++at) {
    if (at != path.size() && path[at] != '/') continue;
    const std::string part = path.substr(0, at);
    if (mkdir(part.c_str(), mode) != 0 && errno != EEXIST) return ErrnoStatus(errno, absl::StrCat("mkdir ", part));
  }
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("mkdir ", path));
  if (!S_ISDIR(info.st_mode)) return absl::FailedPreconditionError(absl::StrCat(path, " is a file, not a folder"));
  return absl::OkStatus();
}

}  // namespace basin
