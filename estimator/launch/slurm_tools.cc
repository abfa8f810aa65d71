#include "estimator/launch/slurm_tools.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/agent/channel.h"
#include "estimator/launch/slurm_command.h"

namespace basin {
namespace {

// slurmctld may be busy; what waits longer than that is given up, and asked again later.
constexpr absl::Duration kAskLimit = absl::Seconds(20);
constexpr absl::Duration kSubmitLimit = absl::Seconds(60);

// The SBATCH_* of this process's environment, with their values.
std::map<std::string, std::string> SbatchVariables() {
  std::map<std::string, std::string> found;
  for (char** one = environ; *one != nullptr; ++one) {
    if (!absl::StartsWith(*one, "SBATCH_")) continue;
    found.insert(std::pair<std::string, std::string>(absl::StrSplit(*one, absl::MaxSplits('=', 1))));
  }
  return found;
}

absl::StatusOr<ToolResult> Run(const std::vector<std::string>& argv, absl::Duration limit) {
  absl::StatusOr<ToolResult> result = argv[0] == "sbatch" ? RunSbatch(argv, limit) : RunTool(argv, limit);
  if (absl::IsNotFound(result.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat(argv[0],
                     " is not on PATH: submit from a login node of the Slurm cluster, or install its client "
                     "there (Debian: slurm-client)"));
  }
  return result;
}

absl::Status Done(const std::vector<std::string>& argv) {
  BASIN_ASSIGN_OR_RETURN(const ToolResult result, Run(argv, kAskLimit));
  if (result.exit_code == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(absl::StrJoin(argv, " "), " ended with ", result.exit_code, ": ", LastLines(result.errors)));
}

}  // namespace

absl::StatusOr<ToolResult> RunSbatch(const std::vector<std::string>& argv, absl::Duration limit) {
  const std::map<std::string, std::string> variables = SbatchVariables();
  if (!variables.empty()) {
    std::vector<std::string> names;
    for (const auto& [name, value] : variables) names.push_back(name);
    Warn(absl::StrCat("sbatch is called without ", absl::StrJoin(names, ", "),
                      " of the environment, which would beat the job's own settings; what the job needs of them "
                      "belongs into its group slurm, or the target's"));
  }
  for (const auto& [name, value] : variables) unsetenv(name.c_str());
  const absl::Cleanup restore = [&variables] {
    for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
  };
  return RunTool(argv, limit);
}

absl::StatusOr<std::string> SubmitToSlurm(const std::string& path) {
  // Of an allocation around this process, one that was started again or is heterogeneous: the new job would take them
  // for its own.
  for (const char* name : {"SLURM_RESTART_COUNT", "SLURM_HET_SIZE"}) unsetenv(name);
  // PATH and the secrets are to come along.
  BASIN_ASSIGN_OR_RETURN(const ToolResult result, Run({"sbatch", "--parsable", "--export=ALL", path}, kSubmitLimit));
  const std::pair<std::string, std::string> told =  // "12", or "12;cluster"
      absl::StrSplit(absl::StripAsciiWhitespace(result.printed), absl::MaxSplits(';', 1));
  const auto& [id, cluster] = told;
  const bool is_number = !id.empty() && std::all_of(id.begin(), id.end(), absl::ascii_isdigit);
  if (result.exit_code == 0 && is_number) {
    if (cluster.empty()) return id;
    const absl::Status ended = Done({"scancel", absl::StrCat("--clusters=", cluster), id});
    return absl::FailedPreconditionError(absl::StrCat(
        "sbatch has submitted to the cluster ", cluster, " (SLURM_CLUSTERS), where Basin would not see the job; job ",
        id, ended.ok() ? " is canceled" : absl::StrCat(" is still there (", ended.message(), ")"),
        "; unset SLURM_CLUSTERS, and submit from a login node of that cluster"));
  }
  return absl::FailedPreconditionError(SbatchComplaint(result.errors.empty() ? result.printed : result.errors));
}

absl::StatusOr<std::optional<SlurmJob>> AskSlurm(const std::string& id, absl::Duration limit) {
  BASIN_ASSIGN_OR_RETURN(const ToolResult result, Run({"scontrol", "show", "job", "-o", id}, limit));
  if (result.exit_code != 0) {
    if (absl::StrContains(absl::StrCat(result.errors, result.printed), "Invalid job id")) return std::nullopt;
    return absl::UnavailableError(absl::StrCat("Slurm cannot be asked: scontrol show job ", id, " ended with ",
                                               result.exit_code, ": ", LastLines(result.errors)));
  }
  BASIN_ASSIGN_OR_RETURN(SlurmJob job, ParseSlurmJob(result.printed));
  return job;
}

absl::Status TakeFromQueue(const std::string& id) { return Done({"scancel", "--state=PENDING", id}); }

// SIGINT, for SIGTERM would make Slurm write into the job's log that it was cancelled.
absl::Status TellBatchScript(const std::string& id) { return Done({"scancel", "--batch", "--signal=INT", id}); }

absl::Status EndSlurmJob(const std::string& id) { return Done({"scancel", id}); }

absl::StatusOr<std::vector<std::string>> HostNamesOf(const std::string& node_list) {
  BASIN_ASSIGN_OR_RETURN(const ToolResult result, Run({"scontrol", "show", "hostnames", node_list}, kAskLimit));
  std::vector<std::string> names = ParseHostNames(result.printed);
  if (result.exit_code == 0 && !names.empty()) return names;
  return absl::UnavailableError(absl::StrCat("scontrol show hostnames ", node_list, " ended with ", result.exit_code,
                                             ": ", LastLines(result.errors)));
}

}  // namespace basin
