#include "estimator/container/container_user.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "common/base/files.h"

namespace basin {

ContainerUser ThisUser(mode_t umask, const rlimit& open_files) {
  ContainerUser user;
  user.uid = geteuid();
  user.gid = getegid();
  user.umask = umask;
  user.open_files = open_files;
  getrlimit(RLIMIT_NPROC, &user.processes);
  // More than that there cannot be, and podman lowers its own limit to it, above which a container's cannot be set.
  rlim_t most = 0;
  const absl::StatusOr<std::string> text = ReadFile("/proc/sys/kernel/pid_max");
  if (text.ok() && absl::SimpleAtoi(*text, &most) && most > 0) {
    user.processes.rlim_cur = std::min(user.processes.rlim_cur, most);
    user.processes.rlim_max = std::min(user.processes.rlim_max, most);
  }
  const int count = getgroups(0, nullptr);
  if (count > 0) {
    user.groups.resize(static_cast<size_t>(count));
    user.groups.resize(static_cast<size_t>(std::max(0, getgroups(count, user.groups.data()))));
  }
  return user;
}

}  // namespace basin
