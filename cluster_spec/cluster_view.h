// What a Basin program takes from TF_CONFIG: who am I, who is the chief, where are the others. All platforms' shapes
// come out in this one form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster_spec/cluster_spec.h"
#include "cluster_spec/tf_config.h"
#include "common/base/ids.h"

namespace basin {

struct Peer {
  // The task's index, not its position in a list.
  uint32_t index = 0;
  std::string address;
  bool operator==(const Peer&) const = default;
};

struct ClusterView {
  TaskId self;
  // host:port; empty for an evaluator outside the cluster and for a standalone task.
  std::string self_address;
  bool is_chief = false;
  // The chief job's task, else worker 0 (which a sparse cluster may not list).
  TaskId chief;
  // There is no cluster: one process trains alone.
  bool standalone = false;

  // By PsOrdinal, in the order of task indices. Where `knows_all_ps` is false it holds only this task itself, and
  // self_ps is still its ordinal among all.
  std::vector<Peer> ps;
  // False for a ps that TF_CONFIG tells of no other task (Kubeflow's enableDynamicWorker); clients know the others.
  bool knows_all_ps = true;
  // Set where self is a ps.
  std::optional<PsOrdinal> self_ps;

  // Of the job `worker`, by index; the chief job's task is not among them. With enableDynamicWorker a worker sees
  // itself only and a ps sees none.
  std::vector<Peer> workers;
  // The chief job's address, where there is one.
  std::optional<std::string> chief_address;
  // Where the cluster lists an evaluator; else it is outside, or there is none.
  std::optional<std::string> evaluator_address;

  // TF_CONFIG's own, and what is odd about the cluster.
  std::vector<std::string> warnings;

  // The chief job's task first, then the workers: those that train.
  std::vector<TaskId> trainers() const;
};

// InvalidArgument, with job, index, address, what was expected and what to change.
absl::StatusOr<ClusterView> Resolve(const TfConfig& config, const TaskOverrides& overrides = {});

}  // namespace basin
