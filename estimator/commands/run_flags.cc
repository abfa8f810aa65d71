#include "estimator/commands/run_flags.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <filesystem>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/agent/node_folder.h"
#include "estimator/commands/given_words.h"
#include "estimator/launch/bundle.h"
#include "estimator/launch/local_launcher.h"
#include "estimator/launch/slurm_launcher.h"
#include "estimator/launch/ssh_launcher.h"
#include "estimator/launch/targets_file.h"

namespace basin {

void AddTargetFlags(CLI::App& command, TargetFlags* flags) {
  NotEmpty(command.add_option("--target", flags->target, "Where it runs: a name of a targets file, or local"))
      ->type_name("NAME")
      ->take_last();
  NotEmpty(command.add_option("--hosts", flags->hosts, "Machines by ssh, without a targets file: h0,ann@h1:2022"))
      ->type_name("HOSTS")
      ->take_last();
  NotEmpty(command.add_option("--targets", flags->targets,
                              "A targets file, before ./targets.yaml beside the job and ~/.config/basin/targets.yaml"))
      ->type_name("FILE")
      ->take_last();
  NotEmpty(
      command.add_option("--bundle", flags->bundle,
                         "The archive of Basin's programs for machines that lack them; default: the one beside basin"))
      ->type_name("FILE")
      ->take_last();
}

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

TargetSources SourcesOf(const CommandContext& context, const TargetFlags& flags, const std::string& folder) {
  TargetSources sources;
  const std::string config =
      context.xdg_config.empty() ? context.home.empty() ? "" : context.home + "/.config" : context.xdg_config;
  if (!config.empty()) sources.user_file = config + "/basin/targets.yaml";
  sources.project_file = AbsolutePath(folder.empty() ? "targets.yaml" : folder + "/targets.yaml");
  if (!flags.targets.empty()) sources.given_file = AbsolutePath(flags.targets);
  return sources;
}

absl::Status CheckTargetFiles(const TargetFlags& flags) {
  const std::tuple<const char*, const std::string&, const char*> files[] = {
      {"--targets", flags.targets, "give a targets file"},
      {"--bundle", flags.bundle, "give an archive basin-VERSION-linux-MACHINE.tar.zst"}};
  for (const auto& [flag, path, next] : files) {
    if (path.empty()) continue;
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (status.type() == std::filesystem::file_type::regular && access(path.c_str(), R_OK) == 0) continue;
    const std::string found = status.type() == std::filesystem::file_type::not_found   ? "does not exist"
                              : status.type() == std::filesystem::file_type::regular   ? "cannot be read by this user"
                              : status.type() == std::filesystem::file_type::directory ? "is a folder"
                              : error                                                  ? error.message()
                                                                                       : "is no regular file";
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " ", path, ": ", found, "; ", next, ", or leave the flag out"));
  }
  // What is in it counts too where the target is local.
  TargetSources given;
  if (!flags.targets.empty()) given.given_file = AbsolutePath(flags.targets);
  return KnownTargets(given).status();
}

absl::StatusOr<Target> ChosenTarget(const CommandContext& context, const TargetFlags& flags,
                                    const std::string& otherwise, const std::string& folder) {
  if (!flags.hosts.empty() && !flags.target.empty()) {
    return absl::InvalidArgumentError("--target and --hosts both say where it runs; give one of the two");
  }
  BASIN_RETURN_IF_ERROR(CheckTargetFiles(flags));
  Target target;
  if (!flags.hosts.empty()) {
    BASIN_ASSIGN_OR_RETURN(target, TargetOfHosts(flags.hosts));
  } else {
    BASIN_ASSIGN_OR_RETURN(
        target, FindTarget(flags.target.empty() ? otherwise : flags.target, SourcesOf(context, flags, folder)));
  }
  if (!flags.bundle.empty()) target.bundle = AbsolutePath(flags.bundle);
  return target;
}

absl::StatusOr<std::string> BaseFolder(const CommandContext& context, const Target& target) {
  const std::string named = target.kind == TargetKind::kLocal ? target.folder : "";
  BASIN_ASSIGN_OR_RETURN(const std::string base, ChooseBase(named, context.cache, context.xdg_cache, context.home));
  return AbsolutePath(base);
}

