// `basin submit` and its kin for targets of kind kubernetes.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "estimator/commands/commands.h"
#include "estimator/history/run_history.h"
#include "estimator/run/supervisor.h"

namespace basin {

// Completes run->target with what the job says over it and how the cluster runs jobs, and makes the plan. In a dry run
// a cluster that does not answer is taken for one with JobSet.
absl::Status PlanPods(SupervisedRun* run, const std::string& run_id, bool dry_run);

// The source as a ConfigMap holds it; empty where it does not travel so. `never`: folders that are no part of it.
absl::StatusOr<std::string> PackedSource(const CommandContext& context, const SupervisedRun& run,
                                         const std::vector<std::string>& never, RunHistory* history);

// What would be created, on standard output: YAML, or a List in JSON. Secrets are not shown.
absl::Status PrintManifests(const CommandContext& context, const SupervisedRun& run, bool json);

// A new run, or with `packed_source` null one that is taken over.
absl::StatusOr<RunOutcome> SuperviseOnPods(const SupervisedRun& run, const std::string* packed_source,
                                           const RunFolder& folder, RunHistory& history,
                                           const SuperviseOptions& options);

}  // namespace basin
