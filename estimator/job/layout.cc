#include "estimator/job/layout.h"

#include "absl/strings/str_cat.h"

namespace basin {
namespace {

// Calls `place(name, node)` for each task, in the order of a plan.
template <typename Place>
void ForEachTask(const TaskCounts& counts, int nodes, const Place& place) {
  const std::pair<Role, uint32_t> in_order[] = {{Role::kPs, counts.ps},
                                                {Role::kChief, counts.chief},
                                                {Role::kWorker, counts.worker},
                                                {Role::kEvaluator, counts.evaluator}};
  const uint32_t ranks = counts.ranks_per_node;
  for (const auto& [role, count] : in_order) {
    const auto found = counts.spans.find(role);
    const NodeSpan span = found == counts.spans.end() ? NodeSpan{0, nodes} : found->second;
    for (uint32_t index = 0; index < count; ++index) {
      const uint32_t node =
          ranks > 0 ? index / ranks : static_cast<uint32_t>(span.first) + index % static_cast<uint32_t>(span.count);
      place(TaskId{role, index}, static_cast<int>(node));
    }
  }
  for (int node = 0; ranks > 0 && node < nodes; ++node) {
    place(TaskId{node == 0 ? Role::kMpirun : Role::kOrted, static_cast<uint32_t>(node)}, node);
  }
}

bool Listens(const TaskCounts& counts, const TaskId& name) {
  return counts.in_cluster && name.role != Role::kEvaluator;
}

}  // namespace

absl::StatusOr<std::vector<PlacedTask>> LayOut(const TaskCounts& counts, const std::vector<NodePorts>& nodes,
                                               bool node_per_task) {
  if (nodes.empty()) return absl::InvalidArgumentError("layout: no node to place tasks on");
  std::vector<size_t> ports_taken(nodes.size(), 0);
  std::vector<PlacedTask> tasks;
  absl::Status status;
  ForEachTask(counts, static_cast<int>(nodes.size()), [&](const TaskId& name, int node) {
    if (node_per_task) node = static_cast<int>(tasks.size());
    PlacedTask task{name, node, nodes[node].host, 0};
    if (Listens(counts, name)) {
      const std::vector<int>& ports = nodes[node].free_ports;
      if (ports_taken[node] < ports.size()) {
        task.port = ports[ports_taken[node]++];
      } else if (status.ok()) {
        status = absl::ResourceExhaustedError(absl::StrCat(name.Sentence(), ": no free port left on ", task.host, " (",
                                                           ports.size(), " found); widen network.ports"));
      }
    }
    tasks.push_back(std::move(task));
  });
  if (!status.ok()) return status;
  return tasks;
}

std::vector<int> PortsTaken(const TaskCounts& counts, int nodes) {
  std::vector<int> taken(nodes, 0);
  ForEachTask(counts, nodes, [&](const TaskId& name, int node) { taken[node] += Listens(counts, name) ? 1 : 0; });
  return taken;
}

std::vector<std::map<Role, int>> TasksByNode(const TaskCounts& counts, int nodes) {
  std::vector<std::map<Role, int>> tasks(nodes);
  ForEachTask(counts, nodes, [&](const TaskId& name, int node) { ++tasks[node][name.role]; });
  return tasks;
}

}  // namespace basin