absl::StatusOr<std::string> MadeBaseFolder(const CommandContext& context, const Target& target) {
  BASIN_ASSIGN_OR_RETURN(const std::string base, BaseFolder(context, target));
  absl::Status status = MakeFolders(base, 0700);
  if (status.ok() && access(base.c_str(), W_OK | X_OK) != 0)
    status = ErrnoStatus(errno, absl::StrCat("write in ", base));
  if (status.ok()) return base;
  return absl::Status(status.code(), absl::StrCat("Basin's own files cannot be kept in ", base, ": ", status.message(),
                                                  "; name another folder with BASIN_CACHE"));
}

absl::StatusOr<std::unique_ptr<Launcher>> LauncherFor(const CommandContext& context, const Target& target,
                                                      const std::string& programs) {
  if (target.kind == TargetKind::kLocal) {
    BASIN_ASSIGN_OR_RETURN(const std::string base, BaseFolder(context, target));
    return MakeLocalLauncher(base, programs.empty() ? "" : AbsolutePath(programs));
  }
  if (target.kind == TargetKind::kSlurm) return MakeSlurmLauncher(target, ProgramFor(target, programs));
  BASIN_ASSIGN_OR_RETURN(const Bundle bundle, BundleFor(target, BASIN_VERSION));
  return MakeSshLauncher(target, BASIN_VERSION, bundle);
}

absl::StatusOr<std::unique_ptr<Launcher>> LauncherToTakeOver(const CommandContext& context, const Target& target) {
  if (target.kind != TargetKind::kSsh) return LauncherFor(context, target, "");
  return MakeSshLauncher(target, BASIN_VERSION, Bundle());
}

std::string ProgramFor(const Target& target, const std::string& programs) {
  if (!programs.empty()) return AbsolutePath(programs) + "/basin";
  if (!target.programs.empty()) return target.programs + "/basin";
  std::error_code error;
  const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? "basin" : own.string();
}

absl::StatusOr<Job> ReadJobFile(const std::string& path, const JobOverrides& overrides) {
  constexpr size_t kMostMebibytes = 2;
  const absl::StatusOr<std::string> text = ReadFile(path, kMostMebibytes << 20);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(
        absl::StrCat("job file ", path, " does not exist; give the path of one, such as job.yaml"));
  }
  if (absl::IsResourceExhausted(text.status())) {
    return absl::InvalidArgumentError(absl::StrCat("job file ", path, " is larger than ", kMostMebibytes,
                                                   " MiB; is it another file? Data go under inputs, by their paths"));
  }
  if (!text.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("job file ", path, " cannot be read: ", text.status().message(), "; give a file that can"));
  }
  BASIN_ASSIGN_OR_RETURN(Job job, ParseJob(*text, path, overrides));
  for (const std::string& warning : job.warnings) Warn(warning);
  return job;
}

std::string FolderOf(const std::string& file) {
  return std::filesystem::path(AbsolutePath(file)).parent_path().string();
}

RunLimits LimitsFor(const Job& job, const Target& target, bool detached) {
  RunLimits limits;
  limits.cancel_grace = absl::Seconds(job.cancel_grace_seconds);
  if (job.max_run_duration_seconds > 0) limits.max_duration = absl::Seconds(job.max_run_duration_seconds);
  limits.ping = target.ping;
  limits.lease = target.lease;
  if (detached) limits.detach_grace = target.detach_grace;
  return limits;
}

SuperviseOptions OptionsFor(const CommandContext& context, const RunLimits& limits, const RunFolder& folder) {
  SuperviseOptions options;
  options.limits = limits;
  options.terminal_width = TerminalWidth();
  options.open_stats = [&context, token = folder.TokenPath()](const Plan& plan) -> std::unique_ptr<StatsSource> {
    const std::string ps = FirstPsAddress(plan);
    if (ps.empty()) return nullptr;
    auto source = context.open_stats({ps, token, plan.run_id});
    if (source.ok()) return *std::move(source);
    Warn(absl::StrCat("progress cannot be shown: ", source.status().message()));
    return nullptr;
  };
  return options;
}

int TerminalWidth() {
  winsize size = {};
  if (isatty(STDERR_FILENO) == 0) return 0;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 80;
  return size.ws_col;
}

}  // namespace basin
