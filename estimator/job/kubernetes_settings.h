// How a job runs on Kubernetes: what a target of that kind says, and what a job's group `kubernetes` says otherwise.
// Pure values; the reader is read_kubernetes.cc.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cluster_spec/cluster_spec.h"

namespace YAML {
class Node;
}

namespace basin {

// Labels that Basin gives its objects, and by which it looks for them and deletes them: no job may set them.
inline constexpr char kRunLabel[] = "basin-run";
inline constexpr char kRoleLabel[] = "basin-role";
inline constexpr char kManagedByLabel[] = "app.kubernetes.io/managed-by";

// Where something stands in its file, "job.yaml:7:3: ", for messages. It is not stored, and in comparisons of no
// weight.
struct PlaceInFile {
  std::string text;
  bool operator==(const PlaceInFile&) const { return true; }
};

// Each field is empty where it is not given.
struct KubernetesSettings {
  std::string kubectl;     // the program; default: kubectl of PATH
  std::string kubeconfig;  // its --kubeconfig
  std::string context;     // its --context
  std::string name_space;  // field `namespace`; default: that of the context
  std::string controller;  // "jobset", "jobs"; default: jobset where the cluster has it
  std::string image;       // of every pod
  std::string image_pull_policy;
  std::string programs;  // folder of basin in the image; default: found on its PATH
  std::string service_account;
  std::vector<std::string> pull_secrets;
  std::string source;    // "configmap" (default), "image:/PATH", "claim:NAME" or "claim:NAME/PATH"
  std::string outputs;   // "exec" (default), "none", "claim:NAME" or "claim:NAME/PATH"
  std::string shm_size;  // of /dev/shm, a quantity: "2Gi"
  // By role, then by resource: {"worker", {{"cpu", "4"}, {"memory", "8Gi"}}}. Requests and limits alike.
  std::vector<std::pair<std::string, std::vector<std::pair<std::string, std::string>>>> resources;
  std::vector<std::pair<std::string, std::string>> labels;  // of every object and pod
  std::string pod_overlay;                                  // JSON, merged into each pod's spec; empty: nothing
  PlaceInFile pod_overlay_place;
  std::optional<int> pull_seconds;  // how long an image may fail to be pulled

  bool operator==(const KubernetesSettings&) const = default;
};

// The names of the group's fields.
const std::vector<std::string>& KubernetesFieldNames();
// `path`: where the mapping stands in the file, for messages. INVALID_ARGUMENT with line, column and field.
absl::Status ReadKubernetesSettings(const YAML::Node& node, const std::string& file, const std::string& path,
                                    KubernetesSettings* out);
// What `over` gives wins, field by field.
KubernetesSettings MergedSettings(KubernetesSettings base, const KubernetesSettings& over);
// A JSON object in the fields' names, which reads back as the same settings.
std::string KubernetesSettingsToJson(const KubernetesSettings& settings);

}  // namespace basin
