// Which rank has which role under `basin exec`: pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster_spec/cluster_spec.h"

namespace basin {

// Ranks in this order: ps, chief, workers, evaluator.
struct ExecLayout {
  uint32_t size = 0;  // ranks
  uint32_t ps = 1;
  bool chief = false;
  bool evaluator = false;

  bool operator==(const ExecLayout&) const = default;
  uint32_t workers() const { return size - ps - (chief ? 1 : 0) - (evaluator ? 1 : 0); }
};

// INVALID_ARGUMENT: no ps, or no rank is left to train; says how many ranks there must be.
absl::Status Check(const ExecLayout& layout);

// REQUIRES: Check(layout) is OK, rank < layout.size.
TaskId TaskOfRank(const ExecLayout& layout, uint32_t rank);

// The cluster of TF_CONFIG. `addresses`: host:port by rank; the evaluator's is not used.
absl::StatusOr<ClusterSpec> ClusterOf(const ExecLayout& layout, const std::vector<std::string>& addresses);

}  // namespace basin
