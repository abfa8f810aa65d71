#include "estimator/launch/target_containers.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

absl::Status ReadEngine(const YamlFields& fields, const YAML::Node& node, std::vector<ContainerEngine>* out) {
  const std::optional<ContainerEngine> engine =
      node.IsScalar() ? ContainerEngineOf(node.Scalar()) : std::optional<ContainerEngine>();
  if (!engine) {
    return fields.ErrorAt(
        "container_engine",
        absl::StrCat("expected podman, docker or apptainer, or a list of them, found ", Describe(node)));
  }
  if (std::find(out->begin(), out->end(), *engine) != out->end()) {
    return fields.ErrorAt("container_engine", absl::StrCat(Name(*engine), " is listed twice; remove one"));
  }
  out->push_back(*engine);
  return absl::OkStatus();
}

absl::Status ReadWords(const YamlFields& fields, const char* name, std::vector<std::string>* out) {
  if (!fields.Has(name)) return absl::OkStatus();
  const YAML::Node list = fields.Value(name);
  const absl::Status wrong = fields.ErrorAt(
      name, absl::StrCat("expected a list of words, each an argument: [--cgroups=no-conmon], found ", Describe(list)));
  if (!list.IsSequence()) return wrong;
  for (const YAML::Node& word : list) {
    if (!word.IsScalar() || word.Scalar().empty() || word.Scalar().find('\0') != std::string::npos) return wrong;
    out->push_back(word.Scalar());
  }
  return absl::OkStatus();
}

void ReadWords(const nlohmann::json& target, const char* name, std::vector<std::string>* out) {
  if (!target.contains(name) || !target[name].is_array()) return;
  out->clear();
  for (const nlohmann::json& word : target[name]) {
    if (word.is_string()) out->push_back(word.get<std::string>());
  }
}

}  // namespace

absl::Status ReadContainerSettings(const YamlFields& fields, ContainerSettings* out) {
  if (fields.IsNamed("container_engine") && !fields.Has("container_engine")) {
    return fields.ErrorAt(
        "container_engine",
        "names no engine; write podman, docker or apptainer, or remove it for the first that a node has");
  }
  if (fields.Has("container_engine")) {
    out->engines.clear();
    const YAML::Node given = fields.Value("container_engine");
    if (given.IsSequence()) {
      for (const YAML::Node& one : given) BASIN_RETURN_IF_ERROR(ReadEngine(fields, one, &out->engines));
    } else {
      BASIN_RETURN_IF_ERROR(ReadEngine(fields, given, &out->engines));
    }
  }
  BASIN_RETURN_IF_ERROR(ReadWords(fields, "container_engine_options", &out->engine_options));
  return ReadWords(fields, "container_options", &out->options);
}

void AddContainerSettings(const ContainerSettings& settings, nlohmann::ordered_json* out) {
  if (settings.engines != ContainerSettings().engines) {
    nlohmann::ordered_json& engines = (*out)["container_engine"] = nlohmann::ordered_json::array();
    for (const ContainerEngine engine : settings.engines) engines.push_back(Name(engine));
  }
  if (!settings.engine_options.empty()) (*out)["container_engine_options"] = settings.engine_options;
  if (!settings.options.empty()) (*out)["container_options"] = settings.options;
}

void ReadContainerSettings(const nlohmann::json& target, ContainerSettings* out) {
  std::vector<std::string> names;
  ReadWords(target, "container_engine", &names);
  std::vector<ContainerEngine> engines;
  for (const std::string& name : names) {
    if (const std::optional<ContainerEngine> engine = ContainerEngineOf(name)) engines.push_back(*engine);
  }
  if (!engines.empty()) out->engines = engines;
  ReadWords(target, "container_engine_options", &out->engine_options);
  ReadWords(target, "container_options", &out->options);
}

}  // namespace basin
