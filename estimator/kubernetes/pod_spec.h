// The spec of the pods of one role. Pure; for manifests.cc.
#pragma once

#include <nlohmann/json.hpp>

#include "estimator/kubernetes/manifests.h"

namespace basin {

// "worker", "RUN-worker": of the role's ConfigMap.
nlohmann::ordered_json PodSpecOf(const ManifestInput& input, Role role);

}  // namespace basin
