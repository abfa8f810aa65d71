#include "estimator/layout.h"

#include "absl/strings/str_cat.h"

namespace basin {

absl::StatusOr<std::vector<PlacedTask>> LayOut(const TaskCounts& counts, const std::vector<NodePorts>& nodes) {
  if (nodes.empty()) return absl::InvalidArgumentError("layout: no node to place tasks on");
  std::vector<size_t> ports_taken(nodes.size(), 0);
  std::vector<PlacedTask> tasks;
  const std::pair<Role, uint32_t> in_order[] = {{Role::kPs, counts.ps},
                                                {Role::kChief, counts.chief},
                                                {Role::kWorker, counts.worker},
                                                {Role::kEvaluator, counts.evaluator}};
  for (const auto& [role, count] : in_order) {
    size_t node = 0;
    for (uint32_t index = 0; index < count; ++index) {
      PlacedTask task{{role, index}, static_cast<int>(node), nodes[node].host, 0};
      if (role != Role::kEvaluator) {
        if (ports_taken[node] == nodes[node].free_ports.size()) {
          return absl::ResourceExhaustedError(absl::StrCat(task.name.Sentence(), ": no free port left on ", task.host,
                                                           " (", ports_taken[node], " found); widen network.ports"));
        }
        task.port = nodes[node].free_ports[ports_taken[node]++];
      }
      tasks.push_back(std::move(task));
      node = (node + 1) % nodes.size();
    }
  }
  return tasks;
}

}  // namespace basin
