#include "estimator/environment/environment_spec.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/environment/requirements.h"
#include "estimator/snapshot/digest.h"
#include "yaml-cpp/yaml.h"

namespace basin {
namespace {

using Kind = EnvironmentSpec::Kind;

constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr const char* kDefaultChannel = "conda-forge";

// "python", "python=3.11", "python >=3.9", "conda-forge::python".
bool IsPackage(absl::string_view requirement, absl::string_view name) {
  if (const size_t colons = requirement.rfind("::"); colons != absl::string_view::npos)
    requirement.remove_prefix(colons + 2);
  return requirement.substr(0, requirement.find_first_of("=<>! ~[")) == name;
}

// "2.15" means any 2.15: whoever wants one release names it whole.
std::string FrameworkRequirement(const std::string& version) {
  const bool is_series = std::count(version.begin(), version.end(), '.') == 1 && !absl::StrContains(version, '*');
  return absl::StrCat("tensorflow==", version, is_series ? ".*" : "");
}

class SpecReader {
 public:
  explicit SpecReader(const Job& job) : job_(job) {}

  absl::StatusOr<EnvironmentSpec> Read() {
    const Packages& packages = job_.packages;
    EnvironmentSpec spec;
    if (packages.user_managed) return spec;
    BASIN_RETURN_IF_ERROR(ReadPip());
    const std::string conda_file =
        packages.conda_dependencies_file.empty() ? packages.environment_definition : packages.conda_dependencies_file;
    if (!conda_file.empty() || !packages.conda.empty()) {
      spec.kind = Kind::kConda;
      if (conda_file.empty()) {
        BASIN_RETURN_IF_ERROR(AddConda(YAML::Node(YAML::NodeType::Map), "conda_packages", &spec));
      } else {
        BASIN_ASSIGN_OR_RETURN(const std::string text, ReadSource(conda_file));
        absl::Status status;
        try {
          status = AddConda(YAML::Load(text), conda_file, &spec);
        } catch (const YAML::Exception& error) {
          status = absl::InvalidArgumentError(absl::StrCat(conda_file, ": ", error.what()));
        }
        BASIN_RETURN_IF_ERROR(status);
      }
    } else if (!pip_.lines.empty()) {
      spec.kind = Kind::kPip;
      spec.requirements = std::move(pip_.lines);
      spec.constraints = std::move(pip_.constraints);
    }
    return spec;
  }

 private:
  absl::StatusOr<std::string> ReadSource(const std::string& path) const {
    const std::string where = job_.source_directory.empty() ? path : absl::StrCat(job_.source_directory, "/", path);
    absl::StatusOr<std::string> content = ReadFile(where, kMaxFileBytes);
    if (absl::IsNotFound(content.status())) return absl::NotFoundError(absl::StrCat(where, " does not exist"));
    return content;
  }

  absl::Status Add(absl::string_view text, const std::string& name) {
    return AddRequirements(
        text, name, [this](const std::string& path) { return ReadSource(path); }, &pip_);
  }

  absl::Status ReadPip() {
    const Packages& packages = job_.packages;
    if (!job_.framework_version.empty())
      BASIN_RETURN_IF_ERROR(Add(FrameworkRequirement(job_.framework_version), "framework_version"));
    for (const std::string& package : packages.pip) BASIN_RETURN_IF_ERROR(Add(package, "pip_packages"));
    if (packages.pip_requirements_file.empty()) return absl::OkStatus();
    BASIN_ASSIGN_OR_RETURN(const std::string text, ReadSource(packages.pip_requirements_file));
    return Add(text, packages.pip_requirements_file);
  }

