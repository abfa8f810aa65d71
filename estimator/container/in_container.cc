#include "estimator/container/in_container.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

std::string Quoted(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

// What a shell keeps for itself: to set the first is an error that ends it, the others it fills in again.
constexpr const char* kOfShells[] = {
    "UID",     "EUID",   "PPID",    "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO", "GROUPS",        "DIRSTACK", "FUNCNAME",
    "BASHPID", "RANDOM", "SRANDOM", "SECONDS",   "LINENO",   "EPOCHSECONDS",  "EPOCHREALTIME", "OPTIND",   "HISTCMD"};

bool CanBeExported(const std::string& name) {
  const auto is_name = [&name](const char* one) { return name == one; };
  if (std::any_of(std::begin(kOfShells), std::end(kOfShells), is_name)) return false;
  return !name.empty() && !absl::ascii_isdigit(name[0]) &&
         std::all_of(name.begin(), name.end(), [](char c) { return absl::ascii_isalnum(c) || c == '_'; });
}

// Put before what the variable holds by then.
std::string Before(const char* variable, const std::vector<std::string>& folders) {
  if (folders.empty()) return "";
  return absl::StrCat("export ", variable, "=", Quoted(absl::StrJoin(folders, ":")), "${", variable, ":+:$", variable,
                      "}\n");
}

// What a shell in the container reads and becomes. Its arguments are the command.
std::string Script(const ContainerRequest& request, const ContainerUser& user, const ContainedCommand& command) {
  std::string script = absl::StrFormat("umask 0%03o\n", user.umask);
  absl::StrAppend(&script, "if [ -z \"$HOME\" ] || [ ! -w \"$HOME\" ]; then export HOME=", Quoted(command.home),
                  "; fi\n");
  std::string others;  // that a shell does not set
  for (const auto& [name, value] : command.environment) {
    if (CanBeExported(name)) {
      absl::StrAppend(&script, "export ", name, "=", Quoted(value), "\n");
    } else {
      absl::StrAppend(&others, " ", Quoted(absl::StrCat(name, "=", value)));
    }
  }
  absl::StrAppend(&script, Before("PATH", command.path), Before("PYTHONPATH", command.python_path));
  absl::StrAppend(&script, "command -v \"$1\" >/dev/null 2>&1 || { echo \"basin: image \"", Quoted(request.image),
                  "\" has no program $1 that can be run; install it in the image, or name another one in "
                  "custom_docker_image\" >&2; exit 127; }\n");
  absl::StrAppend(&script, "exec ", others.empty() ? "" : absl::StrCat("env", others, " "), "\"$@\" </dev/null\n");
  return script;
}

absl::Status CheckMounts(ContainerEngine engine, const std::vector<ContainerMount>& mounts) {
  const char* bad = engine == ContainerEngine::kApptainer ? ",:\"\\" : ",\"";
  for (const ContainerMount& mount : mounts) {
    if (!absl::StartsWith(mount.path, "/") || mount.path == "/") {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", mount.path, "\" cannot be shown to a container; name a folder below /"));
    }
    if (mount.path.find_first_of(bad) == std::string::npos) continue;
    return absl::InvalidArgumentError(absl::StrCat(mount.path, " has a character that ", Name(engine),
                                                   " does not take in a mount's path (", bad, "); rename it"));
  }
  return absl::OkStatus();
}

void Add(const std::vector<std::string>& words, std::vector<std::string>* argv) {
  argv->insert(argv->end(), words.begin(), words.end());
}

void AddLimit(const char* name, const rlimit& limit, std::vector<std::string>* argv) {
  const auto text = [](rlim_t value) { return value == RLIM_INFINITY ? std::string("-1") : absl::StrCat(value); };
  argv->push_back(absl::StrCat("--ulimit=", name, "=", text(limit.rlim_cur), ":", text(limit.rlim_max)));
}

