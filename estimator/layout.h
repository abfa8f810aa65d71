// Which task runs on which node: pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace basin {

enum class TaskRole { kPs, kChief, kWorker, kEvaluator };
// As in TF_CONFIG: "ps", "chief", "worker", "evaluator".
const char* TaskRoleName(TaskRole role);

struct TaskName {
  TaskRole role = TaskRole::kWorker;
  int index = 0;
  // "worker 1", as in messages.
  std::string Text() const;
  // "worker-1", as in file names.
  std::string FileStem() const;
  friend bool operator==(const TaskName&, const TaskName&) = default;
};

struct TaskCounts {
  int ps = 0;
  int chief = 0;
  int worker = 0;
  int evaluator = 0;
};

// A machine of the target, with the ports that tasks may take there, the preferred first.
struct NodePorts {
  std::string host;
  std::vector<int> free_ports;
};

struct PlacedTask {
  TaskName name;
  int node = 0;
  std::string host;
  int port = 0;  // 0 for the evaluator: it stands outside the cluster and listens nowhere
};

// Round robin over the nodes from node 0: ps first, then chief, workers, evaluator; each takes its node's next free port.
// RESOURCE_EXHAUSTED where a node has too few.
absl::StatusOr<std::vector<PlacedTask>> LayOut(const TaskCounts& counts, const std::vector<NodePorts>& nodes);

}  // namespace basin
