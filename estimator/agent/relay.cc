#include "estimator/agent/relay.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/agent/agent.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/inherited_settings.h"
#include "estimator/agent/node_folder.h"
#include "estimator/agent/splice.h"
#include "estimator/agent/steady_now.h"

namespace basin {
namespace {

constexpr char kSocketName[] = "agent.sock";
constexpr int kMostTries = 5;
// A driver that hangs may hold up a new agent for ten seconds.
constexpr absl::Duration kMostWaitForAgent = absl::Seconds(25);
constexpr size_t kShownLogBytes = size_t{8} << 10;

// The standard descriptors of a daemon: nothing to read, all it says goes to its log.
absl::Status RedirectToLog(const NodeFolder& folder) {
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd log(
      openat(folder.fd.get(), "agent.log", O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (null.get() < 0 || log.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", folder.AgentLog()));
  dup2(null.get(), 0);
  dup2(log.get(), 1);
  dup2(log.get(), 2);
  return absl::OkStatus();
}

// Every descriptor but the standard ones and these two.
void CloseInherited(int one, int other) {
  const int low = std::min(one, other);
  const int high = std::max(one, other);
  if (low > 3) close_range(3, static_cast<unsigned>(low) - 1, 0);
  if (high > low + 1) close_range(static_cast<unsigned>(low) + 1, static_cast<unsigned>(high) - 1, 0);
  close_range(static_cast<unsigned>(high) + 1, ~0U, 0);
}

// In the child of a child of the relay: leads no session, so it never gets a terminal.
[[noreturn]] void BecomeAgent(const RelayOptions& options, NodeFolder folder, UniqueFd listener) {
  if (absl::Status status = RedirectToLog(folder); !status.ok()) {
    Error(status.message());
    _exit(1);
  }
  CloseInherited(folder.fd.get(), listener.get());
  if (chdir("/") != 0) {
    Error(ErrnoStatus(errno, "enter /").message());
    _exit(1);
  }
  SetLogPrefix("");
  for (const int ignored : {SIGPIPE, SIGHUP, SIGINT}) signal(ignored, SIG_IGN);  // a guard undoes these for its task
  signal(SIGCHLD, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGTERM);
  sigaddset(&watched, SIGCHLD);
  sigprocmask(SIG_SETMASK, &watched, nullptr);
  AgentOptions agent{.folder = std::move(folder),
                     .listener = std::move(listener),
                     .signals = UniqueFd(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK)),
                     .version = options.version,
                     .programs = options.programs,
                     .inherited = options.inherited};
  _exit(RunAgent(std::move(agent)));
}

absl::StatusOr<NodeFolder> Reopened(const NodeFolder& folder) {
  return MakeNodeFolder(folder.base, folder.run_id, folder.node);
}

// REQUIRES: the folder's lock is held, and nobody answers on its socket. `listener` is open before the agent runs, so a
// connection made right now waits for it.
absl::Status StartAgent(const RelayOptions& options, const NodeFolder& folder) {
  for (const char* name : {"logs", "tasks", "metrics"}) BASIN_RETURN_IF_ERROR(MakeFolderIn(folder, name));
  BASIN_ASSIGN_OR_RETURN(UniqueFd listener, ListenIn(folder, kSocketName));
  BASIN_ASSIGN_OR_RETURN(NodeFolder own, Reopened(folder));
  const pid_t child = fork();
  if (child < 0) return ErrnoStatus(errno, "fork");
  if (child == 0) {
    setsid();
    const pid_t agent = fork();
    if (agent == 0) BecomeAgent(options, std::move(own), std::move(listener));
    _exit(agent < 0 ? 1 : 0);
  }
  int code = 0;
  while (waitpid(child, &code, 0) < 0 && errno == EINTR) {
  }
  return code == 0 ? absl::OkStatus() : absl::ResourceExhaustedError("the agent cannot be forked");
}

// Waits for the first bytes, which are the agent's magic line. Empty: it ended instead.
absl::StatusOr<std::string> FirstBytes(const NodeFolder& folder, int socket) {
  const absl::Time deadline = SteadyNow() + kMostWaitForAgent;
  while (SteadyNow() < deadline) {
    pollfd wait = {socket, POLLIN, 0};
    if (poll(&wait, 1, 1000) <= 0) continue;
    char bytes[4096];
    const ssize_t got = read(socket, bytes, sizeof bytes);
    if (got > 0) return std::string(bytes, static_cast<size_t>(got));
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) return "";
  }
  return absl::DeadlineExceededError(absl::StrCat("the agent in ", folder.path, " has not answered within ",
                                                  absl::FormatDuration(kMostWaitForAgent), "; see its agent.log"));
}

struct Reached {
  UniqueFd socket;
  std::string first;  // bytes of the agent
};

// One try under the lock. UNAVAILABLE: an agent that was just ending; try again.
absl::StatusOr<Reached> Reach(const RelayOptions& options) {
  BASIN_ASSIGN_OR_RETURN(const NodeFolder folder, MakeNodeFolder(options.base, options.run_id, options.node));
  const UniqueFd lock = LockFolder(folder, /*may_wait=*/true);
  if (lock.get() < 0) return absl::UnavailableError(absl::StrCat(folder.path, " cannot be locked"));
  absl::StatusOr<UniqueFd> socket = ConnectIn(folder, kSocketName);
  if (absl::IsNotFound(socket.status())) {
    BASIN_RETURN_IF_ERROR(StartAgent(options, folder));
    socket = ConnectIn(folder, kSocketName);
  }
  // Whatever else went wrong: an agent may live there, with tasks, and a second one would take its socket away.
  if (!socket.ok()) {
    return absl::Status(socket.status().code(),
                        absl::StrCat("the agent that is there cannot be reached: ", socket.status().message(), "; see ",
                                     folder.AgentLog(), " for its pid and what it does, and end it if it hangs"));
  }
  Reached reached{*std::move(socket), ""};
  BASIN_ASSIGN_OR_RETURN(reached.first, FirstBytes(folder, reached.socket.get()));
  if (!reached.first.empty()) return reached;
  const absl::StatusOr<std::string> log = ReadTail(folder.AgentLog(), kShownLogBytes);
  return absl::UnavailableError(absl::StrCat("the agent in ", folder.path, " has ended",
                                             log.ok() ? absl::StrCat("; its log:\n", LastLines(*log)) : ""));
}

}  // namespace

absl::Status RunRelay(const RelayOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, SIG_IGN);  // Ctrl-C is the supervisor's; this process ends with its input
  TightenSettings();
  absl::StatusOr<Reached> reached = absl::UnavailableError("");
  for (int tries = 0; tries < kMostTries && absl::IsUnavailable(reached.status()); ++tries) {
    if (tries > 0) poll(nullptr, 0, 100 * tries);
    reached = Reach(options);
  }
  BASIN_RETURN_IF_ERROR(reached.status());
  BASIN_RETURN_IF_ERROR(WriteAll(STDOUT_FILENO, reached->first, "to the supervisor"));
  SpliceUntilEnd(STDIN_FILENO, STDOUT_FILENO, reached->socket.get());
  return absl::OkStatus();
}

}  // namespace basin
