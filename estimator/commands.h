// The subcommands of `basin`, one file each. main.cc reads the environment and hands it down.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/stats.h"

namespace CLI {
class App;
}

namespace basin {

struct StatsAddress {
  std::string ps;          // host:port of ps 0
  std::string token_file;  // empty: a cluster without a token
  std::string run_id;      // empty: whatever runs there
};
// Makes an observer of a living cluster, which need not be reachable yet.
using StatsOpener = std::function<absl::StatusOr<std::unique_ptr<StatsSource>>(const StatsAddress& address)>;

// What the commands take from outside: the environment's variables, and how to observe a cluster.
struct CommandContext {
  std::optional<std::string> tf_config;
  std::string home;        // HOME
  std::string path;        // PATH
  std::string runs;        // BASIN_RUNS
  std::string run_id;      // BASIN_RUN_ID
  std::string token_file;  // BASIN_TOKEN_FILE
  StatsOpener open_stats;
};

// Each adds one subcommand, whose callback leaves the program's exit code in *exit_code. `context` must outlive `app`.
void AddSubmit(CLI::App& app, const CommandContext& context, int* exit_code);
void AddCluster(CLI::App& app, const CommandContext& context, int* exit_code);
void AddTop(CLI::App& app, const CommandContext& context, int* exit_code);

// `basin guard --grace-ms N -- PROGRAM ARGUMENT...`: internal, started by the launcher (guard.h).
int GuardCommand(const std::vector<std::string>& arguments);

// "basin: MESSAGE" on standard error; returns the exit code that fits.
int Complain(const absl::Status& status);

}  // namespace basin
