#include "worker/own_ps.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// A port that is free at this moment; basin-ps says so clearly if somebody else takes it first. Below the ephemeral
// range: while the ps is not listening yet the client dials it, and the kernel could give the client that very port.
absl::StatusOr<uint16_t> FreePort() {
  for (int tries = 0; tries < 100; ++tries) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return ErrnoStatus(errno, "socket");
    absl::Cleanup close_fd = [fd] { close(fd); };
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const auto port = static_cast<uint16_t>(20000 + SecretU64() % 10000);
    address.sin_port = htons(port);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return port;
    if (errno != EADDRINUSE) return ErrnoStatus(errno, absl::StrCat("bind 127.0.0.1:", port));
  }
  return absl::UnavailableError("100 random ports of 127.0.0.1 from 20000 to 29999 are all in use");
}

std::string PathOfPs() {
  char self[4096];
  const ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
  if (size > 0) {
    std::string path(self, size);
    path = absl::StrCat(path.substr(0, path.rfind('/')), "/basin-ps");
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return "basin-ps";
}

}  // namespace

absl::StatusOr<std::unique_ptr<OwnPs>> OwnPs::Start(int lanes) {
  BASIN_ASSIGN_OR_RETURN(const uint16_t port, FreePort());
  const std::string cluster = absl::StrCat("{\"cluster\":{\"ps\":[\"127.0.0.1:", port,
                                           "\"],\"worker\":[\"127.0.0.1:", port + 1, "\"]},\"task\":{\"type\":\"");
  const std::string ps_config = absl::StrCat(cluster, "ps\",\"index\":0}}");
  const std::string path = PathOfPs();
  const std::string lanes_text = absl::StrCat(lanes);
  const pid_t parent = getpid();
  // Everything the child needs is made before the fork: between fork and exec only async-signal-safe calls are allowed.
  std::vector<std::string> variables = {absl::StrCat("TF_CONFIG=", ps_config)};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const absl::string_view text = *variable;
    const absl::string_view name = text.substr(0, text.find('='));
    if (name != "TF_CONFIG" && name != "BASIN_RUN_ID" && name != "BASIN_TOKEN_FILE") variables.emplace_back(text);
  }
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);
  const char* const argv[] = {path.c_str(), "--lanes", lanes_text.c_str(), "--finish-grace", "2", nullptr};
  // Closed by a successful exec; carries the errno of one that failed.
  int exec_error[2];
  if (pipe2(exec_error, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  const pid_t pid = fork();
  if (pid < 0) {
    const int error = errno;
    close(exec_error[0]);
    close(exec_error[1]);
    return ErrnoStatus(error, "fork a parameter server");
  }
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    execvpe(path.c_str(), const_cast<char* const*>(argv), environment.data());
    const int error = errno;
    (void)!write(exec_error[1], &error, sizeof(error));
    _exit(127);
  }
  close(exec_error[1]);
  int error = 0;
  ssize_t got;
  do {
    got = read(exec_error[0], &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  close(exec_error[0]);
  if (got == sizeof(error)) {
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    const absl::Status why = ErrnoStatus(error, path);
    return absl::NotFoundError(absl::StrCat("cannot start the own parameter server: ", why.message(),
                                            "; put basin-ps beside basin-worker or into PATH"));
  }
  return std::unique_ptr<OwnPs>(new OwnPs(pid, absl::StrCat(cluster, "worker\",\"index\":0}}")));
}

OwnPs::~OwnPs() {
  // The run's end ends it; a signal where there was none. waitpid without a limit: basin-ps ends on TERM.
  kill(pid_, SIGTERM);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace basin
