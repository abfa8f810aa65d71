// Which task runs on which node: pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster_spec/cluster_spec.h"

namespace basin {

inline bool Trains(Role role) { return role == Role::kChief || role == Role::kWorker; }

// Consecutive nodes.
struct NodeSpan {
  int first = 0;
  int count = 0;
};

struct TaskCounts {
  uint32_t ps = 0;
  uint32_t chief = 0;
  uint32_t worker = 0;
  uint32_t evaluator = 0;
  bool in_cluster = true;  // false: tasks that need no TF_CONFIG and listen nowhere
  // With mpi: so many workers on each node, node by node, as mpirun counts ranks; mpirun on the first node, its daemon
  // on each other one. 0: not with mpi.
  uint32_t ranks_per_node = 0;
  std::map<Role, NodeSpan> spans;  // roles whose tasks go over some of the nodes alone; none with mpi
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
  int port = 0;  // 0 for the evaluator, which stands outside the cluster and listens nowhere, and without a cluster
  bool operator==(const PlacedTask&) const = default;
};

// ps first, then chief, workers, evaluator; each role goes round robin over the nodes of its span (without one, over
// all from node 0; with mpi: workers node by node, then mpirun and its daemons), and each task takes its node's next
// free port. `node_per_task`: the first task is on the first node, the second on the second, and so on; REQUIRES: there
// are as many nodes. RESOURCE_EXHAUSTED where a node has too few. REQUIRES: the spans lie within the nodes.
absl::StatusOr<std::vector<PlacedTask>> LayOut(const TaskCounts& counts, const std::vector<NodePorts>& nodes,
                                               bool node_per_task = false);

// How many ports the tasks take on each of `nodes` nodes. REQUIRES: nodes >= 1, and spans within them.
std::vector<int> PortsTaken(const TaskCounts& counts, int nodes);
// The tasks of each role on each of `nodes` nodes.
std::vector<std::map<Role, int>> TasksByNode(const TaskCounts& counts, int nodes);

}  // namespace basin
