#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "common/format/yaml_fields.h"
#include "estimator/job/job_readers.h"
#include "estimator/job/kubernetes_settings.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostPullSeconds = 24 * 3600;
constexpr size_t kMostLabelBytes = 63;
// Labels that the cluster's controllers give their pods, and look for them by.
constexpr const char* kControllerLabels[] = {"batch.kubernetes.io/", "jobset.sigs.k8s.io/", "job-name",
                                             "controller-uid"};

// A label of DNS: what names of most objects are made of.
bool IsDnsName(absl::string_view text, bool dots) {
  if (text.empty() || text.size() > 253) return false;
  if (!absl::ascii_isalnum(text.front()) || !absl::ascii_isalnum(text.back())) return false;
  return std::all_of(text.begin(), text.end(), [dots](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-' || (dots && c == '.');
  });
}

absl::Status CheckName(const YamlFields& fields, absl::string_view field, const std::string& name, bool dots) {
  if (name.empty() || IsDnsName(name, dots)) return absl::OkStatus();
  return fields.ErrorAt(field, absl::StrCat("\"", name, "\" is no name of Kubernetes: small letters, digits and '-'",
                                            dots ? " and '.'" : ""));
}

// "500m", "4", "1.5", "8Gi".
bool IsQuantity(absl::string_view text) {
  const size_t end = text.find_first_not_of("0123456789.");
  const absl::string_view number = text.substr(0, end);
  double value = 0;
  if (!absl::SimpleAtod(number, &value)) return false;
  const absl::string_view suffix = end == absl::string_view::npos ? "" : text.substr(end);
  const std::vector<absl::string_view> known = {"",  "m",  "k",  "M",  "G",  "T",  "P",
                                                "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  return std::find(known.begin(), known.end(), suffix) != known.end();
}

// What is wrong with an amount of `resource`; empty where nothing is. Kubernetes' m are thousandths, which only of CPUs
// anybody means: of bytes, whoever writes them means what docker calls so.
std::string WrongQuantity(absl::string_view resource, absl::string_view text) {
  if (!IsQuantity(text)) return absl::StrCat("expected a quantity: ", resource == "cpu" ? "4, 500m" : "4, 8Gi");
  if (resource == "cpu" || !absl::EndsWith(text, "m")) return "";
  const absl::string_view number = absl::StripSuffix(text, "m");
  const bool bytes = resource == "memory" || resource == "shm_size" || absl::StrContains(resource, "storage") ||
                     absl::StartsWith(resource, "hugepages-");
  return absl::StrCat("the suffix m means thousandths", bytes ? " of a byte" : "", "; write ", number,
                      bytes ? "Mi" : "");
}

// A label's value, or its name without the prefix.
bool IsLabelWord(absl::string_view text) {
  return !text.empty() && text.size() <= kMostLabelBytes && absl::ascii_isalnum(text.front()) &&
         absl::ascii_isalnum(text.back()) && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
         });
}

// NAME or PREFIX/NAME: of labels and of resources.
bool IsQualifiedName(absl::string_view text) {
  const size_t slash = text.find('/');
  if (slash == absl::string_view::npos) return IsLabelWord(text);
  return IsDnsName(text.substr(0, slash), /*dots=*/true) && IsLabelWord(text.substr(slash + 1));
}

// What is wrong with a label of the user's; empty where nothing is.
std::string WrongLabel(absl::string_view name, absl::string_view value) {
  for (const char* own : {kRunLabel, kRoleLabel, kManagedByLabel}) {
    if (name == own) return "Basin sets this label itself, and finds the run's objects by such; remove it";
  }
  for (const absl::string_view own : kControllerLabels) {
    if (name == own || (absl::EndsWith(own, "/") && absl::StartsWith(name, own))) {
      return "the cluster's controllers set this label themselves; remove it";
    }
  }
  if (value.empty() || IsLabelWord(value)) return "";
  return "expected a label's value: up to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends";
}

