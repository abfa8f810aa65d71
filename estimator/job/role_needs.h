// What the roles of a job need of nodes: where their tasks go, and how much a node must have. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "estimator/job/job.h"
#include "estimator/job/layout.h"

namespace basin {

class YamlFields;

// The nodes of the roles that have some to themselves, in the order ps, chief, worker, evaluator. Chief and evaluator
// go with the workers where nothing is said of them.
std::map<Role, NodeSpan> SpansOf(const Job& job);

// Roles that the job does not have, nodes that do not add up, GPUs that nobody would use; and by name what would need a
// heterogeneous job: roles in partitions of their own, or nodes that must differ.
absl::Status CheckRoleResources(const YamlFields& fields, const Job& job);

// Of each node, so that it has enough for the tasks placed there.
struct NodeNeeds {
  int cpus = 1;
  int64_t memory_bytes = 0;  // 0: nothing is said of it
  int gpus = 0;
};
NodeNeeds NeedsOfNodes(const Job& job);
// INVALID_ARGUMENT where roles share a node and only some say how much memory they need: of the others nothing would be
// counted, and Slurm would kill them for what they take.
absl::Status CheckNodeMemory(const Job& job);
// "nodes h2, h3 have no task: set node_count: 2", of a job that asks for more nodes than its tasks go to. Empty where
// each has one. REQUIRES: `names` are the job's node_count nodes.
std::string NodesWithoutTask(const Job& job, const std::vector<std::string>& names);
// The partition that the roles name; empty where none does.
std::string PartitionOfRoles(const Job& job);

}  // namespace basin
