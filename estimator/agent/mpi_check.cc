#include "estimator/agent/mpi_check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "estimator/job/mpi_command.h"

namespace basin {
namespace {

constexpr absl::Duration kMostWait = absl::Seconds(60);
constexpr size_t kMostPrinted = size_t{16} << 10;
constexpr int kCannotStart = 127;

// In a child: runs the words and returns "CODE " and what they print.
std::string Run(const std::vector<std::string>& words, const std::vector<std::string>& environment) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::StrCat(kCannotStart, " no pipe could be made");
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    std::vector<char*> argv, variables;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    for (const std::string& line : environment) variables.push_back(const_cast<char*>(line.c_str()));
    argv.push_back(nullptr);
    variables.push_back(nullptr);
    execve(argv[0], argv.data(), variables.data());
    dprintf(1, "%s cannot be started: errno %d", argv[0], errno);
    _exit(kCannotStart);
  }
  close(ends[1]);
  std::string text;
  char bytes[4096];
  for (ssize_t got; (got = read(ends[0], bytes, sizeof bytes)) > 0;) {
    if (text.size() < kMostPrinted) text.append(bytes, static_cast<size_t>(got));
  }
  int status = 0;
  if (pid > 0) waitpid(pid, &status, 0);
  return absl::StrCat(pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : kCannotStart, " ", text);
}

}  // namespace

absl::StatusOr<MpiCheck> MpiCheck::Start(const agent::CheckMpi& request, const Environment& inherited,
                                         const TaskSurroundings& surroundings, absl::Time now) {
  agent::StartTask task;
  task.add_argv("mpirun");
  task.add_argv("--version");
  *task.mutable_setup() = request.setup();
  *task.mutable_environment() = request.environment();
  const Environment environment = TaskEnvironment(inherited, task, surroundings);
  std::vector<std::string> words = TaskWords(task, surroundings);
  const absl::StatusOr<std::string> program = FindTaskProgram(words[0], environment, "/");
  std::function<std::string()> work;
  if (program.ok()) {
    words[0] = *program;
    work = [words, lines = EnvironmentLines(environment)] { return Run(words, lines); };
  } else {
    work = [why = program.status()] { return absl::StrCat(kCannotStart, " ", why.message()); };
  }
  BASIN_ASSIGN_OR_RETURN(ForkedWork started, ForkedWork::Start(work));
  return MpiCheck(std::move(started), now + kMostWait);
}

std::optional<agent::MpiChecked> MpiCheck::Poll(absl::Time now) {
  const std::optional<absl::StatusOr<std::string>> text = work_.Poll();
  agent::MpiChecked checked;
  if (!text) {
    if (now < deadline_) return std::nullopt;
    checked.set_problem(absl::StrCat("mpirun --version has not answered within ", absl::FormatDuration(kMostWait)));
    return checked;
  }
  if (!text->ok()) {
    checked.set_problem(absl::StrCat("mpirun --version: ", text->status().message()));
    return checked;
  }
  const std::pair<std::string, std::string> parts = absl::StrSplit(**text, absl::MaxSplits(' ', 1));
  int code = kCannotStart;
  if (!absl::SimpleAtoi(parts.first, &code)) code = kCannotStart;
  std::string version;
  const absl::Status status = CheckMpirun(parts.second, code, &version);
  checked.set_version(version);
  if (!status.ok()) checked.set_problem(std::string(status.message()));
  return checked;
}

}  // namespace basin
