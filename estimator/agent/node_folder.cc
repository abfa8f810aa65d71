#include "estimator/agent/node_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/snapshot/beneath.h"

namespace basin {
namespace {

constexpr size_t kMostRunIdBytes = 128;
constexpr int kBacklog = 16;

absl::Status CheckBase(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, absl::StrCat("look at ", path));
  if (info.st_uid != geteuid() && info.st_uid != 0) {
    return absl::PermissionDeniedError(absl::StrCat(path, " belongs to user ", info.st_uid, ", not to this one (",
                                                    geteuid(),
                                                    "); name a folder of your own in the target's `folder`"));
  }
  if ((info.st_mode & 0022) != 0 && (info.st_mode & S_ISVTX) == 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, " may be written by others; chmod go-w it, or name another in the target's `folder`"));
  }
  return absl::OkStatus();
}

// Makes, where it is missing, and opens `name` below `parent`: a folder of this user that others may not enter.
absl::StatusOr<UniqueFd> EnterOwn(int parent, const std::string& name, const std::string& shown) {
  if (mkdirat(parent, name.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, absl::StrCat("create ", shown));
  }
  UniqueFd fd(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() < 0) {
    if (errno == ELOOP || errno == ENOTDIR) {
      return absl::PermissionDeniedError(
          absl::StrCat(shown, " is a link or a file, where a folder of Basin's must be; remove it"));
    }
    return ErrnoStatus(errno, absl::StrCat("open ", shown));
  }
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("look at ", shown));
  if (info.st_uid != geteuid()) {
    return absl::PermissionDeniedError(absl::StrCat(shown, " belongs to user ", info.st_uid, ", not to this one (",
                                                    geteuid(),
                                                    "); name a folder of your own in the target's `folder`"));
  }
  if ((info.st_mode & 0077) != 0 && fchmod(fd.get(), 0700) != 0) {
    return ErrnoStatus(errno, absl::StrCat("chmod 700 ", shown));
  }
  return fd;
}

sockaddr_un AddressIn(const NodeFolder& folder, const char* name) {
  // A socket's path has room for 108 bytes; this one leads through the open folder.
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", folder.fd.get(), name);
  return address;
}

absl::StatusOr<UniqueFd> OpenSocket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return ErrnoStatus(errno, "open a Unix socket");
  return fd;
}

}  // namespace

absl::Status CheckRunId(absl::string_view run_id) {
  bool fine = !run_id.empty() && run_id.size() <= kMostRunIdBytes && run_id[0] != '.' && run_id[0] != '-';
  for (const char c : run_id) fine = fine && (absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.');
  if (fine) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("run id \"", run_id.substr(0, kMostRunIdBytes),
                                                 "\" is none: letters, digits, '-', '_' and '.' are allowed, at most ",
                                                 kMostRunIdBytes, ", not beginning with '.' or '-'"));
}

absl::StatusOr<NodeFolder> MakeNodeFolder(const std::string& base, const std::string& run_id, uint32_t node) {
  BASIN_RETURN_IF_ERROR(CheckRunId(run_id));
  if (node >= kMostNodes) {
    return absl::InvalidArgumentError(absl::StrCat("node ", node, ": the number is below ", kMostNodes));
  }
  NodeFolder folder;
  std::error_code error;
  folder.base = std::filesystem::absolute(base, error).lexically_normal().string();
  if (error) return absl::InvalidArgumentError(absl::StrCat("base folder ", base, ": ", error.message()));
  while (folder.base.size() > 1 && folder.base.back() == '/') folder.base.pop_back();
  folder.run_id = run_id;
  folder.node = node;
  BASIN_RETURN_IF_ERROR(MakeFolders(folder.base, 0700));
  UniqueFd at(open(folder.base.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (at.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", folder.base));
  BASIN_RETURN_IF_ERROR(CheckBase(at.get(), folder.base));
  folder.path = folder.base;
  for (const std::string& name : {std::string("runs"), run_id, absl::StrCat("node-", node)}) {
    folder.path += "/" + name;
    BASIN_ASSIGN_OR_RETURN(at, EnterOwn(at.get(), name, folder.path));
  }
  folder.fd = std::move(at);
  return folder;
}

absl::Status MakeFolderIn(const NodeFolder& folder, const char* name) {
  return EnterOwn(folder.fd.get(), name, absl::StrCat(folder.path, "/", name)).status();
}

absl::StatusOr<std::string> ChooseBase(const std::string& named, const std::string& cache, const std::string& xdg_cache,
                                       const std::string& home) {
  if (named == "~" || absl::StartsWith(named, "~/")) {
    if (home.empty()) return absl::InvalidArgumentError(absl::StrCat(named, ": HOME is not set on this node"));
    return home + named.substr(1);
  }
  if (!named.empty()) return named;
  if (!cache.empty()) return cache;
  if (!xdg_cache.empty()) return xdg_cache + "/basin";
  if (!home.empty()) return home + "/.cache/basin";
  return absl::InvalidArgumentError(
      "no folder for Basin is known on this node: set HOME or BASIN_CACHE there, or the target's `folder`");
}

UniqueFd LockFolder(const NodeFolder& folder, bool may_wait) {
  UniqueFd fd(openat(folder.fd.get(), "agent.lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  int locked = -1;
  while (fd.get() >= 0 && (locked = flock(fd.get(), LOCK_EX | (may_wait ? 0 : LOCK_NB))) != 0 && errno == EINTR) {
  }
  if (locked != 0) fd.Close();
  return fd;
}

absl::Status RemoveNodeFolder(const NodeFolder& folder) {
  const std::string run = folder.base + "/runs/" + folder.run_id;
  UniqueFd parent(open(run.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (parent.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", run));
  BASIN_RETURN_IF_ERROR(RemoveTreeAt(parent.get(), absl::StrCat("node-", folder.node), folder.path));
  rmdir(run.c_str());  // not empty where another node of the run shares this base
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> ListenIn(const NodeFolder& folder, const char* name) {
  BASIN_ASSIGN_OR_RETURN(UniqueFd fd, OpenSocket());
  if (unlinkat(folder.fd.get(), name, 0) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, absl::StrCat("remove ", folder.path, "/", name));
  }
  const sockaddr_un address = AddressIn(folder, name);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return ErrnoStatus(errno, absl::StrCat("listen on ", folder.path, "/", name));
  }
  return fd;
}

absl::StatusOr<UniqueFd> ConnectIn(const NodeFolder& folder, const char* name) {
  BASIN_ASSIGN_OR_RETURN(UniqueFd fd, OpenSocket());
  const sockaddr_un address = AddressIn(folder, name);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const std::string what = absl::StrCat("connect to ", folder.path, "/", name);
  switch (errno) {
    case ENOENT:
    case ECONNREFUSED:
      return absl::NotFoundError(ErrnoStatus(errno, what).message());
    case EAGAIN:  // its backlog is full; a Unix socket never answers "in progress"
      return absl::UnavailableError(ErrnoStatus(errno, what).message());
    default:
      return ErrnoStatus(errno, what);
  }
}

}  // namespace basin
