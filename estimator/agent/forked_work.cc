#include "estimator/agent/forked_work.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "estimator/agent/steady_now.h"

namespace basin {
namespace {

constexpr size_t kMostResultBytes = size_t{1} << 20;
constexpr int kResultFd = 3;
constexpr int kFirstMovedFd = 16;
constexpr absl::Duration kMostDying = absl::Seconds(2);
constexpr char kWhole = '.';  // after the result, so that a cut one is not taken for it

struct KilledHelper {
  ProcessRef process;
  absl::Time killed;
};

// Of this process: whatever a work leaves behind, it is this process's child in the end.
std::vector<KilledHelper>& KilledHelpers() {
  static auto* const helpers = new std::vector<KilledHelper>;
  return *helpers;
}

[[noreturn]] void Work(const std::function<std::string()>& work, int pipe, int given, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  // Either may lie where the other goes.
  const int moved = given < 0 ? -1 : fcntl(given, F_DUPFD, kFirstMovedFd);
  dup2(pipe, kResultFd);
  if (moved >= 0) dup2(moved, kForkedWorkFd);
  close_range(moved >= 0 ? kForkedWorkFd + 1 : kResultFd + 1, ~0U, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGTERM, SIG_DFL);
  std::string result = work();
  result.resize(std::min(result.size(), kMostResultBytes));
  result.push_back(kWhole);
  for (size_t at = 0; at < result.size();) {
    const ssize_t wrote = write(kResultFd, result.data() + at, result.size() - at);
    if (wrote < 0 && errno != EINTR) _exit(1);
    if (wrote > 0) at += static_cast<size_t>(wrote);
  }
  _exit(0);
}

}  // namespace

absl::StatusOr<ForkedWork> ForkedWork::Start(const std::function<std::string()>& work, int given) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "make a pipe");
  ForkedWork forked;
  forked.pipe_ = UniqueFd(ends[0]);
  const UniqueFd write_end(ends[1]);
  const pid_t parent = getpid();
  forked.pid_ = fork();
  if (forked.pid_ < 0) {
    forked.pid_ = 0;
    return ErrnoStatus(errno, "fork");
  }
  if (forked.pid_ == 0) Work(work, write_end.get(), given, parent);
  forked.handle_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, forked.pid_, 0)));
  fcntl(forked.pipe_.get(), F_SETFL, O_NONBLOCK);
  return forked;
}

ForkedWork::ForkedWork(ForkedWork&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      handle_(std::move(other.handle_)),
      pipe_(std::move(other.pipe_)),
      text_(std::move(other.text_)) {}

ForkedWork& ForkedWork::operator=(ForkedWork&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(handle_, other.handle_);
  std::swap(pipe_, other.pipe_);
  std::swap(text_, other.text_);
  return *this;
}

ForkedWork::~ForkedWork() {
  // One that has closed its pipe ends by itself. While signal 0 can be sent to it its number is nobody else's.
  if (pipe_.get() < 0 || handle_.get() < 0) return;
  if (syscall(SYS_pidfd_send_signal, handle_.get(), 0, nullptr, 0) != 0) return;
  std::vector<ProcessRef> all = Descendants(pid_);
  if (const std::optional<ProcessRef> own = FindProcess(pid_)) all.push_back(*own);
  syscall(SYS_pidfd_send_signal, handle_.get(), SIGKILL, nullptr, 0);
  const absl::Time now = SteadyNow();
  for (const ProcessRef& process : all) {
    SignalProcess(process, SIGKILL);
    KilledHelpers().push_back({process, now});
  }
}

bool IsGivenUp(const ProcessRef& process, absl::Time now) {
  for (const KilledHelper& helper : KilledHelpers()) {
    if (helper.process == process) return now >= helper.killed + kMostDying;
  }
  return false;
}

std::optional<absl::StatusOr<std::string>> ForkedWork::Poll() {
  char bytes[16 << 10];
  while (pipe_.get() >= 0) {
    const ssize_t got = read(pipe_.get(), bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return std::nullopt;
    if (got > 0) {
      text_.append(bytes, static_cast<size_t>(got));
      continue;
    }
    pipe_.Close();
  }
  if (text_.empty() || text_.back() != kWhole) return absl::AbortedError("the process that did it was killed");
  text_.pop_back();
  return std::move(text_);
}

}  // namespace basin
