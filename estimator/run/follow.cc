#include "estimator/run/follow.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "estimator/history/read_run.h"
#include "estimator/run/supervisor.h"

namespace basin {
namespace {

constexpr int kLookEveryMs = 200;

// Whole lines that have been added to a file.
class Tail {
 public:
  Tail(const std::string& path, bool from_the_end) : file_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (from_the_end) lseek(file_.get(), 0, SEEK_END);
    (void)fstat(file_.get(), &opened_);
  }
  // Whether the path leads to another file by now: a run that starts again has set the one before aside.
  bool IsReplaced(const std::string& path) const {
    struct stat now;
    return stat(path.c_str(), &now) == 0 && (now.st_dev != opened_.st_dev || now.st_ino != opened_.st_ino);
  }
  template <typename Line>
  void Read(const Line& line) {
    char buffer[64 << 10];
    while (true) {
      const ssize_t got = read(file_.get(), buffer, sizeof(buffer));
      if (got <= 0) return;
      text_.append(buffer, static_cast<size_t>(got));
      size_t from = 0;
      for (size_t end; (end = text_.find('\n', from)) != std::string::npos; from = end + 1) {
        line(text_.substr(from, end - from));
      }
      text_.erase(0, from);
    }
  }

 private:
  UniqueFd file_;
  struct stat opened_ = {};
  std::string text_;
};

class Follower {
 public:
  Follower(const RunFolder& folder, std::FILE* lines, bool from_the_beginning)
      : folder_(folder), lines_(lines), journal_(folder.JournalPath(), true) {
    if (!from_the_beginning) LookForLogs(/*from_the_end=*/true);
  }

  void Show() {
    journal_.Read([](const std::string& line) {
      const nlohmann::json event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!event.is_object() || event.value("event", "") != "state") return;
      const std::string reason = event.value("reason", "");
      Info(absl::StrCat(event.value("state", "?"), reason.empty() ? "" : ": ", reason));
    });
    LookForLogs(/*from_the_end=*/false);
    for (auto& [name, tail] : logs_) Print(name, tail);
    std::fflush(lines_);
  }

 private:
  void LookForLogs(bool from_the_end) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path() + "/logs", error)) {
      const std::string name = entry.path().stem().string();
      if (entry.path().extension() != ".txt" || !TaskOfFileName(name)) continue;
      const std::string path = entry.path().string();
      const auto known = logs_.find(name);
      if (known == logs_.end()) {
        logs_.emplace(name, Tail(path, from_the_end));
      } else if (known->second.IsReplaced(path)) {
        Print(name, known->second);
        known->second = Tail(path, /*from_the_end=*/false);
      }
    }
  }

  void Print(const std::string& name, Tail& tail) {
    tail.Read([&](const std::string& line) { std::fprintf(lines_, "%s: %s\n", name.c_str(), line.c_str()); });
  }

  const RunFolder& folder_;
  std::FILE* const lines_;
  Tail journal_;
  std::map<std::string, Tail> logs_;
};

}  // namespace

absl::StatusOr<FollowEnd> FollowRun(const RunFolder& folder, std::FILE* lines, const FollowOptions& options) {
  sigset_t watched;
  sigemptyset(&watched);
  for (const int one : {SIGINT, SIGTERM}) sigaddset(&watched, one);
  pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  const UniqueFd signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals.get() < 0) return ErrnoStatus(errno, "signalfd");
  Follower follower(folder, lines, options.from_the_beginning);
  bool had_lock = false;
  while (true) {
    // Whether it is held is asked first: a supervisor writes the end of the run before it lets go.
    const bool supervised = SupervisorLock::IsHeld(folder);
    const absl::StatusOr<RunRecord> record = ReadRun(folder);
    follower.Show();
    const bool has_lock = access(folder.LockPath().c_str(), F_OK) == 0;
    // Whoever follows has seen the record. A lock that goes is no supervisor that ended: its file stays.
    if (absl::IsNotFound(record.status()) || (had_lock && !has_lock)) {
      return absl::AbortedError(RemovedReason(folder, std::filesystem::path(folder.path()).filename().string()));
    }
    had_lock = has_lock;
    if (!record.ok()) return record.status();
    if (IsFinal(record->phase) && !supervised) return FollowEnd::kOver;
    if (!supervised) {
      if (!options.will_go_on) return FollowEnd::kUnsupervised;
      BASIN_ASSIGN_OR_RETURN(const bool goes_on, options.will_go_on());
      if (!goes_on) return FollowEnd::kUnsupervised;
    }
    pollfd wait = {signals.get(), POLLIN, 0};
    poll(&wait, 1, kLookEveryMs);
    signalfd_siginfo info;
    while (read(signals.get(), &info, sizeof info) == sizeof info) {
      const bool by_keyboard = info.ssi_signo == SIGINT && info.ssi_code == SI_KERNEL;
      if (!options.on_signal || options.on_signal(static_cast<int>(info.ssi_signo), by_keyboard)) {
        return FollowEnd::kDetached;
      }
    }
  }
}

}  // namespace basin