// podman and docker, whose words are nearly the same.
std::vector<std::string> RunWords(const NodeImage& image, const ContainerRequest& request, const ContainerUser& user,
                                  const ContainedCommand& command) {
  const bool is_podman = image.engine == ContainerEngine::kPodman;
  std::vector<std::string> argv = {image.program};
  Add(request.settings.engine_options, &argv);
  // Without a log of the engine's own: what the command prints goes where the engine's output does, once.
  Add({"run", "--rm", "--interactive", "--name", command.name, "--label", absl::StrCat("basin.run=", command.run_id),
       "--pull=never", "--log-driver=none"},
      &argv);
  // As on the node itself: its addresses and ports, its processes by their numbers (so that no process is number 1,
  // which would not hear SIGTERM), its limits.
  Add({"--network=host", "--pid=host", "--security-opt=label=disable", "--pids-limit=-1"}, &argv);
  AddLimit("nofile", user.open_files, &argv);
  AddLimit("nproc", user.processes, &argv);
  argv.push_back(request.shm_bytes > 0 ? absl::StrCat("--shm-size=", request.shm_bytes) : "--ipc=host");
  if (image.is_rootless && is_podman) argv.emplace_back("--userns=keep-id");
  const bool is_root_inside = image.is_rootless && !is_podman;
  argv.push_back(absl::StrCat("--user=", is_root_inside ? 0 : user.uid, ":", is_root_inside ? 0 : user.gid));
  if (!is_podman && !is_root_inside) {
    for (const gid_t group : user.groups) argv.push_back(absl::StrCat("--group-add=", group));
  }
  for (const ContainerMount& mount : command.mounts) {
    argv.emplace_back("--mount");
    argv.push_back(
        absl::StrCat("type=bind,source=", mount.path, ",target=", mount.path, mount.read_only ? ",readonly" : ""));
  }
  argv.push_back(absl::StrCat("--workdir=", command.folder));
  if (request.gpus) argv.emplace_back(is_podman ? "--device=nvidia.com/gpu=all" : "--gpus=all");
  Add(request.settings.options, &argv);
  Add({"--entrypoint=/bin/sh", image.image, "-c", "eval \"$(cat)\"", "sh"}, &argv);
  return argv;
}

std::vector<std::string> ApptainerWords(const NodeImage& image, const ContainerRequest& request,
                                        const ContainedCommand& command) {
  std::vector<std::string> argv = {image.program};
  Add(request.settings.engine_options, &argv);
  // Network, processes and /dev/shm are the node's by themselves, and so is the user.
  Add({"exec", "--cleanenv", "--no-home", "--pwd", command.folder}, &argv);
  for (const ContainerMount& mount : command.mounts) {
    argv.emplace_back("--bind");
    argv.push_back(absl::StrCat(mount.path, ":", mount.path, mount.read_only ? ":ro" : ""));
  }
  if (request.gpus) argv.emplace_back("--nv");
  Add(request.settings.options, &argv);
  Add({image.image, "/bin/sh", "-c", "eval \"$(cat)\"", "sh"}, &argv);
  return argv;
}

}  // namespace

absl::StatusOr<EngineCommand> InContainer(const NodeImage& image, const ContainerRequest& request,
                                          const ContainerUser& user, const ContainedCommand& command) {
  BASIN_RETURN_IF_ERROR(CheckMounts(image.engine, command.mounts));
  EngineCommand made;
  made.input = Script(request, user, command);
  if (image.engine == ContainerEngine::kApptainer) {
    if (request.shm_bytes > 0) {
      return absl::InvalidArgumentError(
          "shm_size: apptainer gives containers the node's /dev/shm; remove shm_size, or name podman or docker in the "
          "target's container_engine");
    }
    made.argv = ApptainerWords(image, request, command);
  } else {
    made.argv = RunWords(image, request, user, command);
    made.remove = {image.program};
    Add(request.settings.engine_options, &made.remove);
    Add({"rm", "--force", command.name}, &made.remove);
    if (image.engine == ContainerEngine::kPodman) made.remove.insert(made.remove.end() - 1, {"--ignore", "--time=0"});
  }
  Add(command.argv, &made.argv);
  return made;
}

std::string MountFor(const std::string& path) {
  const size_t pattern = path.find_first_of("*?[");
  if (pattern == std::string::npos)
    return path.size() > 1 && path.back() == '/' ? path.substr(0, path.size() - 1) : path;
  const size_t slash = path.rfind('/', pattern);
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

}  // namespace basin
