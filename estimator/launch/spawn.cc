#include "estimator/launch/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/raised_fd.h"

namespace basin {
namespace {

int Released(UniqueFd* fd) {
  const int number = fcntl(fd->get(), F_DUPFD_CLOEXEC, 16);
  fcntl(number, F_SETFL, fcntl(number, F_GETFL) | O_NONBLOCK);
  return number;
}

}  // namespace

absl::StatusOr<AgentPipe> SpawnPiped(const std::string& program, const std::vector<std::string>& argv) {
  BASIN_ASSIGN_OR_RETURN(Pipe input, MakeRaisedPipe());
  BASIN_ASSIGN_OR_RETURN(Pipe output, MakeRaisedPipe());
  BASIN_ASSIGN_OR_RETURN(Pipe errors, MakeRaisedPipe());
  BASIN_ASSIGN_OR_RETURN(Pipe failure, MakeRaisedPipe());
  std::vector<char*> pointers;
  for (const std::string& word : argv) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, absl::StrCat("start ", program));
  if (pid == 0) {
    // Other threads may have held locks at the fork: system calls alone from here to the exec.
    setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(SIGPIPE, SIG_DFL);
    dup2(input.read_end.get(), 0);
    dup2(output.write_end.get(), 1);
    dup2(errors.write_end.get(), 2);
    execvp(program.c_str(), pointers.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t ignored = write(failure.write_end.get(), &error, sizeof(error));
    _exit(127);
  }
  failure.write_end.Close();
  int error = 0;
  ssize_t got = -1;
  do {
    got = read(failure.read_end.get(), &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  if (got == sizeof(error)) {
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return absl::NotFoundError(absl::StrCat("cannot start ", program, ": ", std::strerror(error)));
  }
  return AgentPipe{pid, Released(&input.write_end), Released(&output.read_end), Released(&errors.read_end)};
}

}  // namespace basin
