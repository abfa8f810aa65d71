// What is wrong with the words of a command line, beyond what its parser sees.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace basin {

// Refuses the option's value where it is empty: `--hosts "$HOSTS"` without HOSTS must not count as not given.
CLI::Option* NotEmpty(CLI::Option* option);

// Refuses what is no whole number of int64_t, or below `least`: the parser takes -1 for a size, and cuts what is too
// large.
CLI::Option* WholeNumber(CLI::Option* option, int64_t least);

// INVALID_ARGUMENT, with the nearest that there is, where the first words name no command: `basin sumbit job.yaml`,
// `basin models regster`. The parser speaks of a missing one there, and of none before --help.
absl::Status CheckCommand(CLI::App& app, const std::vector<std::string>& words);

// The command's own flag that is nearest to `word` ("--detatch"); empty where none is near.
std::string NearestFlag(const CLI::App& command, const std::string& word);

// What the parser says of `words`, which it has refused, for one line: with the command, and the nearest flag.
std::string ParseComplaint(const CLI::App& app, const std::vector<std::string>& words, const std::string& complaint);

// The last line of a command's help, where its exit codes mean no more than this.
inline constexpr char kUsualExitCodes[] = "Exit code: 0 done, 1 failed, 2 wrong input.";

}  // namespace basin
