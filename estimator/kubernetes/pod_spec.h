// The spec of the pods of one role. Pure; for manifests.cc.
#pragma once

#include <nlohmann/json.hpp>

#include "estimator/kubernetes/manifests.h"

namespace basin {

// With the overlay merged into it. INVALID_ARGUMENT where that would take from the pod what Basin needs in it.
absl::StatusOr<nlohmann::ordered_json> PodSpecOf(const ManifestInput& input, Role role);

}  // namespace basin