// Where something lies: WORD alone, or one with a place behind it.
absl::Status CheckPlace(const YamlFields& fields, const char* field, const std::string& place,
                        const std::vector<std::string>& words, bool image) {
  if (place.empty() || std::find(words.begin(), words.end(), place) != words.end()) return absl::OkStatus();
  if (image && absl::StartsWith(place, "image:/") && place.size() > 7) return absl::OkStatus();
  if (absl::StartsWith(place, "claim:")) {
    const std::string claim = place.substr(6, place.find('/') == std::string::npos ? place.npos : place.find('/') - 6);
    const bool inside = !absl::StrContains(absl::StrCat(place, "/"), "/../");
    if (IsDnsName(claim, true) && inside) return absl::OkStatus();
  }
  return fields.ErrorAt(field, absl::StrCat("found \"", place, "\", expected ", absl::StrJoin(words, ", "),
                                            image ? ", image:/PATH" : "", ", claim:NAME or claim:NAME/PATH"));
}

absl::Status ReadPairs(const YAML::Node& node, const std::string& file, const std::string& path, bool quantities,
                       std::vector<std::pair<std::string, std::string>>* out) {
  if (!node.IsMap()) {
    return absl::InvalidArgumentError(
        absl::StrCat(MarkText(file, node.Mark()), path, ": expected a mapping, found ", Describe(node)));
  }
  out->clear();
  for (const auto& item : node) {
    const std::string name = item.first.IsScalar() ? item.first.Scalar() : "";
    const std::string value = item.second.IsScalar() ? item.second.Scalar() : "";
    std::string wrong;
    if (!IsQualifiedName(name)) {
      wrong = absl::StrCat("\"", name, "\" is no name of a ", quantities ? "resource" : "label",
                           ": write NAME or PREFIX/NAME, of letters, digits, '-', '_' and '.'");
    } else if (!item.second.IsScalar()) {
      wrong = quantities ? "expected a quantity: 4, 500m, 8Gi" : "expected a text";
    } else {
      wrong = quantities ? WrongQuantity(name, value) : WrongLabel(name, value);
    }
    if (!wrong.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(MarkText(file, item.first.Mark()), path, ".", name, ": found ",
                                                     Describe(item.second), "; ", wrong));
    }
    out->emplace_back(name, value);
  }
  return absl::OkStatus();
}

absl::Status ReadResources(const YamlFields& fields, const std::string& file, KubernetesSettings* out) {
  if (!fields.Has("resources")) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const YamlFields roles,
                         YamlFields::From(fields.Value("resources"), file, fields.PathOf("resources"),
                                          {"ps", "chief", "worker", "evaluator"}));
  out->resources.clear();
  for (const char* role : {"ps", "chief", "worker", "evaluator"}) {
    if (!roles.Has(role)) continue;
    out->resources.emplace_back(role, std::vector<std::pair<std::string, std::string>>());
    BASIN_RETURN_IF_ERROR(
        ReadPairs(roles.Value(role), file, roles.PathOf(role), /*quantities=*/true, &out->resources.back().second));
    for (const auto& [name, value] : out->resources.back().second) {
      if (name == "nvidia.com/gpu") {
        return roles.ErrorAt(role, "nvidia.com/gpu is what use_gpu: true gives to each worker; remove it");
      }
    }
  }
  return absl::OkStatus();
}

// Members of a PodSpec (core/v1) that the template of a Job may have.
const std::vector<std::string>& PodSpecMembers() {
  static const std::vector<std::string> members = {"activeDeadlineSeconds",
                                                   "affinity",
                                                   "automountServiceAccountToken",
                                                   "containers",
                                                   "dnsConfig",
                                                   "dnsPolicy",
                                                   "enableServiceLinks",
                                                   "hostAliases",
                                                   "hostIPC",
                                                   "hostNetwork",
                                                   "hostPID",
                                                   "hostUsers",
                                                   "hostname",
                                                   "imagePullSecrets",
                                                   "initContainers",
                                                   "nodeName",
                                                   "nodeSelector",
                                                   "os",
                                                   "overhead",
                                                   "preemptionPolicy",
                                                   "priority",
                                                   "priorityClassName",
                                                   "readinessGates",
                                                   "resourceClaims",
                                                   "resources",
                                                   "restartPolicy",
                                                   "runtimeClassName",
                                                   "schedulerName",
                                                   "schedulingGates",
                                                   "securityContext",
                                                   "serviceAccount",
                                                   "serviceAccountName",
                                                   "setHostnameAsFQDN",
                                                   "shareProcessNamespace",
                                                   "subdomain",
                                                   "terminationGracePeriodSeconds",
                                                   "tolerations",
                                                   "topologySpreadConstraints",
                                                   "volumes"};
  return members;
}

