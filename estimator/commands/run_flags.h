// What the commands that start or take over runs have in common: where runs lie, which target, how its agents are
// started.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "estimator/commands/commands.h"
#include "estimator/job/job.h"
#include "estimator/launch/find_target.h"
#include "estimator/launch/launcher.h"
#include "estimator/run/run_state.h"
#include "estimator/run/supervisor.h"

namespace basin {

struct TargetFlags {
  std::string target;   // --target
  std::string hosts;    // --hosts
  std::string targets;  // --targets
  std::string bundle;   // --bundle
};
void AddTargetFlags(CLI::App& command, TargetFlags* flags);

std::string AbsolutePath(const std::string& path);

// `folder`: of the job file, or the current one.
TargetSources SourcesOf(const CommandContext& context, const TargetFlags& flags, const std::string& folder);
// INVALID_ARGUMENT, naming the flag, for a file of --targets or --bundle that is not there, or no targets file.
absl::Status CheckTargetFiles(const TargetFlags& flags);
// --hosts, else --target, else `otherwise`.
absl::StatusOr<Target> ChosenTarget(const CommandContext& context, const TargetFlags& flags,
                                    const std::string& otherwise, const std::string& folder);

// Basin's folder on this machine: the target's where it is local, else BASIN_CACHE, XDG_CACHE_HOME/basin,
// ~/.cache/basin.
absl::StatusOr<std::string> BaseFolder(const CommandContext& context, const Target& target);
// The same, made. An error says how to name another.
absl::StatusOr<std::string> MadeBaseFolder(const CommandContext& context, const Target& target);

// Of `programs`, else of the target's, else this program itself: the basin that runs under Slurm, on every node.
std::string ProgramFor(const Target& target, const std::string& programs);

// The job of a file, with its warnings told.
absl::StatusOr<Job> ReadJobFile(const std::string& path, const JobOverrides& overrides);
// The folder of a file, as an absolute path.
std::string FolderOf(const std::string& file);

// `programs`: where basin-ps lies on this machine if not beside this program; for a local target alone.
absl::StatusOr<std::unique_ptr<Launcher>> LauncherFor(const CommandContext& context, const Target& target,
                                                      const std::string& programs);
// For a run whose agents are there already. Nothing is sent, so that no archive of the programs is needed.
absl::StatusOr<std::unique_ptr<Launcher>> LauncherToTakeOver(const CommandContext& context, const Target& target);

// How a run on `target` is watched.
RunLimits LimitsFor(const Job& job, const Target& target, bool detached);
// Progress on this terminal, by observing ps 0.
SuperviseOptions OptionsFor(const CommandContext& context, const RunLimits& limits, const RunFolder& folder);

// Columns of the terminal on standard error; 0 where it is none.
int TerminalWidth();

// The end of a run for people or as JSON, on standard output.
void PrintOutcome(const RunRecord& record, int64_t last_step, const RunFolder& folder, bool as_json);

}  // namespace basin
