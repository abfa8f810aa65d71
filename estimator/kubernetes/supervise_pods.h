// The supervisor of a run on Kubernetes. The cluster starts the pods and ends them; the supervisor looks at them
// (kubectl get), reads what they print (kubectl logs -f), and, where a pod's outputs are to be fetched or its task to
// be stopped, speaks with the agent in it (kubectl exec). RunState decides as for every other target.
//
// Unlike elsewhere, nothing in a pod ends because its supervisor is gone: the cluster holds the run, and another
// supervisor goes on with it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/history/run_folder.h"
#include "estimator/history/run_history.h"
#include "estimator/job/kubernetes_settings.h"
#include "estimator/run/supervisor.h"

namespace basin {

struct PodRun {
  KubernetesSettings settings;  // the target's and the job's, with `controller` decided
  // What is created first; empty for a run that is taken over.
  std::vector<nlohmann::ordered_json> manifests;
};

// As Supervise (run/supervisor.h), also in what it demands of its caller. `run.target` is of kind kKubernetes,
// `run.plan` of MakePodPlan.
absl::StatusOr<RunOutcome> SupervisePods(const SupervisedRun& run, const PodRun& pods, const RunFolder& folder,
                                         RunHistory& history, const SuperviseOptions& options);

}  // namespace basin
