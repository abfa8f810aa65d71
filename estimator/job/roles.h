// What the group `roles:` of a job says about the tasks of a role. Pure values.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "cluster_spec/cluster_spec.h"

namespace basin {

class YamlFields;

struct RoleResources {
  int nodes = 0;             // how many nodes its tasks have to themselves; 0: they go over all nodes of the run
  std::string partition;     // of Slurm
  int cpus = 0;              // of each task; 0: not said, as with the next two
  int64_t memory_bytes = 0;  // of each task
  int gpus = 0;              // of each task
  bool operator==(const RoleResources&) const = default;
};

// By role; those that are not named are not in it.
using Roles = std::map<Role, RoleResources>;

// Reads the group `roles` of `fields` where it is given: {ps: {cpus: 8, memory: 40GiB}, worker: {gpus: 1}}.
absl::Status ReadRoles(const YamlFields& fields, const std::string& file, Roles* out);
// The group as JSON; "" where nothing is set.
std::string RolesToJson(const Roles& roles);

}  // namespace basin
