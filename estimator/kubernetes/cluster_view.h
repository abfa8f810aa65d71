// What `kubectl get pods,... -o json` says of a run, as far as it matters here. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster_spec/cluster_spec.h"

namespace basin {

struct PodView {
  std::string name;
  std::string node;  // of the cluster; empty until it is scheduled
  bool is_scheduled = false;
  bool is_deleting = false;
  bool is_running = false;  // its container is, or has ended
  bool has_ended = false;
  int exit_code = 0;  // of its container, where has_ended
  // Why it waits or has ended, for people: the scheduler's words, "cannot pull image X: ...", "OOMKilled".
  std::string reason;
  bool cannot_pull = false;   // it waits for an image that does not come
  bool never_starts = false;  // and waiting is no use: no such image by its name, no such Secret
};

struct PodsView {
  std::map<TaskId, PodView> pods;  // of two of one task, the one that is not being deleted, or the newer
  // Why there are fewer pods than tasks: the JobSet is suspended by a queue, a Job could not make them.
  std::string waiting;
  // The JobSet or a Job has failed or was ended by the cluster itself: its reason and message.
  std::string failed;
  bool has_controller = false;  // its JobSet, or a Job of it, is there
};

// INVALID_ARGUMENT for what is no list of Kubernetes.
absl::StatusOr<PodsView> ReadClusterView(absl::string_view json);

// Of `kubectl get events -o json`: the newest warning about what was made for this run; empty where there is none.
std::string NewestWarning(absl::string_view json, absl::string_view object_name);

}  // namespace basin
