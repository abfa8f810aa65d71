#include "estimator/agent/shared_memory_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/agent/agent_log.h"
#include "estimator/snapshot/task_tree.h"

namespace basin {
namespace {

constexpr char kPrefix[] = "basin-mpi-";
constexpr char kLockName[] = "/.basin-in-use";

// -1: somebody has it, or it cannot be had.
UniqueFd Lock(const std::string& folder, int flags) {
  UniqueFd fd(open((folder + kLockName).c_str(), flags | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (fd.get() >= 0 && flock(fd.get(), LOCK_EX | LOCK_NB) != 0) fd.Close();
  return fd;
}

// Whoever used them is gone: the lock of each went with its process.
void RemoveLeft(const std::string& place) {
  DIR* folder = opendir(place.c_str());
  if (folder == nullptr) return;
  std::vector<std::string> found;
  while (const dirent* entry = readdir(folder)) {
    if (absl::StartsWith(entry->d_name, kPrefix)) found.push_back(absl::StrCat(place, "/", entry->d_name));
  }
  closedir(folder);
  for (const std::string& path : found) {
    struct stat info;
    if (lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid()) continue;
    const UniqueFd lock = Lock(path, 0);
    if (lock.get() >= 0) RemoveTree(path).IgnoreError();
  }
}

}  // namespace

absl::StatusOr<SharedMemoryFolder> SharedMemoryFolder::Make(const std::string& place) {
  RemoveLeft(place);
  SharedMemoryFolder made;
  std::string path = absl::StrCat(place, "/", kPrefix, "XXXXXX");
  if (mkdtemp(path.data()) == nullptr) return ErrnoStatus(errno, absl::StrCat("make a folder in ", place));
  made.path_ = path;
  made.lock_ = Lock(path, O_CREAT);
  if (made.lock_.get() < 0) return ErrnoStatus(errno, absl::StrCat("lock ", path));
  return made;
}

SharedMemoryFolder::SharedMemoryFolder(SharedMemoryFolder&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::move(other.lock_)) {
  other.path_.clear();
}

SharedMemoryFolder::~SharedMemoryFolder() {
  if (path_.empty()) return;
  if (const absl::Status status = RemoveTree(path_); !status.ok()) AgentLog(status.message());
}

}  // namespace basin
