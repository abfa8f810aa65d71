#include "estimator/snapshot/task_tree.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "estimator/snapshot/open_folder.h"

namespace basin {
namespace {

absl::StatusOr<std::vector<std::string>> NamesIn(int folder, const std::string& shown) {
  const OpenFolder stream(fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  if (stream == nullptr) return ErrnoStatus(errno, absl::StrCat("list folder ", shown));
  std::vector<std::string> names;
  while (const dirent* entry = readdir(stream.get())) {
    const absl::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  return names;
}

class Copier {
 public:
  absl::Status CopyFolder(int from, int to, const std::string& shown) {
    BASIN_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(from, shown));
    for (const std::string& name : names) {
      const std::string path = absl::StrCat(shown, "/", name);
      struct stat info;
      if (fstatat(from, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
        return ErrnoStatus(errno, absl::StrCat("stat ", path));
      if (S_ISDIR(info.st_mode)) {
        if (mkdirat(to, name.c_str(), 0755) != 0) return ErrnoStatus(errno, absl::StrCat("make folder ", path));
        const UniqueFd source(openat(from, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        const UniqueFd target(openat(to, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (source.get() < 0 || target.get() < 0) return ErrnoStatus(errno, absl::StrCat("open folder ", path));
        BASIN_RETURN_IF_ERROR(CopyFolder(source.get(), target.get(), path));
      } else if (S_ISLNK(info.st_mode)) {
        char text[4096];
        const ssize_t size = readlinkat(from, name.c_str(), text, sizeof(text) - 1);
        if (size < 0) return ErrnoStatus(errno, absl::StrCat("read link ", path));
        text[size] = '\0';
        if (symlinkat(text, to, name.c_str()) != 0) return ErrnoStatus(errno, absl::StrCat("make link ", path));
      } else {
        const UniqueFd source(openat(from, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
        const mode_t mode = (info.st_mode & S_IXUSR) != 0 ? 0755 : 0644;
        const UniqueFd target(openat(to, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
        if (source.get() < 0 || target.get() < 0) return ErrnoStatus(errno, absl::StrCat("copy ", path));
        BASIN_RETURN_IF_ERROR(CopyContent(source.get(), target.get(), path));
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status CopyContent(int from, int to, const std::string& path) {
    if (may_clone_) {
      if (ioctl(to, FICLONE, from) == 0) return absl::OkStatus();
      // Not on this filesystem, or not between these two: the same for every file of the tree.
      may_clone_ = false;
    }
    bool in_kernel = true;
    std::string buffer;
    while (true) {
      ssize_t moved;
      if (in_kernel) {
        moved = copy_file_range(from, nullptr, to, nullptr, size_t{1} << 30, 0);
        // It says so before it has copied anything.
        if (moved < 0 &&
            (errno == EXDEV || errno == ENOSYS || errno == EINVAL || errno == EOPNOTSUPP || errno == EPERM)) {
          in_kernel = false;
          buffer.resize(size_t{256} << 10);
          continue;
        }
      } else {
        moved = read(from, buffer.data(), buffer.size());
      }
      if (moved < 0 && errno == EINTR) continue;
      if (moved < 0) return ErrnoStatus(errno, absl::StrCat("copy ", path));
      if (moved == 0) return absl::OkStatus();
      if (!in_kernel) BASIN_RETURN_IF_ERROR(WriteAll(to, {buffer.data(), static_cast<size_t>(moved)}, path));
    }
  }

  bool may_clone_ = true;
};

}  // namespace

absl::Status MakeTaskTree(const std::string& from, const std::string& task_folder) {
  const UniqueFd source(open(from.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (source.get() < 0) return ErrnoStatus(errno, absl::StrCat("open snapshot ", from));
  BASIN_RETURN_IF_ERROR(MakeFolders(task_folder));
  const UniqueFd target(open(task_folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (target.get() < 0) return ErrnoStatus(errno, absl::StrCat("open folder ", task_folder));
  BASIN_ASSIGN_OR_RETURN(const std::vector<std::string> there, NamesIn(target.get(), task_folder));
  if (!there.empty()) {
    return absl::AlreadyExistsError(
        absl::StrCat(task_folder, " is not empty (", there[0], "); a task begins in a fresh tree"));
  }
  return Copier().CopyFolder(source.get(), target.get(), task_folder);
}

}  // namespace basin
