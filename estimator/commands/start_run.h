// What starting a run takes, by whomever: `basin submit` here, or the supervisor of a batch job.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/commands/commands.h"
#include "estimator/history/run_history.h"
#include "estimator/run/supervisor.h"
#include "estimator/snapshot/unpack.h"

namespace basin {

// The plan as far as it can be known without asking the nodes. REQUIRES: the target has the job's nodes.
absl::StatusOr<Plan> ProvisionalPlan(const Job& job, const Target& target, const std::string& run_id);

// The values of the job's secrets, from the environment.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadSecrets(const CommandContext& context,
                                                                             const Job& job);

// INVALID_ARGUMENT, naming the ignore file, where the entry script is left out of what goes to the nodes. `target` has
// the job's own settings of Kubernetes, where it is one.
absl::Status CheckScriptTravels(const Job& job, const Target& target);

// What the job's nodes are told of its image, as text; empty where it has none.
std::string ContainerOf(const Job& job, const Target& target);

// The journal's event of a staged snapshot.
void JournalSnapshot(RunHistory& history, const StagedSnapshot& snapshot);
// What StageSnapshot has put into the folder `staged`, and nothing else, once more.
absl::StatusOr<StagedSnapshot> StagedAgain(const std::string& staged, int64_t limit_mb);

// Lets a supervisor within a Slurm allocation know what Slurm does to it; nothing on other targets. `restarts`: of the
// job so far.
void HeedSlurm(const SupervisedRun& run, int restarts, SuperviseOptions* options);

}  // namespace basin
