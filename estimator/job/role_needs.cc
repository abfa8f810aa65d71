#include "estimator/job/role_needs.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/format/yaml_fields.h"
#include "estimator/job/plan.h"

namespace basin {
namespace {

constexpr Role kInOrder[] = {Role::kPs, Role::kChief, Role::kWorker, Role::kEvaluator};

RoleResources ResourcesOf(const Job& job, Role role) {
  const auto found = job.roles.find(role);
  return found == job.roles.end() ? RoleResources() : found->second;
}

int CountOf(const TaskCounts& counts, Role role) {
  switch (role) {
    case Role::kPs:
      return static_cast<int>(counts.ps);
    case Role::kChief:
      return static_cast<int>(counts.chief);
    case Role::kWorker:
      return static_cast<int>(counts.worker);
    case Role::kEvaluator:
      return static_cast<int>(counts.evaluator);
    case Role::kMpirun:
    case Role::kOrted:
      break;  // they wait, and need next to nothing
  }
  return 0;
}

std::vector<NodeNeeds> NeedsByNode(const Job& job) {
  std::vector<NodeNeeds> needs;
  for (const std::map<Role, int>& tasks : TasksByNode(CountsOf(job), job.node_count)) {
    NodeNeeds node{0, 0, 0};
    int trainers = 0;
    for (const auto& [role, count] : tasks) {
      if (std::find(std::begin(kInOrder), std::end(kInOrder), role) == std::end(kInOrder)) continue;  // mpirun's
      const RoleResources resources = ResourcesOf(job, role);
      node.cpus += count * std::max(1, resources.cpus);
      node.memory_bytes += count * resources.memory_bytes;
      trainers += Trains(role) ? count : 0;
    }
    if (job.use_gpu) {
      const int each = std::max(1, ResourcesOf(job, Role::kWorker).gpus);
      node.gpus = (trainers * each + job.workers_per_gpu - 1) / job.workers_per_gpu;
    }
    needs.push_back(node);
  }
  return needs;
}

absl::Status CheckRole(const YamlFields& fields, const Job& job, Role role, int tasks) {
  const RoleResources resources = ResourcesOf(job, role);
  const absl::string_view name = Name(role);
  if (tasks == 0) {
    return fields.ErrorAt("roles", absl::StrCat(name, ": the job has no task of that role; remove it"));
  }
  if (resources.nodes > 0 && job.backend != Backend::kPs) {
    return fields.ErrorAt("roles", absl::StrCat(name,
                                                ".nodes: only the ps backend has roles with nodes of their own; "
                                                "remove it, and set node_count"));
  }
  if (resources.gpus > 0 && role == Role::kChief) {
    return fields.ErrorAt("roles", "chief.gpus: a chief has as many as a worker; set worker.gpus");
  }
  if (resources.gpus > 0 && !Trains(role)) {
    return fields.ErrorAt("roles", absl::StrCat(name, ".gpus: GPUs go to workers and the chief alone; remove it"));
  }
  if (resources.gpus > 0 && !job.use_gpu) {
    return fields.ErrorAt("roles", absl::StrCat(name, ".gpus: found ", resources.gpus,
                                                ", but use_gpu is false; set use_gpu: true, or remove it"));
  }
  if (resources.gpus > 1 && job.workers_per_gpu > 1) {
    return fields.ErrorAt("roles", absl::StrCat(name, ".gpus: ", resources.gpus, " conflicts with workers_per_gpu: ",
                                                job.workers_per_gpu, "; remove one of the two"));
  }
  if (resources.nodes > tasks) {
    return fields.ErrorAt("roles", absl::StrCat(name, ".nodes: ", resources.nodes, " nodes for ", tasks,
                                                tasks == 1 ? " task" : " tasks", "; set nodes: ", tasks));
  }
  return absl::OkStatus();
}

std::string NeedsText(const NodeNeeds& needs) {
  return absl::StrCat(needs.cpus, needs.cpus == 1 ? " CPU" : " CPUs",
                      needs.memory_bytes > 0 ? absl::StrCat(", ", needs.memory_bytes >> 20, " MiB") : "",
                      needs.gpus > 0 ? absl::StrCat(", ", needs.gpus, needs.gpus == 1 ? " GPU" : " GPUs") : "");
}

}  // namespace

std::map<Role, NodeSpan> SpansOf(const Job& job) {
  std::map<Role, NodeSpan> spans;
  int first = 0;
  for (const Role role : kInOrder) {
    const int nodes = ResourcesOf(job, role).nodes;
    if (nodes == 0) continue;
    spans[role] = {first, nodes};
    first += nodes;
  }
  for (const Role role : {Role::kChief, Role::kEvaluator}) {
    if (spans.count(Role::kWorker) > 0 && spans.count(role) == 0) spans[role] = spans[Role::kWorker];
  }
  return spans;
}

absl::Status CheckRoleResources(const YamlFields& fields, const Job& job) {
  const TaskCounts counts = CountsOf(job);
  for (const auto& [name, amounts] : job.kubernetes.resources) {
    const bool is_there = std::any_of(std::begin(kInOrder), std::end(kInOrder), [&, name = name](Role role) {
      return Name(role) == name && CountOf(counts, role) > 0;
    });
    if (is_there) continue;
    return fields.ErrorAt("kubernetes",
                          absl::StrCat("resources.", name, ": the job has no task of that role; remove it"));
  }
  if (job.roles.empty()) return absl::OkStatus();
  int nodes = 0;
  bool all_have_nodes = true;
  std::string partition = job.slurm.partition, whose = "slurm.partition";
  for (const Role role : kInOrder) {
    const int tasks = CountOf(counts, role);
    const RoleResources resources = ResourcesOf(job, role);
    if (job.roles.count(role) > 0) BASIN_RETURN_IF_ERROR(CheckRole(fields, job, role, tasks));
    nodes += resources.nodes;
    all_have_nodes = all_have_nodes && (tasks == 0 || counts.spans.count(role) > 0);
    if (resources.partition.empty()) continue;
    const std::string name = absl::StrCat(Name(role), ".partition");
    if (!partition.empty() && partition != resources.partition) {
      return fields.Unimplemented(
          "roles", absl::StrCat(name, ": ", resources.partition, " differs from ", whose, ": ", partition,
                                "; nodes of several partitions would need a heterogeneous Slurm job, which this "
                                "version cannot submit; name one partition"));
    }
    partition = resources.partition;
    whose = absl::StrCat("roles.", name);
  }
  if (nodes > job.node_count || (all_have_nodes && nodes < job.node_count)) {
    return fields.ErrorAt("roles", absl::StrCat("nodes: the roles take ", nodes, nodes == 1 ? " node" : " nodes",
                                                ", and node_count is ", job.node_count, "; set node_count: ", nodes));
  }
  const std::vector<NodeNeeds> needs = NeedsByNode(job);
  if (nodes == 0) return absl::OkStatus();
  for (size_t i = 1; i < needs.size(); ++i) {
    if (NeedsText(needs[i]) == NeedsText(needs[0])) continue;
    return fields.Unimplemented(
        "roles", absl::StrCat("node 0 would need ", NeedsText(needs[0]), ", and node ", i, " ", NeedsText(needs[i]),
                              "; nodes that differ would need a heterogeneous Slurm job, which this version cannot "
                              "submit; give the roles the same a node, or remove `nodes`, so that they share all"));
  }
  return absl::OkStatus();
}

NodeNeeds NeedsOfNodes(const Job& job) {
  NodeNeeds most;
  for (const NodeNeeds& node : NeedsByNode(job)) {
    most.cpus = std::max(most.cpus, node.cpus);
    most.memory_bytes = std::max(most.memory_bytes, node.memory_bytes);
    most.gpus = std::max(most.gpus, node.gpus);
  }
  return most;
}

absl::Status CheckNodeMemory(const Job& job) {
  for (const std::map<Role, int>& tasks : TasksByNode(CountsOf(job), job.node_count)) {
    std::vector<std::string> with, without;
    for (const Role role : kInOrder) {
      if (tasks.count(role) > 0)
        (ResourcesOf(job, role).memory_bytes > 0 ? with : without).push_back(std::string(Name(role)));
    }
    if (with.empty() || without.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "roles: ", with.front(), ".memory: ", absl::StrJoin(without, " and "),
        " tasks share a node with it and say nothing of memory, so Slurm would be asked for too little; set roles: {",
        without.front(), ": {memory: 1GiB}} and its like too, or remove all memory"));
  }
  return absl::OkStatus();
}

std::string NodesWithoutTask(const Job& job, const std::vector<std::string>& names) {
  const std::vector<std::map<Role, int>> tasks = TasksByNode(CountsOf(job), job.node_count);
  std::vector<std::string> idle;
  for (size_t node = 0; node < tasks.size(); ++node) {
    if (tasks[node].empty()) idle.push_back(names[node]);
  }
  if (idle.empty()) return "";
  return absl::StrCat(idle.size() == 1 ? "node " : "nodes ", absl::StrJoin(idle, ", "),
                      idle.size() == 1 ? " has no task: set node_count: " : " have no task: set node_count: ",
                      tasks.size() - idle.size(), ", or more tasks (worker_count), or roles' nodes");
}

std::string PartitionOfRoles(const Job& job) {
  for (const auto& [role, resources] : job.roles) {
    if (!resources.partition.empty()) return resources.partition;
  }
  return "";
}

}  // namespace basin
