#include "bench/harness/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void OnSignal(int number) { interrupted = number; }

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// In the child, between fork and exec: only async-signal-safe calls.
[[noreturn]] void Become(const ProcessOptions& options, char* const* argv, char* const* environment, pid_t parent,
                         int input, int output, int log, int report) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  setpgid(0, 0);
  struct sigaction plain = {};
  plain.sa_handler = SIG_DFL;
  sigaction(SIGINT, &plain, nullptr);
  sigaction(SIGTERM, &plain, nullptr);
  int error = 0;
  if (options.network >= 0 && setns(options.network, CLONE_NEWNET) != 0) error = errno;
  if (error == 0 && input >= 0 && dup2(input, STDIN_FILENO) < 0) error = errno;
  if (error == 0 && output >= 0 && dup2(output, STDOUT_FILENO) < 0) error = errno;
  if (error == 0 && log >= 0 && dup2(log, STDERR_FILENO) < 0) error = errno;
  for (const int fd : options.inherited) fcntl(fd, F_SETFD, 0);
  if (error == 0) {
    execve(argv[0], argv, environment);
    error = errno;
  }
  (void)!write(report, &error, sizeof(error));
  _exit(127);
}

struct Pipe {
  int read = -1, write = -1;
  absl::Status Open() {
    int both[2];
    if (pipe2(both, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
    read = both[0];
    write = both[1];
    return absl::OkStatus();
  }
  void Close(int& end) {
    if (end >= 0) close(end);
    end = -1;
  }
  ~Pipe() {
    Close(read);
    Close(write);
  }
};

}  // namespace

void WatchSignals() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;  // without SA_RESTART: waits end
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

absl::Status Interrupted() {
  if (interrupted == 0) return absl::OkStatus();
  return absl::CancelledError(absl::StrCat("ended by signal ", static_cast<int>(interrupted)));
}

absl::StatusOr<Process> Process::Start(const ProcessOptions& options) {
  BASIN_RETURN_IF_ERROR(Interrupted());
  std::vector<std::string> words = options.argv, variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const absl::string_view text = *variable, name = text.substr(0, text.find('='));
    if (name != "TF_CONFIG" && name != "BASIN_RUN_ID" && name != "BASIN_TOKEN_FILE") variables.emplace_back(text);
  }
  for (const auto& [name, value] : options.environment) variables.push_back(absl::StrCat(name, "=", value));
  const std::vector<char*> argv = Pointers(words), environment = Pointers(variables);

  Pipe in, out, log, report;
  BASIN_RETURN_IF_ERROR(report.Open());
  if (options.piped) {
    BASIN_RETURN_IF_ERROR(in.Open());
    BASIN_RETURN_IF_ERROR(out.Open());
  }
  if (!options.log.empty()) {
    log.write = open(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log.write < 0) return ErrnoStatus(errno, absl::StrCat("open ", options.log));
  }
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, absl::StrCat("fork for ", words[0]));
  if (pid == 0) Become(options, argv.data(), environment.data(), parent, in.read, out.write, log.write, report.write);
  Process process(pid, std::exchange(in.write, -1), std::exchange(out.read, -1));
  report.Close(report.write);
  int error = 0;
  ssize_t got;
  do {
    got = read(report.read, &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  if (got == sizeof(error)) return ErrnoStatus(error, absl::StrCat("start ", words[0]));
  return process;
}

Process& Process::operator=(Process&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(input_, other.input_);
  std::swap(output_, other.output_);
  std::swap(status_, other.status_);
  return *this;
}

Process::~Process() {
  CloseInput();
  if (output_ >= 0) close(output_);
  if (pid_ < 0 || !Running()) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void Process::CloseInput() {
  if (input_ >= 0) close(input_);
  input_ = -1;
}

bool Process::Running() {
  if (pid_ < 0 || status_) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  status_ = status;
  return false;
}

void Process::Signal(int number) {
  if (Running()) kill(pid_, number);
}

bool Process::WaitEnd(absl::Duration most) {
  if (!Running()) return true;
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  if (fd >= 0) {
    pollfd entry = {.fd = fd, .events = POLLIN, .revents = 0};
    poll(&entry, 1, static_cast<int>(absl::ToInt64Milliseconds(most)));
    close(fd);
  }
  return !Running();
}

std::string Process::Ending() const {
  if (!status_) return "";
  if (WIFSIGNALED(*status_)) return absl::StrCat("signal ", WTERMSIG(*status_));
  return absl::StrCat("exit code ", WEXITSTATUS(*status_));
}

double Process::CpuSeconds() const {
  clockid_t clock;
  timespec time = {};
  if (pid_ < 0 || clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

uint64_t Process::PeakRssBytes() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, "VmHWM:")) continue;
    return std::strtoull(line.c_str() + 6, nullptr, 10) * 1024;  // "VmHWM:     1234 kB"
  }
  return 0;
}

std::string TailOf(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return "";
  if (text->size() > 1024) *text = text->substr(text->size() - 1024);
  return *text;
}

absl::StatusOr<std::string> BesideThisProgram(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return absl::InternalError(absl::StrCat("read /proc/self/exe: ", error.message()));
  if (name.empty()) return self.string();
  const std::string path = (self.parent_path() / name).string();
  // Benchmarks have a folder of their own, beside bin.
  for (const std::string& one : {path, (self.parent_path().parent_path() / "bin" / name).string()}) {
    if (access(one.c_str(), X_OK) == 0) return one;
  }
  return absl::NotFoundError(absl::StrCat("there is no ", name, " at ", path, ", beside ", self.filename().string(),
                                          "; build or install it there: local parameter servers are started from it"));
}

absl::StatusOr<TemporaryFolder> TemporaryFolder::Make() {
  std::error_code error;
  std::string path = (std::filesystem::temp_directory_path(error) / "basin-bench-XXXXXX").string();
  if (error || mkdtemp(path.data()) == nullptr) return ErrnoStatus(errno, absl::StrCat("make the folder ", path));
  return TemporaryFolder(path);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace basin::bench
