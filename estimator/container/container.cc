#include "estimator/container/container.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"

namespace basin {
namespace {

using nlohmann::json;

constexpr std::pair<ContainerEngine, const char*> kEngines[] = {{ContainerEngine::kPodman, "podman"},
                                                                {ContainerEngine::kDocker, "docker"},
                                                                {ContainerEngine::kApptainer, "apptainer"}};
constexpr size_t kLeastIdentity = 12;

std::string Compact(const json& object) { return object.dump(-1, ' ', false, json::error_handler_t::replace); }

bool ReadText(const json& object, const char* name, std::string* out) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string()) return false;
  *out = found->get<std::string>();
  return true;
}

bool ReadTexts(const json& object, const char* name, std::vector<std::string>* out) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_array()) return false;
  for (const json& text : *found) {
    if (!text.is_string()) return false;
    out->push_back(text.get<std::string>());
  }
  return true;
}

}  // namespace

const char* Name(ContainerEngine engine) {
  for (const auto& [known, name] : kEngines) {
    if (known == engine) return name;
  }
  return "?";
}

std::optional<ContainerEngine> ContainerEngineOf(absl::string_view name) {
  for (const auto& [engine, known] : kEngines) {
    if (name == known) return engine;
  }
  return std::nullopt;
}

std::string ContainerRequestToText(const ContainerRequest& request) {
  json engines = json::array();
  for (const ContainerEngine engine : request.settings.engines) engines.push_back(Name(engine));
  return Compact({{"image", request.image},
                  {"engines", engines},
                  {"engine_options", request.settings.engine_options},
                  {"options", request.settings.options},
                  {"shm_bytes", request.shm_bytes},
                  {"gpus", request.gpus},
                  {"paths", request.paths}});
}

absl::StatusOr<ContainerRequest> ParseContainerRequest(absl::string_view text) {
  const absl::Status malformed =
      absl::InvalidArgumentError("a container's description is not as ContainerRequestToText makes it");
  const json object = json::parse(ToStd(text), nullptr, /*allow_exceptions=*/false);
  ContainerRequest request;
  std::vector<std::string> engines;
  const bool read =
      object.is_object() && ReadText(object, "image", &request.image) && ReadTexts(object, "engines", &engines) &&
      ReadTexts(object, "engine_options", &request.settings.engine_options) &&
      ReadTexts(object, "options", &request.settings.options) && ReadTexts(object, "paths", &request.paths);
  if (!read || request.image.empty() || engines.empty()) return malformed;
  if (!object.contains("shm_bytes") || !object["shm_bytes"].is_number_integer()) return malformed;
  if (!object.contains("gpus") || !object["gpus"].is_boolean()) return malformed;
  request.settings.engines.clear();
  for (const std::string& name : engines) {
    const std::optional<ContainerEngine> engine = ContainerEngineOf(name);
    if (!engine) return malformed;
    request.settings.engines.push_back(*engine);
  }
  request.shm_bytes = object["shm_bytes"].get<int64_t>();
  request.gpus = object["gpus"].get<bool>();
  return request;
}

std::string NodeImageToJson(const NodeImage& image) {
  return Compact({{"engine", Name(image.engine)},
                  {"program", image.program},
                  {"image", image.image},
                  {"identity", image.identity},
                  {"version", image.version},
                  {"is_rootless", image.is_rootless}});
}

absl::StatusOr<NodeImage> ParseNodeImage(absl::string_view text) {
  const json object = json::parse(ToStd(text), nullptr, /*allow_exceptions=*/false);
  NodeImage image;
  std::string engine;
  const bool read = object.is_object() && ReadText(object, "engine", &engine) &&
                    ReadText(object, "program", &image.program) && ReadText(object, "image", &image.image) &&
                    ReadText(object, "identity", &image.identity) && ReadText(object, "version", &image.version) &&
                    object.contains("is_rootless") && object["is_rootless"].is_boolean();
  const std::optional<ContainerEngine> known = ContainerEngineOf(engine);
  if (!read || !known || image.identity.size() < kLeastIdentity) {
    return absl::InvalidArgumentError("an image's description is not as NodeImageToJson makes it");
  }
  image.engine = *known;
  image.is_rootless = object["is_rootless"].get<bool>();
  return image;
}

std::string FullImageName(const std::string& image) {
  const size_t slash = image.find('/');
  if (slash == std::string::npos) return absl::StrCat("docker.io/library/", image);
  const absl::string_view first = absl::string_view(image).substr(0, slash);
  const bool is_registry = absl::StrContains(first, '.') || absl::StrContains(first, ':') || first == "localhost";
  return is_registry ? image : absl::StrCat("docker.io/", image);
}

bool IsImageFile(const std::string& image) {
  return absl::StartsWith(image, "/") || absl::StartsWith(image, "./") || absl::StartsWith(image, "~/");
}

}  // namespace basin
