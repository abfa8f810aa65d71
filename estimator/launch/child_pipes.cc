#include "estimator/launch/child_pipes.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "estimator/agent/steady_now.h"

namespace basin {
namespace {

constexpr size_t kMostErrors = size_t{16} << 10;
constexpr absl::Duration kAbandonedPatience = absl::Milliseconds(60);
constexpr absl::Duration kAfterTerm = absl::Milliseconds(100);
constexpr int kLookMs = 5;

void Close(int* fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

}  // namespace

ssize_t ReadSome(int fd, std::string* text) {
  char buffer[64 << 10];
  while (true) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got > 0) text->append(buffer, static_cast<size_t>(got));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno != EAGAIN) return 0;
    return got;
  }
}

ChildPipes::~ChildPipes() {
  Finish(kAbandonedPatience);
  Close(&pipe_.errors);
}

void ChildPipes::CloseInput() { Close(&pipe_.to_agent); }

void ChildPipes::ReadErrors() {
  if (pipe_.errors < 0) return;
  if (ReadSome(pipe_.errors, &errors_) == 0) Close(&pipe_.errors);
  if (errors_.size() > kMostErrors) errors_.erase(0, errors_.size() - kMostErrors);
}

int ChildPipes::Finish(absl::Duration patience) {
  Close(&pipe_.to_agent);
  Close(&pipe_.from_agent);
  const absl::Time term_at = SteadyNow() + patience;
  bool told = false;
  while (pipe_.process > 0) {
    int status = 0;
    const pid_t got = waitpid(pipe_.process, &status, WNOHANG);
    if (got == pipe_.process) exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (got == pipe_.process || (got < 0 && errno != EINTR)) pipe_.process = 0;
    if (pipe_.process == 0) break;
    const absl::Time now = SteadyNow();
    if (now >= term_at + kAfterTerm) kill(pipe_.process, SIGKILL);
    if (now >= term_at && !told) kill(pipe_.process, SIGTERM);
    told = now >= term_at;
    // What it still says wakes us; its end is looked for.
    pollfd wait = {pipe_.errors, POLLIN, 0};
    if (poll(&wait, 1, kLookMs) > 0) ReadErrors();
  }
  ReadErrors();
  return exit_code_;
}

}  // namespace basin