  // The file with what the job adds; comments, name and prefix, which change nothing, left out.
  absl::Status AddConda(const YAML::Node& file, const std::string& name, EnvironmentSpec* spec) {
    const YAML::Node listed = file.IsMap() ? file["dependencies"] : YAML::Node();
    if (!file.IsMap() || (listed && !listed.IsSequence()) || (!listed && job_.packages.conda.empty())) {
      return absl::InvalidArgumentError(
          absl::StrCat(name,
                       ": a conda environment file is expected, with a list named dependencies; for a list of pip's "
                       "requirements use pip_requirements_file"));
    }
    YAML::Node result(YAML::NodeType::Map), dependencies(YAML::NodeType::Sequence);
    bool has_python = false, has_pip = false;
    const auto add = [&](const YAML::Node& dependency) {
      has_python |= dependency.IsScalar() && IsPackage(dependency.Scalar(), "python");
      has_pip |= dependency.IsScalar() && IsPackage(dependency.Scalar(), "pip");
      dependencies.push_back(dependency);
    };
    for (const YAML::Node& dependency : listed) {
      if (!dependency.IsMap()) {
        add(dependency);
        continue;
      }
      const YAML::Node pip = dependency["pip"];
      if (!pip || !pip.IsSequence() || dependency.size() != 1) {
        return absl::InvalidArgumentError(
            absl::StrCat(name, ": dependencies: of mappings, only {pip: [...]} is understood"));
      }
      for (const YAML::Node& line : pip) BASIN_RETURN_IF_ERROR(Add(line.as<std::string>(), name));
    }
    for (const std::string& package : job_.packages.conda) add(YAML::Node(package));
    if (!has_python) dependencies.push_back("python");
    if (!pip_.constraints.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name,
                       ": pip's constraints (-c) cannot be used beside conda packages; write "
                       "the versions into the requirements"));
    }
    if (!pip_.lines.empty()) {
      if (!has_pip) dependencies.push_back("pip");
      YAML::Node pip;
      for (const std::string& line : pip_.lines) pip["pip"].push_back(line);
      dependencies.push_back(pip);
    }
    // Without any, micromamba would have nowhere to look.
    if (file["channels"]) {
      result["channels"] = file["channels"];
    } else {
      result["channels"].push_back(kDefaultChannel);
    }
    result["dependencies"] = dependencies;
    for (const auto& field : file) {
      const std::string key = field.first.as<std::string>();
      if (key == "variables") result[key] = field.second;
    }
    YAML::Emitter emitter;
    emitter << result;
    spec->conda_file = absl::StrCat(emitter.c_str(), "\n");
    return absl::OkStatus();
  }

  const Job& job_;
  Requirements pip_;
};

}  // namespace

absl::StatusOr<EnvironmentSpec> ReadEnvironmentSpec(const Job& job) { return SpecReader(job).Read(); }

std::string EnvironmentSpecToText(const EnvironmentSpec& spec) {
  nlohmann::json json;
  switch (spec.kind) {
    case Kind::kNone:
      json["kind"] = "none";
      break;
    case Kind::kPip:
      json["kind"] = "pip";
      json["requirements"] = spec.requirements;
      json["constraints"] = spec.constraints;
      break;
    case Kind::kConda:
      json["kind"] = "conda";
      json["file"] = spec.conda_file;
      break;
  }
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<EnvironmentSpec> ParseEnvironmentSpec(absl::string_view text) {
  const nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  const absl::Status malformed =
      absl::InvalidArgumentError("an environment's description is not as EnvironmentSpecToText makes it");
  if (!json.is_object() || !json.contains("kind") || !json["kind"].is_string()) return malformed;
  const auto read_lines = [&](const char* name, std::vector<std::string>* out) {
    if (!json.contains(name) || !json[name].is_array()) return false;
    for (const nlohmann::json& line : json[name]) {
      // One that held a line feed would be two.
      if (!line.is_string() || absl::StrContains(line.get_ref<const std::string&>(), '\n')) return false;
      out->push_back(line);
    }
    return true;
  };
  EnvironmentSpec spec;
  const std::string kind = json["kind"];
  if (kind == "none") return spec;
  if (kind == "pip") {
    spec.kind = Kind::kPip;
    if (!read_lines("requirements", &spec.requirements) || !read_lines("constraints", &spec.constraints))
      return malformed;
    return spec;
  }
  if (kind != "conda" || !json.contains("file") || !json["file"].is_string()) return malformed;
  spec.kind = Kind::kConda;
  spec.conda_file = json["file"];
  return spec;
}

std::string EnvironmentName(const EnvironmentSpec& spec) {
  if (spec.kind == Kind::kNone) return "none";
  const std::string digest = DigestOf(EnvironmentSpecToText(spec));
  return absl::StrCat(spec.kind == Kind::kPip ? "pip-" : "conda-", digest.substr(0, 16));
}

}  // namespace basin
