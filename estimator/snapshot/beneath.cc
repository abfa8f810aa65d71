#include "estimator/snapshot/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr uint64_t kResolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;

// What a peer sent may hold anything; a terminal that shows the message must not obey it.
std::string Shown(absl::string_view text) { return absl::Utf8SafeCHexEscape(text.substr(0, 256)); }

absl::Status Refused(absl::string_view path, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("path \"", Shown(path), "\": ", problem));
}

absl::Status OpenError(int error, const std::string& folder, absl::string_view path, absl::string_view what) {
  const std::string where = absl::StrCat(what, " ", folder, "/", Shown(path));
  switch (error) {
    case ELOOP:
    case EXDEV:
      return absl::FailedPreconditionError(
          absl::StrCat(where, ": a part of the path is a link; links are not followed here"));
    case ENOTDIR:
      return absl::FailedPreconditionError(absl::StrCat(where, ": a part of the path is a file, not a folder"));
    case ENOSYS:
      return absl::UnimplementedError(
          absl::StrCat(where,
                       ": this kernel has no openat2, which keeps foreign paths inside a folder; Linux 5.6 or later is "
                       "needed"));
    default:
      return ErrnoStatus(error, where);
  }
}

int OpenAt2(int folder, const std::string& path, int flags, int mode) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.mode = static_cast<uint64_t>(mode);
  how.resolve = kResolve;
  for (int attempt = 0;; ++attempt) {
    const long fd = syscall(SYS_openat2, folder, path.c_str(), &how, sizeof(how));
    // EAGAIN: something was renamed meanwhile, so that the kernel could not be sure.
    if (fd >= 0 || (errno != EINTR && (errno != EAGAIN || attempt >= 100))) return static_cast<int>(fd);
  }
}

absl::StatusOr<uint64_t> SizeOfFile(int fd, const std::string& shown) {
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", shown));
  if (!S_ISREG(info.st_mode)) return absl::FailedPreconditionError(absl::StrCat(shown, " is not a regular file"));
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace

absl::Status CheckPathBeneath(absl::string_view path, const BeneathLimits& limits) {
  if (path.empty()) return Refused(path, "it is empty");
  if (path.size() > limits.max_path_bytes) {
    return Refused(path, absl::StrCat(path.size(), " bytes; at most ", limits.max_path_bytes));
  }
  if (path.find('\0') != absl::string_view::npos) return Refused(path, "it holds a NUL byte");
  if (path[0] == '/') return Refused(path, "it is absolute; a path below the folder is expected");
  size_t parts = 0;
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty()) return Refused(path, "a part of it is empty");
    if (part == "." || part == "..") return Refused(path, absl::StrCat("\"", part, "\" is not allowed in it"));
    ++parts;
  }
  if (parts > limits.max_parts) return Refused(path, absl::StrCat(parts, " parts; at most ", limits.max_parts));
  return absl::OkStatus();
}

absl::Status CheckLinkTarget(absl::string_view path, absl::string_view target, const BeneathLimits& limits) {
  BASIN_RETURN_IF_ERROR(CheckPathBeneath(path, limits));
  const auto refused = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat("link \"", Shown(path), "\" -> \"", Shown(target), "\": ", problem));
  };
  if (target.empty()) return refused("the target is empty");
  if (target.size() > limits.max_path_bytes) return refused("the target is too long");
  if (target.find('\0') != absl::string_view::npos) return refused("the target holds a NUL byte");
  if (target[0] == '/') return refused("the target is absolute; a link must point inside its tree, by a relative path");
  size_t ups = 0;
  bool after_name = false;
  for (const absl::string_view part : absl::StrSplit(target, '/')) {
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      after_name = true;
    } else if (after_name) {
      return refused("\"..\" after a name; write the target without the detour");
    } else {
      ++ups;
    }
  }
  size_t folders = 0;
  for (const char c : path) folders += c == '/';
  if (ups > folders) return refused("the target lies outside of the tree");
  return absl::OkStatus();
}

FolderBeneath::FolderBeneath(std::string path, UniqueFd folder, const BeneathLimits& limits)
    : path_(std::move(path)), folder_(std::move(folder)), limits_(limits) {}

absl::StatusOr<FolderBeneath> FolderBeneath::Open(const std::string& path, const BeneathLimits& limits) {
  UniqueFd folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0) return ErrnoStatus(errno, absl::StrCat("open folder ", path));
  FolderBeneath beneath(path, std::move(folder), limits);
  // Said at once, and not by the first file of many.
  const UniqueFd probe(OpenAt2(beneath.fd(), ".", O_PATH | O_DIRECTORY, 0));
  if (probe.get() < 0) return OpenError(errno, path, ".", "open");
  return beneath;
}

