#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/guard.h"
#include "estimator/launcher.h"
#include "estimator/process_tree.h"

namespace basin {
namespace {

// A descriptor that the child's dup2 to 0..4 cannot overwrite.
int MovedUp(int fd) {
  const int moved = fcntl(fd, F_DUPFD_CLOEXEC, 16);
  const int error = errno;
  close(fd);
  errno = error;
  return moved;
}

struct Pipe {
  int read_end = -1;
  int write_end = -1;
};

absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  return Pipe{MovedUp(ends[0]), MovedUp(ends[1])};
}

std::vector<std::string> MergedEnvironment(const std::vector<std::pair<std::string, std::string>>& added) {
  std::map<std::string, std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(*entry, absl::MaxSplits('=', 1));
    merged[parts.first] = parts.second;
  }
  for (const auto& [name, value] : added) merged[name] = value;
  std::vector<std::string> lines;
  for (const auto& [name, value] : merged) lines.push_back(absl::StrCat(name, "=", value));
  return lines;
}

std::vector<char*> Pointers(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

class LocalLauncher final : public Launcher {
 public:
  explicit LocalLauncher(absl::Duration grace) : grace_(grace) {
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
  }

  ~LocalLauncher() override {
    for (auto& [index, task] : tasks_) {
      CloseLifeline(&task);
      if (task.status >= 0) close(task.status);
    }
  }

  absl::Status Start(size_t index, const PlannedTask& planned, const std::string& log_path) override {
    BASIN_ASSIGN_OR_RETURN(const Pipe lifeline, MakePipe());
    absl::Cleanup close_lifeline = [&] { close(lifeline.read_end), close(lifeline.write_end); };
    BASIN_ASSIGN_OR_RETURN(const Pipe status, MakePipe());
    absl::Cleanup close_status = [&] { close(status.read_end), close(status.write_end); };
    const int log_fd = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) return ErrnoStatus(errno, absl::StrCat("create ", log_path));
    const int log = MovedUp(log_fd);
    absl::Cleanup close_log = [log] { close(log); };
    const int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0) return ErrnoStatus(errno, "open /dev/null");
    const int null = MovedUp(null_fd);
    absl::Cleanup close_null = [null] { close(null); };

    std::vector<std::string> argv = {"basin", "guard", "--grace-ms", absl::StrCat(absl::ToInt64Milliseconds(grace_)),
                                     "--"};
    argv.insert(argv.end(), planned.argv.begin(), planned.argv.end());
    const std::vector<std::string> environment = MergedEnvironment(planned.environment);
    const std::vector<char*> argv_pointers = Pointers(argv);
    const std::vector<char*> environment_pointers = Pointers(environment);

    const pid_t pid = fork();
    if (pid < 0) return ErrnoStatus(errno, absl::StrCat("start ", planned.place.name.Sentence()));
    if (pid == 0) {
      // Other threads may have held locks at the fork: system calls alone from here to execve.
      setsid();
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      dup2(null, 0);
      dup2(log, 1);
      dup2(log, 2);
      dup2(lifeline.read_end, kGuardLifelineFd);
      dup2(status.write_end, kGuardStatusFd);
      execve("/proc/self/exe", argv_pointers.data(), environment_pointers.data());
      static constexpr char kMessage[] = "basin: cannot start the guard from /proc/self/exe\n";
      [[maybe_unused]] const ssize_t ignored = write(2, kMessage, sizeof(kMessage) - 1);
      _exit(127);
    }
    tasks_[index] = {pid, fcntl(lifeline.write_end, F_DUPFD_CLOEXEC, 16), fcntl(status.read_end, F_DUPFD_CLOEXEC, 16),
                     ""};
    return absl::OkStatus();
  }

  void Terminate(size_t task) override { Order(task, 'T'); }
  void Kill(size_t task) override { Order(task, 'K'); }

  std::vector<LauncherEvent> Wait(absl::Time deadline, int wake_fd) override {
    std::vector<pollfd> waits = {{wake_fd, POLLIN, 0}};
    std::vector<size_t> indices = {0};
    for (const auto& [index, task] : tasks_) {
      if (task.status < 0) continue;
      waits.push_back({task.status, POLLIN, 0});
      indices.push_back(index);
    }
    int limit = -1;
    if (deadline != absl::InfiniteFuture()) {
      const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
      limit = left < 0 ? 0 : left > 60'000 ? 60'000 : static_cast<int>(left) + 1;
    }
    std::vector<LauncherEvent> events;
    if (poll(waits.data(), waits.size(), limit) <= 0) return events;
    for (size_t i = 1; i < waits.size(); ++i) {
      if (waits[i].revents != 0) ReadStatus(indices[i], &events);
    }
    return events;
  }

  void SweepUp() override {
    while (true) {
      const pid_t pid = waitpid(-1, nullptr, WNOHANG);
      if (pid > 0 || (pid < 0 && errno == EINTR)) continue;
      if (pid < 0) return;  // ECHILD: nothing is left
      SignalDescendants(getpid(), SIGKILL);
      poll(nullptr, 0, 20);  // SIGKILL takes effect by itself; the next round looks again
    }
  }

 private:
  struct Task {
    pid_t guard = 0;
    int lifeline = -1;
    int status = -1;
    std::string partial_line;
  };

  static void CloseLifeline(Task* task) {
    if (task->lifeline >= 0) close(task->lifeline);
    task->lifeline = -1;
  }

  void Order(size_t index, char order) {
    const auto found = tasks_.find(index);
    if (found == tasks_.end() || found->second.lifeline < 0) return;
    // A guard that has just ended gives EPIPE (SIGPIPE is ignored by `basin`); its kGone is on the way.
    [[maybe_unused]] const ssize_t ignored = write(found->second.lifeline, &order, 1);
  }

  void ReadStatus(size_t index, std::vector<LauncherEvent>* events) {
    Task& task = tasks_[index];
    char text[256];
    const ssize_t got = read(task.status, text, sizeof(text));
    if (got < 0 && errno == EINTR) return;
    if (got <= 0) {
      close(task.status);
      task.status = -1;
      CloseLifeline(&task);
      waitpid(task.guard, nullptr, 0);
      events->push_back({LauncherEvent::kGone, index, 0, {}});
      return;
    }
    task.partial_line.append(text, got);
    while (true) {
      const size_t end = task.partial_line.find('\n');
      if (end == std::string::npos) return;
      const std::pair<std::string, std::string> words =
          absl::StrSplit(task.partial_line.substr(0, end), absl::MaxSplits(' ', 1));
      task.partial_line.erase(0, end + 1);
      int number = 0;
      if (!absl::SimpleAtoi(words.second, &number)) continue;
      if (words.first == "started") {
        events->push_back({LauncherEvent::kStarted, index, number, {}});
      } else if (words.first == "exited") {
        events->push_back({LauncherEvent::kExited, index, 0, {number, 0}});
      } else if (words.first == "signaled") {
        events->push_back({LauncherEvent::kExited, index, 0, {0, number}});
      }
    }
  }

  const absl::Duration grace_;
  std::map<size_t, Task> tasks_;
};

}  // namespace

std::unique_ptr<Launcher> MakeLocalLauncher(absl::Duration grace) { return std::make_unique<LocalLauncher>(grace); }

}  // namespace basin
