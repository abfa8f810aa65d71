#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/snapshot/beneath.h"
#include "estimator/snapshot/open_folder.h"
#include "estimator/snapshot/task_tree.h"

namespace basin {
namespace {

// Each level of the recursion holds a descriptor. A program may make folders much deeper than that; what lies deeper is
// moved to the top, and removed from there.
constexpr int kMaxDepth = 100;

class Remover {
 public:
  Remover(int top, std::string name, const std::string& shown) : top_(top), name_(std::move(name)), shown_(shown) {}

  absl::Status Run() {
    pending_.push_back(name_);
    // Grows while folders that lie too deep are moved to the top.
    while (!pending_.empty()) {
      const std::string name = pending_.back();
      pending_.pop_back();
      BASIN_RETURN_IF_ERROR(Remove(top_, name, 0));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Remove(int parent, const std::string& name, int depth) {
    if (unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return absl::OkStatus();
    // A folder: EISDIR, or EPERM by POSIX. In a folder that may not be written to, EACCES stands before both.
    const int error = errno;
    UniqueFd fd(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd.get() < 0 && errno == EACCES && fchmodat(parent, name.c_str(), 0700, 0) == 0) {
      fd = UniqueFd(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    }
    if (fd.get() < 0)
      return ErrnoStatus(errno == ENOTDIR ? error : errno, absl::StrCat("remove ", shown_, " (", name, ")"));
    if (depth >= kMaxDepth) {
      const std::string moved = absl::StrCat(name_, ".deep-", ++moved_);
      if (renameat(parent, name.c_str(), top_, moved.c_str()) != 0) {
        return ErrnoStatus(errno, absl::StrCat("remove ", shown_, " (", name, ")"));
      }
      pending_.push_back(moved);
      return absl::OkStatus();
    }
    BASIN_RETURN_IF_ERROR(Empty(fd.get(), depth));
    if (unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) return absl::OkStatus();
    return ErrnoStatus(errno, absl::StrCat("remove ", shown_, " (", name, ")"));
  }

  absl::Status Empty(int folder, int depth) {
    struct stat info;
    if (fstat(folder, &info) == 0 && (info.st_mode & 0700) != 0700) fchmod(folder, 0700);
    std::vector<std::string> names;
    {
      const OpenFolder stream(fdopendir(dup(folder)));
      if (stream == nullptr) return ErrnoStatus(errno, absl::StrCat("list ", shown_));
      while (const dirent* entry = readdir(stream.get())) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(name);
      }
    }
    for (const std::string& name : names) BASIN_RETURN_IF_ERROR(Remove(folder, name, depth + 1));
    return absl::OkStatus();
  }

  const int top_;
  const std::string name_;
  const std::string& shown_;
  std::vector<std::string> pending_;
  int moved_ = 0;
};

}  // namespace

absl::Status RemoveTreeAt(int folder, const std::string& name, const std::string& shown) {
  return Remover(folder, name, shown).Run();
}

absl::Status RemoveTree(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError(absl::StrCat("cannot remove \"", path, "\": its last part is no name"));
  }
  const UniqueFd fd(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 && errno == ENOENT) return absl::OkStatus();
  if (fd.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", parent));
  return RemoveTreeAt(fd.get(), name, path);
}

}  // namespace basin
