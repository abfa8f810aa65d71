#include "estimator/run/detach.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {

absl::StatusOr<Forked> ForkToBackground(const std::string& log_path) {
  const UniqueFd log(open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (log.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", log_path));
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  int ends[2];
  if (null.get() < 0 || pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "start a process in the background");
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  const pid_t first = fork();
  if (first < 0) return ErrnoStatus(errno, "start a process in the background");
  if (first > 0) {
    while (waitpid(first, nullptr, 0) < 0 && errno == EINTR) {
    }
    return Forked{false, std::move(read_end)};
  }
  // Its report may find nobody, and must not end it.
  signal(SIGPIPE, SIG_IGN);
  setsid();
  // The second fork leaves it to init, so that nobody has to wait for it.
  if (const pid_t second = fork(); second != 0) _exit(second < 0 ? 1 : 0);
  dup2(null.get(), 0);
  dup2(log.get(), 1);
  dup2(log.get(), 2);
  return Forked{true, std::move(write_end)};
}

std::string ReadReport(const UniqueFd& report) {
  std::string text;
  while (text.find('\n') == std::string::npos) {
    char buffer[4096];
    const ssize_t got = read(report.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return "";
    text.append(buffer, static_cast<size_t>(got));
  }
  return text.substr(0, text.find('\n'));
}

void WriteReport(const UniqueFd& report, const std::string& line) {
  const std::string text = absl::StrReplaceAll(line, {{"\n", " "}}) + "\n";
  // The old process may be gone, which changes nothing.
  [[maybe_unused]] const ssize_t ignored = write(report.get(), text.data(), text.size());
}

std::string ErrorReport(const absl::Status& error) {
  return absl::StrCat("error ", ExitCodeFor(error), " ", error.message());
}

absl::Status ErrorOfReport(const std::string& report) {
  const std::vector<std::string> words = absl::StrSplit(report, absl::MaxSplits(' ', 2));
  if (words.size() != 3 || words[0] != "error") return absl::OkStatus();
  return words[1] == absl::StrCat(kExitUsage) ? absl::FailedPreconditionError(words[2]) : absl::InternalError(words[2]);
}

}  // namespace basin
