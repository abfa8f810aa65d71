// What the commands about runs have in common: where runs are, and which one is meant.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/commands/commands.h"
#include "estimator/history/run_list.h"

namespace basin {

// Of the command line; `run` is unused by commands about all runs.
struct RunFlags {
  std::string runs;
  std::string run;
  bool json = false;
};

// Adds RUN, --runs and --json. `flags` must outlive the command line.
void AddRunOption(CLI::App& command, RunFlags* flags);
void AddRunsOption(CLI::App& command, RunFlags* flags);
void AddJsonOption(CLI::App& command, RunFlags* flags, const std::string& help);

// --runs, else BASIN_RUNS, else ~/.local/state/basin/runs; absolute. INVALID_ARGUMENT where there is no HOME either.
absl::StatusOr<std::string> RunsFolderOf(const CommandContext& context, const std::string& flag);
// Makes the folder of a new run in `runs`. An error says how to name another.
absl::Status CreateRunFolder(const RunFolder& folder, const std::string& runs);
// The cache file of this user and host; empty where there is no HOME.
std::string IndexPathOf(const CommandContext& context);
// Warns where `latest` passes over a newer run, whose record is damaged.
absl::StatusOr<RunFolder> RunOf(const CommandContext& context, const RunFlags& flags);
// FAILED_PRECONDITION there, for what cannot be taken back.
absl::StatusOr<RunFolder> CertainRunOf(const CommandContext& context, const RunFlags& flags);

// "worker-1 " filled up with blanks, wide enough for a column of `width` characters.
std::string Column(absl::string_view text, size_t width);
// Without control characters, which a terminal would obey.
std::string ForTerminal(absl::string_view text);
std::string AgeText(absl::Duration age);

}  // namespace basin