absl::StatusOr<UniqueFd> FolderBeneath::OpenBeneath(absl::string_view path, int flags, int mode) const {
  UniqueFd fd(OpenAt2(folder_.get(), std::string(path), flags, mode));
  if (fd.get() < 0) return OpenError(errno, path_, path, (flags & O_CREAT) != 0 ? "create" : "open");
  return fd;
}

absl::Status FolderBeneath::CountEntry(absl::string_view path) {
  if (entries_ >= limits_.max_entries) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path_, "/", Shown(path), ": more than ", limits_.max_entries, " files, folders and links"));
  }
  ++entries_;
  return absl::OkStatus();
}

absl::Status FolderBeneath::CountGrowth(absl::string_view path, uint64_t size, uint64_t new_size) {
  if (new_size <= size) return absl::OkStatus();
  if (new_size > limits_.max_file_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path_, "/", Shown(path), ": more than ", limits_.max_file_bytes, " bytes in one file"));
  }
  const uint64_t growth = new_size - size;
  if (growth > limits_.max_total_bytes - bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path_, "/", Shown(path), ": more than ", limits_.max_total_bytes, " bytes in all files together"));
  }
  bytes_ += growth;
  return absl::OkStatus();
}

// The folder in which the last part of the path lies; `name` is that part.
absl::StatusOr<UniqueFd> FolderBeneath::OpenParent(absl::string_view path, bool make, std::string* name) {
  BASIN_RETURN_IF_ERROR(CheckPathBeneath(path, limits_));
  const size_t slash = path.rfind('/');
  *name = std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
  const std::string parent(slash == absl::string_view::npos ? "." : path.substr(0, slash));
  UniqueFd fd(OpenAt2(folder_.get(), parent, O_PATH | O_DIRECTORY, 0));
  if (fd.get() >= 0) return fd;
  if (errno != ENOENT || !make) return OpenError(errno, path_, path, "open");
  BASIN_RETURN_IF_ERROR(MakeFolder(parent));
  return OpenBeneath(parent, O_PATH | O_DIRECTORY, 0);
}

