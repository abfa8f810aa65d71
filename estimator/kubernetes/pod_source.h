// The source of a pod's task, as its manifest brings it: packed in a ConfigMap, in the image, or on a claim.
#pragma once

#include <deque>
#include <optional>

#include "absl/status/statusor.h"
#include "estimator/agent/messages.h"
#include "estimator/kubernetes/pod_plan.h"
#include "estimator/snapshot/unpack.h"

namespace basin {

struct PodSource {
  std::optional<agent::ToAgent> offer;   // none: the task begins in an empty folder
  std::deque<agent::ToAgent> tree;       // what follows where the agent lacks it
  std::optional<StagedSnapshot> staged;  // the agent, whose base it is in, has it; held as long as this lives
};

// `base`: of the pod's agent, where a folder of the image or of a claim is put as a snapshot.
absl::StatusOr<PodSource> ReadPodSource(const PodPlan& plan, const std::string& base);

}  // namespace basin
