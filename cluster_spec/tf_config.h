// TF_CONFIG: what an existing cluster tells each task about itself and the others.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster_spec/cluster_spec.h"

namespace basin {

// What a flag or an argument says; it wins over TF_CONFIG.
struct TaskOverrides {
  std::optional<std::string> task_type;
  std::optional<int64_t> task_index;
  std::optional<std::string> rpc_layer;
};

struct TfConfig {
  ClusterSpec cluster;
  // As written; a number is its text. Whether it is a role is seen in Resolve (cluster_view.h).
  std::optional<std::string> task_type;
  std::optional<int64_t> task_index;
  std::optional<std::string> rpc_layer;
  std::optional<std::string> environment;
  std::optional<std::string> session_master;
  std::optional<std::string> eval_session_master;
  std::optional<std::string> model_dir;
  // Of `task`; set by hyperparameter searches and Google's platforms.
  std::optional<std::string> trial;
  std::optional<std::string> cloud;
  // Leniencies and likely mistakes, each with line and column.
  std::vector<std::string> warnings;

  std::optional<std::string> type(const TaskOverrides& overrides) const;
  std::optional<int64_t> index(const TaskOverrides& overrides) const;
  // TensorFlow's master(): session_master verbatim; empty if there are no jobs, or one job with one task; else the
  // task's address, with "rpc_layer://" in front where that is set. An error where the task is not named, or not in the
  // cluster.
  absl::StatusOr<std::string> master(const TaskOverrides& overrides = {}) const;
};

// The caller passes "{}" where TF_CONFIG is not set; an empty text is an error. `source` is what messages call it.
absl::StatusOr<TfConfig> ParseTfConfig(absl::string_view json, absl::string_view source = "TF_CONFIG");

// The TF_CONFIG of one task, strict JSON on one line; ParseTfConfig and TensorFlow read it back. The task need not be
// in the cluster (an evaluator). Where the cluster has a job with another name for the role (master), that name is
// used.
std::string FormatTfConfig(const ClusterSpec& cluster, TaskId task);

}  // namespace basin
