#include "estimator/agent/task_command.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/guard.h"
#include "estimator/job/mpi_command.h"

namespace basin {
namespace {

// What execvp looks through where PATH is not set.
constexpr char kDefaultPath[] = "/bin:/usr/bin";
constexpr size_t kMostShebangBytes = 256;

// Runs the lines of its first word, then becomes the command of the others. One line, and the setup behind `eval`, so
// that bash's own complaints count the setup's lines from 1. DEBUG knows the line of each simple command, ERR that of a
// subshell; while EXIT's own runs, LINENO is 1 again. Before the task takes its place all of it is undone.
constexpr char kSetupShell[] =
    R"(set -e; basin_setup=$1 basin_setup_line=0; shift; )"
    R"(trap '((LINENO > 1 || !basin_setup_line)) && basin_setup_line=$LINENO' DEBUG; )"
    R"(trap 'basin_setup_line=$LINENO' ERR; trap 'basin_setup_ended $?' EXIT; )"
    R"(basin_setup_ended() { set +eux; trap - DEBUG ERR; local lines problem with=; mapfile -t lines <<<"$basin_setup"; )"
    R"(if ! problem=$(bash -n -c "$basin_setup" 2>&1); then problem=${problem%%$'\n'*}; )"
    R"(echo "basin: setup cannot be run: ${problem#bash: -c: }" >&2; )"
    R"(else if (($1)); then with=" with code $1"; fi; echo "basin: setup line $basin_setup_line ended the task$with, )"
    R"(before its script: ${lines[basin_setup_line - 1]}" >&2; fi; exit $(($1 ? $1 : 1)); }; )"
    R"(eval "$basin_setup"; trap - DEBUG ERR EXIT; unset basin_setup basin_setup_line; exec "$@")";
constexpr char kSetupSays[] = "basin: setup ";

// What a task of another run, in which `basin submit` may have been called, has in its environment.
constexpr const char* kOfOneTask[] = {"AZ_BATCHAI_TASK_INDEX",
                                      "BASIN_LOCAL_RANK",
                                      "BASIN_METRICS_FILE",
                                      "BASIN_NODE_FOLDER",
                                      "BASIN_RANK",
                                      "BASIN_ROLE",
                                      "BASIN_RUN_DIR",
                                      "BASIN_RUN_ID",
                                      "BASIN_TASK_INDEX",
                                      "BASIN_TOKEN_FILE",
                                      "BASIN_WORLD_SIZE",
                                      "LOCAL_RANK",
                                      "RANK",
                                      "TF_CONFIG",
                                      "WORLD_SIZE"};

bool IsOfOneTask(const std::string& name) {
  if (absl::StartsWith(name, "SSH_") || absl::StartsWith(name, "BASIN_INPUT_")) return true;
  if (absl::StartsWith(name, "AZUREML_DATAREFERENCE_")) return true;
  for (const char* one : kOfOneTask) {
    if (name == one) return true;
  }
  return false;
}

std::string JoinPaths(const std::vector<std::string>& parts) {
  std::vector<std::string> set;
  for (const std::string& part : parts) {
    if (!part.empty()) set.push_back(part);
  }
  return absl::StrJoin(set, ":");
}

std::string ValueOf(const Environment& environment, const std::string& name) {
  for (const auto& [known, value] : environment) {
    if (known == name) return value;
  }
  return "";
}

bool IsProgram(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && access(path.c_str(), X_OK) == 0;
}

// Along PATH; empty where it is not there.
std::string AlongPath(const std::string& name, const Environment& environment, const std::string& folder) {
  std::string path = ValueOf(environment, "PATH");
  if (path.empty()) path = kDefaultPath;
  for (const auto& place : absl::StrSplit(path, ':')) {
    std::string candidate = absl::StrCat(place.empty() ? "." : place, "/", name);
    if (candidate[0] != '/') candidate = absl::StrCat(folder, "/", candidate);
    if (IsProgram(candidate)) return candidate;
  }
  return "";
}

absl::Status NotOnPath(const std::string& name, const Environment& environment) {
  const std::string path = ValueOf(environment, "PATH");
  return absl::NotFoundError(absl::StrCat("program ", name, " is not on this node's PATH (",
                                          path.empty() ? kDefaultPath : path,
                                          "); install it there, or add its folder to PATH with a `setup` line"));
}

// "#!/usr/bin/env python3" -> {"/usr/bin/env", "python3"}; empty for what is no script.
std::vector<std::string> Shebang(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  char text[kMostShebangBytes];
  const ssize_t got = fd.get() < 0 ? -1 : read(fd.get(), text, sizeof text);
  if (got < 2 || text[0] != '#' || text[1] != '!') return {};
  const absl::string_view line = absl::string_view(text + 2, static_cast<size_t>(got) - 2);
  std::vector<std::string> words;
  for (const auto& word : absl::StrSplit(line.substr(0, line.find('\n')), absl::ByAnyChar(" \t"), absl::SkipEmpty())) {
    words.emplace_back(word);
  }
  return words;
}

