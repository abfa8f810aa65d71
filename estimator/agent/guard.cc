#include "estimator/agent/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "estimator/agent/process_tree.h"
#include "estimator/agent/steady_now.h"
#include "estimator/container/removal.h"

namespace basin {
namespace {

// Only what fits a guard: 127 as shells say it for a command that cannot be started.
constexpr int kCannotStart = 127;
// From here on it may be a container's engine that has failed, not what it ran.
constexpr int kEngineFailed = 125;
constexpr absl::Duration kMostRemoval = absl::Seconds(30);

void Report(const char* word, int number) {
  char line[64];
  const int size = std::snprintf(line, sizeof(line), "%s %d\n", word, number);
  // A supervisor that is gone reads nothing; its end shows on the lifeline.
  [[maybe_unused]] const ssize_t ignored = write(kGuardStatusFd, line, size);
}

[[noreturn]] void BecomeTask(const std::vector<std::string>& argv, const sigset_t& task_mask) {
  // Should the guard itself be killed, the task at least goes with it.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setpgid(0, 0);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGHUP, SIG_DFL);
  sigprocmask(SIG_SETMASK, &task_mask, nullptr);
  std::vector<char*> pointers;
  for (const std::string& word : argv) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  execvp(pointers[0], pointers.data());
  std::fprintf(stderr, "basin: cannot start %s: %s\n", pointers[0], std::strerror(errno));
  std::fflush(stderr);
  _exit(kCannotStart);
}

class Guard {
 public:
  Guard(const GuardOptions& options, pid_t task) : options_(options), task_(task) {}

  // Reaps whatever has ended. Returns false when nothing is left below.
  bool Reap() {
    while (true) {
      int status = 0;
      const pid_t pid = waitpid(-1, &status, WNOHANG);
      if (pid == 0) return true;
      if (pid < 0 && errno == EINTR) continue;
      if (pid < 0) return false;  // ECHILD: no child, and so (a subreaper adopts every orphan) no descendant
      if (pid != task_) continue;
      if (WIFSIGNALED(status)) {
        code_ = 128 + WTERMSIG(status);
        Report("signaled", WTERMSIG(status));
      } else {
        code_ = WEXITSTATUS(status);
        has_exited_ = true;
        Report("exited", code_);
      }
      // What a task leaves behind ends with it.
      Stop(options_.grace);
    }
  }

  // Nothing had to be killed, and the engine of a container did not fail.
  bool ended_well() const { return has_exited_ && !killing_ && code_ < kEngineFailed; }

  // SIGTERM now, SIGKILL after `grace` at the latest. A second call can only bring the end forward.
  void Stop(absl::Duration grace) {
    if (killing_) return;
    Terminate();
    kill_at_ = std::min(kill_at_, SteadyNow() + grace);
  }

  void Terminate() {
    if (options_.containers.empty()) return SignalDescendants(getpid(), SIGTERM);
    // The engine's processes are this one's children, what they run in containers is below them.
    bool any = false;
    const std::vector<ProcessRef> children = Children(getpid());
    for (const ProcessRef& child : children) {
      for (const ProcessRef& process : Descendants(child.pid)) {
        SignalProcess(process, SIGTERM);
        any = true;
      }
    }
    if (any) return;
    for (const ProcessRef& child : children) SignalProcess(child, SIGTERM);
  }
  void KillNow() { killing_ = true; }

  // Milliseconds for poll.
  int WaitLimit() {
    if (!killing_ && SteadyNow() >= kill_at_) killing_ = true;
    if (killing_) {
      // Processes that fork while they are being killed are met by the next round.
      SignalDescendants(getpid(), SIGKILL);
      return 20;
    }
    if (kill_at_ == absl::InfiniteFuture()) return -1;
    return static_cast<int>(absl::ToInt64Milliseconds(kill_at_ - SteadyNow())) + 1;
  }

  int code() const { return code_; }

 private:
  const GuardOptions options_;
  const pid_t task_;
  int code_ = kCannotStart;  // of the task, once it has ended
  bool has_exited_ = false;
  bool killing_ = false;
  absl::Time kill_at_ = absl::InfiniteFuture();
};

}  // namespace

int RunGuard(const GuardOptions& options, const std::vector<std::string>& argv) {
  fcntl(kGuardLifelineFd, F_SETFD, FD_CLOEXEC);
  fcntl(kGuardStatusFd, F_SETFD, FD_CLOEXEC);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  signal(SIGCHLD, SIG_DFL);  // where it was ignored, the kernel would keep the task's exit code to itself
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t task_mask, watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGCHLD);
  sigaddset(&watched, SIGTERM);
  sigprocmask(SIG_BLOCK, &watched, &task_mask);
  const int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);

  const pid_t task = signals < 0 || argv.empty() ? -1 : fork();
  if (task == 0) BecomeTask(argv, task_mask);
  if (task < 0) {
    std::fprintf(stderr, "basin guard: cannot start the task: %s\n", std::strerror(errno));
    Report("exited", kCannotStart);
    return kCannotStart;
  }
  if (options.passes_listener) close(kPassedListenerFd);
  Report("started", task);

  Guard guard(options, task);
  pollfd waits[2] = {{kGuardLifelineFd, POLLIN, 0}, {signals, POLLIN, 0}};
  while (guard.Reap()) {
    poll(waits, 2, guard.WaitLimit());
    signalfd_siginfo info;
    while (read(signals, &info, sizeof(info)) == sizeof(info)) {
      if (info.ssi_signo == SIGTERM) guard.Stop(options.grace);
    }
    if (waits[0].fd < 0 || (waits[0].revents & (POLLIN | POLLHUP | POLLERR)) == 0) continue;
    char order = 0;
    const ssize_t got = read(kGuardLifelineFd, &order, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      waits[0].fd = -1;
      guard.Stop(std::min(options.grace, options.abandoned_grace));
    } else if (order == 'T') {
      guard.Terminate();
    } else if (order == 'K') {
      guard.KillNow();
    }
  }
  if (!options.containers.empty()) {
    if (guard.ended_well()) {
      ForgetRemovals(options.containers);
    } else {
      RemoveNoted(options.containers, kMostRemoval);
    }
  }
  return guard.code();
}

}  // namespace basin