absl::Status WrongAt(const YAML::Node& node, const std::string& file, const std::string& path,
                     const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(MarkText(file, node.Mark()), path, ": ", problem));
}

// Scalars as YAML 1.2's core schema reads them, so that `privileged: true` is no text.
absl::StatusOr<Json> ToJson(const YAML::Node& node, const std::string& file, int depth) {
  if (depth > 32) return absl::InvalidArgumentError(absl::StrCat(MarkText(file, node.Mark()), "nested too deep"));
  if (node.IsNull()) return Json();
  if (node.IsSequence()) {
    Json list = Json::array();
    for (const YAML::Node& one : node) {
      BASIN_ASSIGN_OR_RETURN(Json item, ToJson(one, file, depth + 1));
      list.push_back(std::move(item));
    }
    return list;
  }
  if (node.IsMap()) {
    Json object = Json::object();
    for (const auto& item : node) {
      if (!item.first.IsScalar()) {
        return absl::InvalidArgumentError(absl::StrCat(MarkText(file, item.first.Mark()), "expected a name"));
      }
      BASIN_ASSIGN_OR_RETURN(object[item.first.Scalar()], ToJson(item.second, file, depth + 1));
    }
    return object;
  }
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return Json(text);  // it was quoted
  if (text == "true" || text == "false") return Json(text == "true");
  int64_t whole = 0;
  double number = 0;
  if (absl::SimpleAtoi(text, &whole)) return Json(whole);
  if (absl::SimpleAtod(text, &number) && text.find_first_not_of("0123456789.eE+-") == std::string::npos) {
    return Json(number);
  }
  return Json(text);
}

