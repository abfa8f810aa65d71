// What the pods of one role are told, in a ConfigMap: their piece of the plan, and what they need before it. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/job/job.h"
#include "estimator/job/kubernetes_settings.h"
#include "estimator/job/plan.h"

namespace basin {

// Where a pod finds what its manifest mounts.
inline constexpr char kPodPlanFolder[] = "/run/basin/plan";        // plan.json
inline constexpr char kPodTokenFolder[] = "/run/basin/token";      // token
inline constexpr char kPodArchiveFolder[] = "/run/basin/archive";  // source
inline constexpr char kPodSourceFolder[] = "/run/basin/source";    // a claim with the source
inline constexpr char kPodKeptFolder[] = "/run/basin/kept";        // a claim for outputs
inline constexpr char kPodWorkFolder[] = "/run/basin/work";        // Basin's own folder in the pod
inline constexpr int kPodPort = 2222;
// What a pod has to end in, over the job's own grace: for its agent to tell of the end.
inline constexpr int kPodFarewellSeconds = 15;

// One pod's variables that say who it is; its index is Kubernetes' own JOB_COMPLETION_INDEX.
inline constexpr char kPodIpVariable[] = "BASIN_POD_IP";

// "claim:NAME/PATH", "image:/PATH", or a word alone.
struct PodPlace {
  std::string kind;  // "configmap", "image", "claim", "exec", "none"
  std::string claim;
  std::string path;  // image: absolute; claim: below it, may be empty
};
PodPlace ParsePodPlace(const std::string& text, const std::string& otherwise);

struct PodPlan {
  std::string version;  // of the submitting Basin, which the pod's must be
  std::string run_id;
  Role role = Role::kWorker;
  std::vector<JobInput> inputs;
  std::vector<std::string> setup;
  std::string environment_spec;  // empty: nothing is prepared
  int cancel_grace_seconds = 5;
  // The source: "" (none), "archive" (kPodArchiveFolder), or "folder" at source_path.
  std::string source;
  std::string source_path;
  int64_t source_limit_mb = 300;
  // Outputs: "exec" (fetched through it, waited for), "none", or "folder" (copied to kept_path).
  std::string outputs;
  std::string kept_path;
  int wait_seconds = 600;          // for whoever fetches the outputs
  std::vector<PlannedTask> tasks;  // of this role, in order of index
};

// Of `plan`, what the pods of `role` need.
PodPlan PodPlanOf(const Job& job, const Plan& plan, Role role, const KubernetesSettings& settings,
                  const std::string& environment_spec, int wait_seconds);
// The cluster, which all tasks share, is written once. Reads back as the same.
std::string PodPlanToJson(const PodPlan& plan);
absl::StatusOr<PodPlan> ParsePodPlan(absl::string_view json);

}  // namespace basin
