#include "cluster_spec/tf_config.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cluster_spec/cluster_json.h"
#include "cluster_spec/json_text.h"
#include "common/base/limits.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

using Kind = JsonValue::Kind;

const std::vector<std::string>& KnownKeys() {
  static const auto& keys = *new std::vector<std::string>{
      "cluster",   "task",    "rpc_layer", "environment",  "session_master", "eval_session_master",
      "model_dir", "service", "job",       "sparseCluster"};
  return keys;
}

const std::vector<std::string>& KnownTaskKeys() {
  static const auto& keys = *new std::vector<std::string>{"type", "index", "trial", "cloud"};
  return keys;
}

absl::Status Unexpected(const JsonDocument& document, absl::string_view key, const JsonValue& value,
                        absl::string_view expected, absl::string_view fix) {
  const std::string found = value.kind == Kind::kString || value.kind == Kind::kNumber
                                ? absl::StrCat(Name(value.kind), " ", JsonQuote(value.text))
                                : std::string(Name(value.kind));
  return absl::InvalidArgumentError(
      absl::StrCat(document.Place(value.at), ": ", key, ": expected ", expected, ", found ", found, "; ", fix));
}

// Missing and null leave `out` unset. A number counts as its text where `numbers` says so.
absl::Status ReadText(const JsonDocument& document, absl::string_view path, const JsonValue* value, bool numbers,
                      std::optional<std::string>& out) {
  if (value == nullptr || value->kind == Kind::kNull) return absl::OkStatus();
  if (value->kind != Kind::kString && !(numbers && value->kind == Kind::kNumber))
    return Unexpected(document, path, *value, "a string", "put it in double quotes, or remove it");
  out = value->text;
  return absl::OkStatus();
}

absl::Status ReadIndex(const JsonDocument& document, const JsonValue* value, std::optional<int64_t>& out) {
  if (value == nullptr || value->kind == Kind::kNull) return absl::OkStatus();
  std::optional<int64_t> index;
  if (value->kind == Kind::kString || value->kind == Kind::kNumber) index = ParseIndex(value->text);
  if (!index || *index < 0 || *index >= static_cast<int64_t>(kMaxTasks))
    return Unexpected(document, "task.index", *value, absl::StrCat("an integer from 0 to ", kMaxTasks - 1),
                      "write this task's position in its job, counted from 0");
  out = index;
  return absl::OkStatus();
}

// `master` at the top is no key: as a warning, because unknown keys are to be ignored.
void WarnOfUnknown(const JsonDocument& document, const JsonValue& object, const std::vector<std::string>& known,
                   absl::string_view path, std::vector<std::string>& warnings) {
  for (const JsonMember& member : object.members) {
    bool found = false;
    for (const std::string& key : known) found = found || key == member.key;
    if (found) continue;
    if (path.empty() && RoleOfJob(member.key)) {
      warnings.push_back(absl::StrCat(document.Place(member.at), ": key ", JsonQuote(member.key),
                                      " is ignored here; a job belongs inside \"cluster\""));
    } else if (const auto nearest = Nearest(member.key, known)) {
      warnings.push_back(absl::StrCat(document.Place(member.at), ": key ", JsonQuote(absl::StrCat(path, member.key)),
                                      " is not known and is ignored; did you mean ", JsonQuote(*nearest), "?"));
    }
  }
}

std::string JobNameFor(const ClusterSpec& cluster, Role role) {
  for (const ClusterSpec::Job& job : cluster.jobs()) {
    if (RoleOfJob(job.name) == role && !job.tasks.empty()) return job.name;
  }
  return std::string(Name(role));
}

}  // namespace

std::optional<std::string> TfConfig::type(const TaskOverrides& overrides) const {
  return overrides.task_type ? overrides.task_type : task_type;
}

std::optional<int64_t> TfConfig::index(const TaskOverrides& overrides) const {
  return overrides.task_index ? overrides.task_index : task_index;
}

absl::StatusOr<std::string> TfConfig::master(const TaskOverrides& overrides) const {
  if (session_master) return *session_master;
  if (cluster.empty() || (cluster.jobs().size() == 1 && cluster.jobs()[0].tasks.size() == 1)) return std::string();
  const std::optional<std::string> task = type(overrides);
  const std::optional<int64_t> position = index(overrides);
  if (!task || !position)
    return absl::InvalidArgumentError(
        absl::StrCat("TF_CONFIG: task.", task ? "index" : "type",
                     ": expected to be set, because the cluster has more than one task, found nothing; add "
                     "\"task\": {\"type\": ..., \"index\": ...}"));
  BASIN_ASSIGN_OR_RETURN(const std::string address, cluster.task_address(*task, *position));
  const std::optional<std::string>& layer = overrides.rpc_layer ? overrides.rpc_layer : rpc_layer;
  return layer && !layer->empty() ? absl::StrCat(*layer, "://", address) : address;
}

absl::StatusOr<TfConfig> ParseTfConfig(absl::string_view json, absl::string_view source) {
  BASIN_ASSIGN_OR_RETURN(JsonDocument document, ParseJson(json, source));
  const JsonValue& root = document.root;
  if (root.kind != Kind::kObject)
    return Unexpected(document, "the whole text", root, "an object", "write {\"cluster\": {...}, \"task\": {...}}");
  TfConfig out;
  out.warnings = document.warnings;
  WarnOfUnknown(document, root, KnownKeys(), "", out.warnings);
  // Kubeflow's operator calls it so where a TFJob has enableDynamicWorker.
  const JsonValue* cluster = root.Find("cluster");
  if (cluster == nullptr) cluster = root.Find("sparseCluster");
  if (cluster != nullptr) {
    BASIN_ASSIGN_OR_RETURN(out.cluster, ReadCluster(document, *cluster));
  }
  if (const JsonValue* task = root.Find("task"); task != nullptr && task->kind != Kind::kNull) {
    if (task->kind != Kind::kObject)
      return Unexpected(document, "task", *task, "an object", "write {\"type\": \"worker\", \"index\": 0}");
    WarnOfUnknown(document, *task, KnownTaskKeys(), "task.", out.warnings);
    BASIN_RETURN_IF_ERROR(ReadText(document, "task.type", task->Find("type"), true, out.task_type));
    BASIN_RETURN_IF_ERROR(ReadIndex(document, task->Find("index"), out.task_index));
    BASIN_RETURN_IF_ERROR(ReadText(document, "task.trial", task->Find("trial"), true, out.trial));
    BASIN_RETURN_IF_ERROR(ReadText(document, "task.cloud", task->Find("cloud"), true, out.cloud));
  }
  const std::pair<absl::string_view, std::optional<std::string>*> texts[] = {
      {"rpc_layer", &out.rpc_layer},           {"environment", &out.environment},
      {"session_master", &out.session_master}, {"eval_session_master", &out.eval_session_master},
      {"model_dir", &out.model_dir},
  };
  for (const auto& [key, field] : texts) BASIN_RETURN_IF_ERROR(ReadText(document, key, root.Find(key), false, *field));
  return out;
}

std::string FormatTfConfig(const ClusterSpec& cluster, TaskId task) {
  return absl::StrCat("{\"cluster\": ", cluster.ToJson(),
                      ", \"task\": {\"type\": ", JsonQuote(JobNameFor(cluster, task.role)), ", \"index\": ", task.index,
                      "}}");
}

}  // namespace basin