// A list that is merged by `key`: with an item that lacks it, it would replace the whole list, what Basin puts there
// too.
absl::Status CheckKeyed(const YAML::Node& list, const std::string& file, const std::string& path,
                        const std::string& key) {
  if (!list.IsSequence()) {
    return WrongAt(list, file, path,
                   absl::StrCat("expected a list of mappings that have a ", key, " each, found ", Describe(list),
                                "; write ", path, ": [{", key, ": ...}]"));
  }
  std::set<std::string> seen;
  for (const YAML::Node& one : list) {
    const bool keyed = one.IsMap() && one[key] && one[key].IsScalar() && !one[key].Scalar().empty();
    if (!keyed) {
      return WrongAt(one, file, path,
                     absl::StrCat("expected a mapping with a ", key, ", by which it is merged, found ", Describe(one),
                                  one.IsMap() ? absl::StrCat(" without it; add ", key, ": ...") : ""));
    }
    if (!seen.insert(one[key].Scalar()).second) {
      return WrongAt(one, file, path, absl::StrCat("\"", one[key].Scalar(), "\" is there twice; write it once"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOwnContainer(const YAML::Node& container, const std::string& file, const std::string& path) {
  for (const auto& item : container) {
    const std::string name = item.first.IsScalar() ? item.first.Scalar() : "";
    const std::string where = absl::StrCat(path, ".", name);
    if (name == "command" || name == "args") {
      return WrongAt(item.first, file, where,
                     "the container \"basin\" runs Basin's own agent, which starts the task; remove it (entry_script "
                     "says what is run, and setup what comes before)");
    }
    if (name == "volumeMounts") BASIN_RETURN_IF_ERROR(CheckKeyed(item.second, file, where, "mountPath"));
    if (name == "env") BASIN_RETURN_IF_ERROR(CheckKeyed(item.second, file, where, "name"));
  }
  return absl::OkStatus();
}

absl::Status CheckMember(const std::string& name, const YAML::Node& value, const std::string& file,
                         const std::string& path) {
  const bool as_made = name == "restartPolicy" && value.IsScalar() && value.Scalar() == "Never";
  if ((name == "restartPolicy" || name == "subdomain" || name == "hostname") && !as_made) {
    return WrongAt(value, file, path, "Basin and the cluster set it, and the run depends on it; remove it");
  }
  if (name == "initContainers" && value.IsNull()) return absl::OkStatus();
  if (name != "containers" && name != "initContainers" && name != "volumes") return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(CheckKeyed(value, file, path, "name"));
  if (name != "containers") return absl::OkStatus();
  for (const YAML::Node& one : value) {
    if (one["name"].Scalar() == "basin") BASIN_RETURN_IF_ERROR(CheckOwnContainer(one, file, path));
  }
  return absl::OkStatus();
}

// As JSON. What depends on the job itself is looked at when it is merged (kubernetes/manifests.h).
absl::StatusOr<std::string> ReadPodOverlay(const YAML::Node& overlay, const std::string& file,
                                           const std::string& path) {
  if (!overlay.IsMap()) {
    return WrongAt(overlay, file, path,
                   absl::StrCat("expected a part of a pod's spec (nodeSelector: {...}), found ", Describe(overlay)));
  }
  BASIN_RETURN_IF_ERROR(YamlFields::From(overlay, file, path, PodSpecMembers()).status());
  for (const auto& item : overlay) {
    const std::string& name = item.first.Scalar();
    BASIN_RETURN_IF_ERROR(CheckMember(name, item.second, file, absl::StrCat(path, ".", name)));
  }
  BASIN_ASSIGN_OR_RETURN(const Json json, ToJson(overlay, file, 0));
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::Status CheckOneOf(const YamlFields& fields, const char* field, const std::string& value,
                        const std::vector<std::string>& known) {
  if (value.empty() || std::find(known.begin(), known.end(), value) != known.end()) return absl::OkStatus();
  return fields.ErrorAt(field, absl::StrCat("found \"", value, "\", expected one of ", absl::StrJoin(known, ", ")));
}

struct TextField {
  const char* name;
  std::string KubernetesSettings::*member;
};
constexpr TextField kTexts[] = {
    {"kubectl", &KubernetesSettings::kubectl},
    {"kubeconfig", &KubernetesSettings::kubeconfig},
    {"context", &KubernetesSettings::context},
    {"namespace", &KubernetesSettings::name_space},
    {"controller", &KubernetesSettings::controller},
    {"image", &KubernetesSettings::image},
    {"image_pull_policy", &KubernetesSettings::image_pull_policy},
    {"programs", &KubernetesSettings::programs},
    {"service_account", &KubernetesSettings::service_account},
    {"source", &KubernetesSettings::source},
    {"outputs", &KubernetesSettings::outputs},
    {"shm_size", &KubernetesSettings::shm_size},
};

}  // namespace

const std::vector<std::string>& KubernetesFieldNames() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = {"pull_secrets", "resources", "labels", "pod_overlay", "pull_seconds"};
    for (const TextField& field : kTexts) all.emplace_back(field.name);
    return all;
  }();
  return names;
}

absl::Status ReadKubernetesSettings(const YAML::Node& node, const std::string& file, const std::string& path,
                                    KubernetesSettings* out) {
  BASIN_ASSIGN_OR_RETURN(const YamlFields fields, YamlFields::From(node, file, path, KubernetesFieldNames()));
  for (const TextField& field : kTexts) BASIN_RETURN_IF_ERROR(fields.Read(field.name, &(out->*field.member)));
  BASIN_RETURN_IF_ERROR(CheckName(fields, "namespace", out->name_space, false));
  BASIN_RETURN_IF_ERROR(CheckName(fields, "service_account", out->service_account, true));
  BASIN_RETURN_IF_ERROR(CheckOneOf(fields, "controller", out->controller, {"jobset", "jobs"}));
  BASIN_RETURN_IF_ERROR(
      CheckOneOf(fields, "image_pull_policy", out->image_pull_policy, {"Always", "IfNotPresent", "Never"}));
  if (out->image.find_first_of(" \t\n") != std::string::npos) {
    return fields.ErrorAt("image", absl::StrCat("\"", out->image, "\" is no image; write REGISTRY/NAME:TAG"));
  }
  BASIN_RETURN_IF_ERROR(CheckPlace(fields, "source", out->source, {"configmap"}, /*image=*/true));
  BASIN_RETURN_IF_ERROR(CheckPlace(fields, "outputs", out->outputs, {"exec", "none"}, /*image=*/false));
  if (!out->programs.empty() && out->programs[0] != '/') {
    return fields.ErrorAt("programs", "expected an absolute path in the image");
  }
  if (!out->shm_size.empty()) {
    const std::string wrong = WrongQuantity("shm_size", out->shm_size);
    if (!wrong.empty()) return fields.ErrorAt("shm_size", absl::StrCat("found \"", out->shm_size, "\"; ", wrong));
  }
  BASIN_RETURN_IF_ERROR(ReadTexts(fields, "pull_secrets", "a Secret's name", &out->pull_secrets));
  for (const std::string& name : out->pull_secrets) {
    BASIN_RETURN_IF_ERROR(CheckName(fields, "pull_secrets", name, true));
  }
  BASIN_RETURN_IF_ERROR(ReadResources(fields, file, out));
  if (fields.Has("labels")) {
    BASIN_RETURN_IF_ERROR(
        ReadPairs(fields.Value("labels"), file, fields.PathOf("labels"), /*quantities=*/false, &out->labels));
  }
  if (fields.Has("pod_overlay")) {
    const YAML::Node overlay = fields.Value("pod_overlay");
    BASIN_ASSIGN_OR_RETURN(out->pod_overlay, ReadPodOverlay(overlay, file, fields.PathOf("pod_overlay")));
    out->pod_overlay_place.text = MarkText(file, overlay.Mark());
  }
  if (fields.Has("pull_seconds")) {
    int seconds = 0;
    BASIN_RETURN_IF_ERROR(fields.Read("pull_seconds", &seconds, 1, kMostPullSeconds));
    out->pull_seconds = seconds;
  }
  return absl::OkStatus();
}

KubernetesSettings MergedSettings(KubernetesSettings base, const KubernetesSettings& over) {
  for (const TextField& field : kTexts) {
    if (!(over.*field.member).empty()) base.*field.member = over.*field.member;
  }
  if (!over.pull_secrets.empty()) base.pull_secrets = over.pull_secrets;
  if (!over.resources.empty()) base.resources = over.resources;
  if (!over.labels.empty()) base.labels = over.labels;
  if (!over.pod_overlay.empty()) {
    base.pod_overlay = over.pod_overlay;
    base.pod_overlay_place = over.pod_overlay_place;
  }
  if (over.pull_seconds) base.pull_seconds = over.pull_seconds;
  return base;
}

std::string KubernetesSettingsToJson(const KubernetesSettings& settings) {
  Json out = Json::object();
  for (const TextField& field : kTexts) {
    if (!(settings.*field.member).empty()) out[field.name] = settings.*field.member;
  }
  if (!settings.pull_secrets.empty()) out["pull_secrets"] = settings.pull_secrets;
  const auto object = [](const std::vector<std::pair<std::string, std::string>>& pairs) {
    Json json = Json::object();
    for (const auto& [name, value] : pairs) json[name] = value;
    return json;
  };
  for (const auto& [role, pairs] : settings.resources) out["resources"][role] = object(pairs);
  if (!settings.labels.empty()) out["labels"] = object(settings.labels);
  if (!settings.pod_overlay.empty()) out["pod_overlay"] = Json::parse(settings.pod_overlay);
  if (settings.pull_seconds) out["pull_seconds"] = *settings.pull_seconds;
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace basin
