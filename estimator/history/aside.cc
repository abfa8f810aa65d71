#include "estimator/history/aside.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/secret.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

constexpr int kMoves = 5;

// An open folder that nobody else holds; none where somebody does, or where it is gone.
UniqueFd Hold(const std::string& folder) {
  UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat held, there;
  // What was removed or renamed between the two is another's.
  if (fd.get() < 0 || flock(fd.get(), LOCK_EX | LOCK_NB) != 0 || fstat(fd.get(), &held) != 0 ||
      lstat(folder.c_str(), &there) != 0 || held.st_ino != there.st_ino || held.st_dev != there.st_dev) {
    return UniqueFd();
  }
  return fd;
}

}  // namespace

absl::StatusOr<FolderAside> FolderAside::Make(const std::string& folder, absl::string_view prefix) {
  for (int attempt = 1;; ++attempt) {
    std::string path = absl::StrCat(folder, "/", prefix, SecretHex(8));
    if (mkdir(path.c_str(), 0700) != 0) return ErrnoStatus(errno, absl::StrCat("make ", path));
    UniqueFd held = Hold(path);
    // Once, somebody who prunes was quicker. Always: folders cannot be held here, so that nobody prunes either.
    if (held.get() >= 0 || attempt == kMoves) return FolderAside(std::move(path), std::move(held));
    rmdir(path.c_str());
  }
}

FolderAside::~FolderAside() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

absl::Status RemoveByWayOf(const std::string& aside, const std::string& place) {
  const UniqueFd held = Hold(place);
  if (rename(place.c_str(), aside.c_str()) != 0) return ErrnoStatus(errno, absl::StrCat("delete ", place));
  std::error_code error;
  fs::remove_all(aside, error);
  return error ? ErrnoStatus(error.value(), absl::StrCat("delete ", aside)) : absl::OkStatus();
}

void PruneAsides(const std::string& folder, absl::string_view prefix) {
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string path = entries->path().string();
    if (!absl::StartsWith(entries->path().filename().string(), prefix)) continue;
    const UniqueFd held = Hold(path);
    std::error_code ignored;
    if (held.get() >= 0) fs::remove_all(path, ignored);
  }
}

}  // namespace basin
