#include "bench/harness/namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bench/harness/process.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

// A process that made a namespace and holds it while others are put into order with its pid.
struct Holder {
  pid_t pid = -1;
  int network = -1;
  ~Holder() {
    if (pid < 0) return;
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
};

absl::Status Unshare(Holder& holder) {
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  absl::Cleanup close_read = [&] { close(ready[0]); };
  holder.pid = fork();
  if (holder.pid == 0) {
    const int error = unshare(CLONE_NEWNET) == 0 ? 0 : errno;
    (void)!write(ready[1], &error, sizeof(error));
    while (true) pause();
  }
  close(ready[1]);
  if (holder.pid < 0) return ErrnoStatus(errno, "fork");
  int error = 0;
  if (read(ready[0], &error, sizeof(error)) != sizeof(error)) error = EIO;
  if (error != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make a network namespace: ", ErrnoStatus(error, "unshare").message(),
                     "; run it as root, or without --netns"));
  }
  const std::string path = absl::StrCat("/proc/", holder.pid, "/ns/net");
  holder.network = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  return holder.network >= 0 ? absl::OkStatus() : ErrnoStatus(errno, absl::StrCat("open ", path));
}

// Runs `ip <words>` in the namespace.
absl::Status Ip(const std::string& program, int network, absl::string_view words) {
  ProcessOptions options;
  options.argv = {program};
  for (const absl::string_view word : absl::StrSplit(words, ' ')) options.argv.emplace_back(word);
  options.network = network;
  BASIN_ASSIGN_OR_RETURN(Process ip, Process::Start(options));
  if (!ip.WaitEnd(absl::Seconds(20)) || ip.Ending() != "exit code 0")
    return absl::InternalError(absl::StrCat("ip ", words, ": ", ip.Running() ? "does not end" : ip.Ending()));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TwoHosts> TwoHosts::Make() {
  std::string program;
  for (const char* path : {"/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"}) {
    if (program.empty() && access(path, X_OK) == 0) program = path;
  }
  if (program.empty()) {
    return absl::NotFoundError(
        "--netns needs the program ip, which is in none of /usr/sbin, /sbin, /usr/bin, /bin; install iproute2");
  }
  Holder first, second;
  TwoHosts hosts;
  const absl::Status made_first = Unshare(first);
  hosts.first_ = first.network;
  BASIN_RETURN_IF_ERROR(made_first);
  const absl::Status made_second = Unshare(second);
  hosts.second_ = second.network;
  BASIN_RETURN_IF_ERROR(made_second);
  const auto set = [&](int network, absl::string_view address) -> absl::Status {
    BASIN_RETURN_IF_ERROR(Ip(program, network, absl::StrCat("address add ", address, "/24 dev basin0")));
    BASIN_RETURN_IF_ERROR(Ip(program, network, "link set basin0 up"));
    return Ip(program, network, "link set lo up");
  };
  BASIN_RETURN_IF_ERROR(
      Ip(program, first.network, absl::StrCat("link add basin0 type veth peer name basin0 netns ", second.pid)));
  BASIN_RETURN_IF_ERROR(set(first.network, kFirstAddress));
  BASIN_RETURN_IF_ERROR(set(second.network, kSecondAddress));
  return hosts;
}

TwoHosts::~TwoHosts() {
  if (first_ >= 0) close(first_);
  if (second_ >= 0) close(second_);
}

}  // namespace basin::bench
