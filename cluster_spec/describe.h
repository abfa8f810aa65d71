// What this machine's TF_CONFIG means, for `basin cluster show`.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cluster_spec/cluster_view.h"
#include "cluster_spec/tf_config.h"

namespace basin {

// Several lines: role, index, chief, addresses, warnings, and what is wrong. Where `view` is an error, the jobs are
// shown as they stand in TF_CONFIG.
std::string Describe(const TfConfig& config, const absl::StatusOr<ClusterView>& view);
// The same facts as one JSON object on one line. `valid` is always there, `error` where it is false.
std::string DescribeJson(const TfConfig& config, const absl::StatusOr<ClusterView>& view);

}  // namespace basin
