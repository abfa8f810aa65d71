// The subcommands of `basin`, one file each. main.cc reads the environment and hands it down.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/run/stats.h"

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
  std::string home;          // HOME
  std::string path;          // PATH
  std::string cache;         // BASIN_CACHE
  std::string xdg_cache;     // XDG_CACHE_HOME
  std::string runs;          // BASIN_RUNS
  std::string run_id;        // BASIN_RUN_ID
  std::string token_file;    // BASIN_TOKEN_FILE
  std::string metrics_file;  // BASIN_METRICS_FILE
  std::string xdg_config;    // XDG_CONFIG_HOME
  // Any variable, for what a job names.
  std::function<std::optional<std::string>(const std::string& name)> variable;
  StatsOpener open_stats;
};

// Each adds one subcommand, whose callback leaves the program's exit code in *exit_code. `context` must outlive `app`.
void AddSubmit(CLI::App& app, const CommandContext& context, int* exit_code);
void AddCluster(CLI::App& app, const CommandContext& context, int* exit_code);
void AddAttach(CLI::App& app, const CommandContext& context, int* exit_code);
void AddCancel(CLI::App& app, const CommandContext& context, int* exit_code);
void AddTargets(CLI::App& app, const CommandContext& context, int* exit_code);
// `basin environment-build --spec FILE --base DIR --result FILE`: internal, started by the agent (build_environment.h).
void AddEnvironment(CLI::App& app, int* exit_code);
// Whether the machines of a target can run jobs.
void AddDoctor(CLI::App& app, const CommandContext& context, int* exit_code);
// Roles for the ranks of a launcher: estimator/exec.
void AddExec(CLI::App& app, const CommandContext& context, int* exit_code);
// `basin supervise FOLDER`: internal, what the script of a batch job starts (launch/slurm_script.h).
int SuperviseCommand(const std::vector<std::string>& arguments, const CommandContext& context);
void AddTop(CLI::App& app, const CommandContext& context, int* exit_code);
// About runs that were submitted: estimator/history.
void AddRuns(CLI::App& app, const CommandContext& context, int* exit_code);
void AddShow(CLI::App& app, const CommandContext& context, int* exit_code);
void AddLogs(CLI::App& app, const CommandContext& context, int* exit_code);
void AddMetrics(CLI::App& app, const CommandContext& context, int* exit_code);
void AddDownload(CLI::App& app, const CommandContext& context, int* exit_code);
void AddDelete(CLI::App& app, const CommandContext& context, int* exit_code);
void AddModels(CLI::App& app, const CommandContext& context, int* exit_code);
void AddMetric(CLI::App& app, const CommandContext& context, int* exit_code);

// `basin guard --grace-ms N -- PROGRAM ARGUMENT...`: internal, started by the launcher (guard.h).
int GuardCommand(const std::vector<std::string>& arguments);

// `basin agent --run ID --node K [--base FOLDER] [--programs FOLDER]`: internal, started by a launcher on each node (agent/relay.h).
int AgentCommand(const std::vector<std::string>& arguments, const CommandContext& context, const std::string& version);

// `basin mpi-rank` and `basin mpi-daemon HOST WORD...`: internal, started by the mpirun of a run (agent/mpi_door.h).
int MpiRankCommand(const CommandContext& context, const char* const* environment);
int MpiDaemonCommand(const std::vector<std::string>& arguments, const CommandContext& context);

// `basin doctor-node [--base FOLDER]`: internal, started by basin doctor on each node (launch/doctor_node.h).
int DoctorNodeCommand();

// "basin: MESSAGE" on standard error; returns the exit code that fits.
int Complain(const absl::Status& status);

}  // namespace basin