absl::Status FolderBeneath::MakeFolder(absl::string_view path) {
  BASIN_RETURN_IF_ERROR(CheckPathBeneath(path, limits_));
  UniqueFd parent(OpenAt2(folder_.get(), ".", O_PATH | O_DIRECTORY, 0));
  size_t begin = 0;
  while (begin < path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string so_far(path.substr(0, end)), name(path.substr(begin, end - begin));
    UniqueFd next(OpenAt2(folder_.get(), so_far, O_PATH | O_DIRECTORY, 0));
    if (next.get() < 0 && errno == ENOENT) {
      BASIN_RETURN_IF_ERROR(CountEntry(so_far));
      if (mkdirat(parent.get(), name.c_str(), 0755) != 0 && errno != EEXIST) {
        return OpenError(errno, path_, so_far, "make folder");
      }
      next = UniqueFd(OpenAt2(folder_.get(), so_far, O_PATH | O_DIRECTORY, 0));
    }
    if (next.get() < 0) return OpenError(errno, path_, so_far, "open folder");
    parent = std::move(next);
    begin = end + 1;
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> FolderBeneath::Create(absl::string_view path, bool executable) {
  std::string name;
  absl::StatusOr<UniqueFd> parent = OpenParent(path, true, &name);
  if (!parent.ok()) return parent.status();
  BASIN_RETURN_IF_ERROR(CountEntry(path));
  // Below an open folder, with one name: nothing to resolve.
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
  UniqueFd fd(OpenAt2(parent->get(), name, flags, executable ? 0755 : 0644));
  if (fd.get() < 0) return OpenError(errno, path_, path, "create");
  return fd;
}

absl::Status FolderBeneath::Append(const UniqueFd& file, absl::string_view path, absl::string_view bytes) {
  const std::string shown = absl::StrCat(path_, "/", Shown(path));
  BASIN_ASSIGN_OR_RETURN(const uint64_t size, SizeOfFile(file.get(), shown));
  BASIN_RETURN_IF_ERROR(CountGrowth(path, size, size + bytes.size()));
  return WriteAllAt(file.get(), bytes, size, shown);
}

absl::StatusOr<UniqueFd> FolderBeneath::OpenOrCreate(absl::string_view path) {
  BASIN_RETURN_IF_ERROR(CheckPathBeneath(path, limits_));
  // Without O_NONBLOCK, opening a pipe would wait for its reader.
  UniqueFd fd(OpenAt2(folder_.get(), std::string(path), O_WRONLY | O_NONBLOCK, 0));
  if (fd.get() >= 0) return fd;
  if (errno == ENOENT) return Create(path, false);
  return OpenError(errno, path_, path, "open");
}

absl::Status FolderBeneath::WriteAt(absl::string_view path, uint64_t offset, absl::string_view bytes) {
  if (offset > uint64_t{1} << 62) return Refused(path, absl::StrCat("offset ", offset, " is no place in a file"));
  absl::StatusOr<UniqueFd> file = OpenOrCreate(path);
  if (!file.ok()) return file.status();
  const std::string shown = absl::StrCat(path_, "/", Shown(path));
  BASIN_ASSIGN_OR_RETURN(const uint64_t size, SizeOfFile(file->get(), shown));
  if (offset > size) {
    return absl::OutOfRangeError(absl::StrCat(shown, ": bytes for offset ", offset, ", but the file has only ", size));
  }
  BASIN_RETURN_IF_ERROR(CountGrowth(path, size, offset + bytes.size()));
  return WriteAllAt(file->get(), bytes, offset, shown);
}

absl::Status FolderBeneath::Truncate(absl::string_view path, uint64_t bytes) {
  absl::StatusOr<UniqueFd> file = OpenOrCreate(path);
  if (!file.ok()) return file.status();
  const std::string shown = absl::StrCat(path_, "/", Shown(path));
  BASIN_ASSIGN_OR_RETURN(const uint64_t size, SizeOfFile(file->get(), shown));
  if (bytes > size) {
    return absl::OutOfRangeError(absl::StrCat(shown, ": cannot be cut to ", bytes, " bytes, it has only ", size));
  }
  if (ftruncate(file->get(), static_cast<off_t>(bytes)) != 0) return ErrnoStatus(errno, absl::StrCat("cut ", shown));
  return absl::OkStatus();
}

absl::Status FolderBeneath::SetExecutable(absl::string_view path, bool executable) {
  absl::StatusOr<UniqueFd> file = OpenToRead(path);
  if (!file.ok()) return file.status();
  struct stat info;
  if (fstat(file->get(), &info) != 0) return OpenError(errno, path_, path, "stat");
  // Whoever may read it may run it.
  const mode_t reads = info.st_mode & 0444;
  const mode_t mode = executable ? info.st_mode | reads >> 2 : info.st_mode & ~mode_t{0111};
  if (fchmod(file->get(), mode & 0777) != 0) return OpenError(errno, path_, path, "chmod");
  return absl::OkStatus();
}

absl::Status FolderBeneath::MakeLink(absl::string_view path, absl::string_view target) {
  BASIN_RETURN_IF_ERROR(CheckLinkTarget(path, target, limits_));
  std::string name;
  absl::StatusOr<UniqueFd> parent = OpenParent(path, true, &name);
  if (!parent.ok()) return parent.status();
  BASIN_RETURN_IF_ERROR(CountEntry(path));
  if (symlinkat(std::string(target).c_str(), parent->get(), name.c_str()) != 0) {
    return OpenError(errno, path_, path, "make link");
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> FolderBeneath::OpenToRead(absl::string_view path) const {
  BASIN_RETURN_IF_ERROR(CheckPathBeneath(path, limits_));
  absl::StatusOr<UniqueFd> file = OpenBeneath(path, O_RDONLY | O_NONBLOCK, 0);
  if (!file.ok()) return file;
  if (const auto size = SizeOfFile(file->get(), absl::StrCat(path_, "/", Shown(path))); !size.ok())
    return size.status();
  return file;
}

absl::StatusOr<BeneathFacts> FolderBeneath::Look(absl::string_view path) const {
  BASIN_RETURN_IF_ERROR(CheckPathBeneath(path, limits_));
  // O_NOFOLLOW with O_PATH opens a link itself, also where links are not to be resolved.
  const UniqueFd fd(OpenAt2(folder_.get(), std::string(path), O_PATH | O_NOFOLLOW, 0));
  struct stat info;
  if (fd.get() < 0 || fstat(fd.get(), &info) != 0) return OpenError(errno, path_, path, "look at");
  BeneathFacts facts;
  facts.kind = S_ISREG(info.st_mode)   ? BeneathFacts::Kind::kFile
               : S_ISDIR(info.st_mode) ? BeneathFacts::Kind::kFolder
               : S_ISLNK(info.st_mode) ? BeneathFacts::Kind::kLink
                                       : BeneathFacts::Kind::kOther;
  if (facts.kind == BeneathFacts::Kind::kFile) facts.bytes = static_cast<uint64_t>(info.st_size);
  return facts;
}

}  // namespace basin
