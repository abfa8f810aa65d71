#include "estimator/exec/exec_task.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cluster_spec/tf_config.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/agent/guard.h"
#include "estimator/agent/process_tree.h"
#include "estimator/agent/programs.h"
#include "estimator/agent/task_command.h"

namespace basin {
namespace {

std::map<std::string, std::string> OwnEnvironment() {
  std::map<std::string, std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    if (const size_t end = text.find('='); end != std::string::npos) {
      variables[text.substr(0, end)] = text.substr(end + 1);
    }
  }
  return variables;
}

// What agents say, without the next step behind it, which is for jobs.
std::string WithoutAdvice(const absl::Status& status) {
  const absl::string_view said = status.message();
  return std::string(said.substr(0, said.rfind("; ")));
}

// A guard that is killed leaves what its task had started to this process, its subreaper. This process has no other
// children.
void KillOrphans() {
  do {
    SignalDescendants(getpid(), SIGKILL);  // those that one of them has just started are met by the next round
  } while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR);
}

std::string WorkingFolder() {
  char path[4096];
  return getcwd(path, sizeof path) == nullptr ? "/" : path;
}

}  // namespace

absl::StatusOr<uint32_t> ExecTask::HoldPort() {
  if (id().role == Role::kEvaluator) return 0;
  PortRequest request;
  request.count = 1;
  request.first = options_.first_port;
  request.last = options_.last_port;
  const absl::StatusOr<std::vector<uint32_t>> ports = ports_.Hold(request);
  if (absl::IsResourceExhausted(ports.status())) {
    return absl::ResourceExhaustedError(
        absl::StrCat(WithoutAdvice(ports.status()), "; give another range with --ports FIRST-LAST"));
  }
  BASIN_RETURN_IF_ERROR(ports.status());
  port_ = (*ports)[0];
  return port_;
}

// Returns the path of a file with the token, which is there as long as this object.
absl::StatusOr<std::string> ExecTask::KeepToken(const std::string& token) {
  token_ = UniqueFd(memfd_create("basin-token", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (token_.get() < 0) return ErrnoStatus(errno, "make a file in memory for the token");
  const std::string path = absl::StrCat("/proc/", getpid(), "/fd/", token_.get());
  BASIN_RETURN_IF_ERROR(WriteAll(token_.get(), token, path));
  if (fchmod(token_.get(), 0600) != 0) return ErrnoStatus(errno, absl::StrCat("chmod ", path));
  (void)fcntl(token_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  return path;
}

absl::Status ExecTask::Start(const ExecStart& start) {
  const Programs programs = OwnPrograms();
  std::map<std::string, std::string> variables = OwnEnvironment();
  variables["TF_CONFIG"] = FormatTfConfig(start.cluster, id());
  variables["BASIN_RUN_ID"] = start.run_id;
  BASIN_ASSIGN_OR_RETURN(variables["BASIN_TOKEN_FILE"], KeepToken(start.token));
  variables["BASIN_ROLE"] = std::string(Name(id().role));
  variables["BASIN_TASK_INDEX"] = absl::StrCat(id().index);
  if (!programs.library.empty()) variables["BASIN_LIBRARY"] = programs.library;
  const std::string path = variables["PATH"];
  variables["PATH"] = absl::StrCat(programs.folder, path.empty() ? "" : ":", path);
  if (!programs.python.empty()) {
    const std::string before = variables["PYTHONPATH"];
    variables["PYTHONPATH"] = absl::StrCat(programs.python, before.empty() ? "" : ":", before);
  }

  GuardedCommand command;
  command.folder = WorkingFolder();
  command.grace = options_.grace;
  if (port_ != 0) {
    BASIN_ASSIGN_OR_RETURN(held_, ports_.Take(port_));
  }
  if (id().role == Role::kPs) {
    variables["CUDA_VISIBLE_DEVICES"] = "";
    command.argv = {absl::StrCat(programs.folder, "/basin-ps"), "--listen-fd", absl::StrCat(kPassedListenerFd)};
    const int lanes = options_.lanes > 0 ? options_.lanes : start.shares_host ? 1 : 0;
    if (lanes > 0) command.argv.insert(command.argv.end(), {"--lanes", absl::StrCat(lanes)});
    command.listener = held_.listener.get();
  } else {
    command.argv = options_.command;
    held_.listener.Close();  // a script binds it itself
  }
  const Environment environment(variables.begin(), variables.end());
  const absl::StatusOr<std::string> program = FindTaskProgram(command.argv[0], environment, command.folder);
  if (!program.ok()) {
    if (!absl::IsNotFound(program.status())) return program.status();
    return absl::NotFoundError(absl::StrCat(WithoutAdvice(program.status()),
                                            "; every host of the launch needs it, and a PATH that leads to it"));
  }
  command.argv[0] = *program;
  command.environment = EnvironmentLines(environment);
  BASIN_ASSIGN_OR_RETURN(process_, GuardedProcess::Start(command));
  held_.listener.Close();  // the task has it
  return absl::OkStatus();
}

std::optional<ExecTask::End> ExecTask::Poll() {
  std::optional<End> end;
  if (!process_) return end;
  for (const GuardedEvent& event : process_->Read()) {
    if (event.kind == GuardedEvent::kExited && !std::exchange(told_, true)) end = End{event.code, event.signal};
    if (event.kind != GuardedEvent::kGone) continue;
    // A guard that was killed has told nothing of its task.
    if (!std::exchange(told_, true)) end = End{0, SIGKILL};
    while (waitpid(process_->guard(), nullptr, 0) < 0 && errno == EINTR) {
    }
    KillOrphans();
    process_.reset();
    break;
  }
  return end;
}

void ExecTask::Terminate() {
  if (process_) process_->Terminate();
}

void ExecTask::Kill() {
  if (process_) process_->Kill();
}

}  // namespace basin