absl::Status CheckInterpreter(const std::string& script, const Environment& environment, const std::string& folder) {
  const std::vector<std::string> words = Shebang(script);
  if (words.empty()) return absl::OkStatus();
  if (absl::EndsWith(words[0], "\r") || (words.size() > 1 && absl::EndsWith(words.back(), "\r"))) {
    return absl::FailedPreconditionError(absl::StrCat("the first line of ", script,
                                                      " ends with a carriage return, so its interpreter \"", words[0],
                                                      "\\r\" is not found; save it with Unix line ends"));
  }
  if (!IsProgram(words[0])) {
    return absl::FailedPreconditionError(
        absl::StrCat("interpreter ", words[0], " (first line of ", script, ") is not on this node; install it there"));
  }
  const bool by_env = words.size() == 2 && absl::EndsWith(words[0], "/env") && words[1][0] != '-';
  if (by_env && AlongPath(words[1], environment, folder).empty()) return NotOnPath(words[1], environment);
  return absl::OkStatus();
}

}  // namespace

Environment InheritedEnvironment(const char* const* variables) {
  std::map<std::string, std::string> inherited;
  bool is_rank = false;
  for (const char* const* entry = variables; *entry != nullptr; ++entry) {
    is_rank = is_rank || absl::StartsWith(*entry, "OMPI_COMM_WORLD_RANK=");
  }
  for (const char* const* entry = variables; *entry != nullptr; ++entry) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(*entry, absl::MaxSplits('=', 1));
    if (is_rank && IsMpiVariable(parts.first)) continue;
    if (!IsOfOneTask(parts.first)) inherited[parts.first] = parts.second;
  }
  return {inherited.begin(), inherited.end()};
}

Environment TaskEnvironment(const Environment& inherited, const agent::StartTask& request,
                            const TaskSurroundings& surroundings) {
  std::map<std::string, std::string> merged(inherited.begin(), inherited.end());
  for (const auto& [name, value] : ContainedEnvironment(request, surroundings)) merged[name] = value;
  const std::string& prefix = surroundings.environment_prefix;
  const std::string path = merged["PATH"].empty() ? kDefaultPath : merged["PATH"];
  merged["PATH"] = JoinPaths({surroundings.programs.folder, prefix.empty() ? "" : prefix + "/bin", path});
  if (!surroundings.programs.python.empty()) {
    merged["PYTHONPATH"] = JoinPaths({surroundings.programs.python, merged["PYTHONPATH"]});
  }
  if (!prefix.empty()) merged.erase("PYTHONHOME");  // would lead the environment's python to another one's library
  merged["PWD"] = surroundings.paths.task;
  return {merged.begin(), merged.end()};
}

Environment ContainedEnvironment(const agent::StartTask& request, const TaskSurroundings& surroundings) {
  std::map<std::string, std::string> merged(surroundings.mpi.begin(), surroundings.mpi.end());
  for (const agent::Variable& variable : request.environment()) {
    merged[variable.name()] = ReplacePlaceholders(variable.value(), surroundings.paths);
  }
  const std::string& prefix = surroundings.environment_prefix;
  if (!prefix.empty()) merged[surroundings.is_conda ? "CONDA_PREFIX" : "VIRTUAL_ENV"] = prefix;
  if (!surroundings.programs.library.empty()) merged["BASIN_LIBRARY"] = surroundings.programs.library;
  if (request.mpi_part() == agent::StartTask::LAUNCHER) merged["BASIN_NODE_FOLDER"] = surroundings.node_folder;
  merged["BASIN_METRICS_FILE"] = surroundings.metrics_file;
  merged["BASIN_RUN_DIR"] = surroundings.paths.task;
  return {merged.begin(), merged.end()};
}

std::vector<std::string> TaskWords(const agent::StartTask& request, const TaskSurroundings& surroundings) {
  std::vector<std::string> words;
  if (request.setup_size() > 0) {
    words = {"bash", "-c", kSetupShell, "bash", absl::StrJoin(request.setup(), "\n")};
  }
  for (const std::string& word : request.argv()) words.push_back(ReplacePlaceholders(word, surroundings.paths));
  if (request.port() != 0 && request.takes_listener()) {
    words.push_back("--listen-fd");
    words.push_back(absl::StrCat(kPassedListenerFd));
  }
  return words;
}

std::string SetupProblem(absl::string_view log_end) {
  log_end = absl::StripTrailingAsciiWhitespace(log_end);
  log_end.remove_prefix(log_end.rfind('\n') + 1);  // none: npos + 1 is 0
  if (!absl::StartsWith(log_end, kSetupSays)) return "";
  return std::string(absl::StripPrefix(log_end, "basin: "));
}

absl::StatusOr<std::string> FindTaskProgram(const std::string& program, const Environment& environment,
                                            const std::string& folder) {
  std::string path;
  if (!absl::StrContains(program, '/')) {
    path = AlongPath(program, environment, folder);
    if (path.empty()) return NotOnPath(program, environment);
  } else {
    path = program[0] == '/' ? program : absl::StrCat(folder, "/", program);
    if (access(path.c_str(), F_OK) != 0) {
      return absl::FailedPreconditionError(absl::StrCat("program ", program, " is not there (looked for ", path, ")"));
    }
    if (!IsProgram(path)) {
      return absl::FailedPreconditionError(
          absl::StrCat("program ", path, " cannot be executed; chmod +x it in source_directory"));
    }
  }
  if (absl::Status status = CheckInterpreter(path, environment, folder); !status.ok()) return status;
  return path;
}

std::vector<std::string> EnvironmentLines(const Environment& environment) {
  std::vector<std::string> lines;
  for (const auto& [name, value] : environment) lines.push_back(absl::StrCat(name, "=", value));
  return lines;
}

}  // namespace basin
