// Which task runs on which node: pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster_spec/cluster_spec.h"

namespace basin {

struct TaskCounts {
  uint32_t ps = 0;
  uint32_t chief = 0;
  uint32_t worker = 0;
  uint32_t evaluator = 0;
};

// A machine of the target, with the ports that tasks may take there, the preferred first.
struct NodePorts {
  std::string host;
  std::vector<int> free_ports;
};

struct PlacedTask {
  TaskId name;
  int node = 0;
  std::string host;
  int port = 0;  // 0 for the evaluator: it stands outside the cluster and listens nowhere
};

// ps first, then chief, workers, evaluator; each role goes round robin over the nodes from node 0, and each task takes
// its node's next free port. RESOURCE_EXHAUSTED where a node has too few.
absl::StatusOr<std::vector<PlacedTask>> LayOut(const TaskCounts& counts, const std::vector<NodePorts>& nodes);

}  // namespace basin
