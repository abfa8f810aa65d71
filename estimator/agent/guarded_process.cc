#include "estimator/agent/guarded_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/agent/guard.h"
#include "estimator/agent/inherited_settings.h"
#include "estimator/agent/raised_fd.h"
#include "estimator/container/input_file.h"

namespace basin {
namespace {

absl::StatusOr<UniqueFd> OpenFile(const std::string& path, int flags) {
  UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  return Raised(fd.get(), "open a descriptor");
}

std::vector<char*> Pointers(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<GuardedProcess> GuardedProcess::Start(const GuardedCommand& command) {
  BASIN_ASSIGN_OR_RETURN(Pipe lifeline, MakeRaisedPipe());
  BASIN_ASSIGN_OR_RETURN(Pipe status, MakeRaisedPipe());
  UniqueFd log;
  if (!command.log_path.empty()) {
    BASIN_ASSIGN_OR_RETURN(log, OpenFile(command.log_path, O_WRONLY | O_CREAT | O_APPEND));
  }
  BASIN_ASSIGN_OR_RETURN(UniqueFd input,
                         command.input.empty() ? OpenFile("/dev/null", O_RDONLY) : InputFile(command.input));
  BASIN_ASSIGN_OR_RETURN(input, Raised(input.get(), "open a descriptor"));

  std::vector<std::string> argv = {"basin", "guard", "--grace-ms",
                                   absl::StrCat(absl::ToInt64Milliseconds(command.grace))};
  if (command.listener >= 0) argv.push_back("--passes-listener");
  if (!command.containers.empty()) {
    argv.push_back("--containers");
    argv.push_back(command.containers);
  }
  argv.push_back("--");
  argv.insert(argv.end(), command.argv.begin(), command.argv.end());
  const std::vector<char*> argv_pointers = Pointers(argv);
  const std::vector<char*> environment_pointers = Pointers(command.environment);
  const char* const folder = command.folder.c_str();
  const rlimit open_files = InheritedOpenFilesLimit();
  const mode_t mask = InheritedUmask();

  // It may lie anywhere, also where the child's dup2 puts something else; and a dup2 onto itself would leave it
  // close-on-exec.
  UniqueFd listener;
  if (command.listener >= 0) {
    BASIN_ASSIGN_OR_RETURN(listener, Raised(command.listener, "hand over a listener"));
  }

  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "fork");
  if (pid == 0) {
    // System calls alone from here to execve.
    static constexpr char kNoFolder[] = "basin: cannot enter the task's folder\n";
    static constexpr char kNoGuard[] = "basin: cannot start the guard from /proc/self/exe\n";
    [[maybe_unused]] ssize_t ignored;
    setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    setrlimit(RLIMIT_NOFILE, &open_files);
    umask(mask);
    dup2(input.get(), 0);
    if (log.get() >= 0) {
      dup2(log.get(), 1);
      dup2(log.get(), 2);
    }
    dup2(lifeline.read_end.get(), kGuardLifelineFd);
    dup2(status.write_end.get(), kGuardStatusFd);
    if (listener.get() >= 0) dup2(listener.get(), kPassedListenerFd);
    if (chdir(folder) != 0) {
      ignored = write(2, kNoFolder, sizeof kNoFolder - 1);
      _exit(127);
    }
    execve("/proc/self/exe", argv_pointers.data(), environment_pointers.data());
    ignored = write(2, kNoGuard, sizeof kNoGuard - 1);
    _exit(127);
  }
  GuardedProcess process;
  process.guard_ = pid;
  process.lifeline_ = std::move(lifeline.write_end);
  process.status_ = std::move(status.read_end);
  fcntl(process.status_.get(), F_SETFL, O_NONBLOCK);
  fcntl(process.lifeline_.get(), F_SETFL, O_NONBLOCK);
  return process;
}

void GuardedProcess::Order(char order) {
  // A guard that has just ended gives EPIPE; its kGone is on the way.
  if (lifeline_.get() < 0) return;
  [[maybe_unused]] const ssize_t ignored = write(lifeline_.get(), &order, 1);
}

std::vector<GuardedEvent> GuardedProcess::Read() {
  std::vector<GuardedEvent> events;
  while (status_.get() >= 0) {
    char text[256];
    const ssize_t got = read(status_.get(), text, sizeof text);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return events;
    if (got <= 0) {
      status_.Close();
      lifeline_.Close();
      events.push_back({.kind = GuardedEvent::kGone});
      return events;
    }
    partial_line_.append(text, static_cast<size_t>(got));
    for (size_t end; (end = partial_line_.find('\n')) != std::string::npos;) {
      const std::pair<std::string, std::string> words =
          absl::StrSplit(partial_line_.substr(0, end), absl::MaxSplits(' ', 1));
      partial_line_.erase(0, end + 1);
      int number = 0;
      if (!absl::SimpleAtoi(words.second, &number)) continue;
      if (words.first == "started") events.push_back({.kind = GuardedEvent::kStarted, .pid = number});
      if (words.first == "exited") events.push_back({.kind = GuardedEvent::kExited, .code = number});
      if (words.first == "signaled") events.push_back({.kind = GuardedEvent::kExited, .signal = number});
    }
  }
  return events;
}

}  // namespace basin
