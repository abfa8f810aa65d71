#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

// What the launcher and the agents set; a job that set one would break its own run.
constexpr const char* kReservedVariables[] = {
    "TF_CONFIG",        "BASIN_RUN_ID",  "BASIN_TOKEN_FILE", "BASIN_RUN_DIR",    "BASIN_METRICS_FILE",
    "BASIN_ROLE",       "BASIN_LIBRARY", "BASIN_RANK",       "BASIN_WORLD_SIZE", "BASIN_LOCAL_RANK",
    "BASIN_TASK_INDEX", "RANK",          "WORLD_SIZE",       "LOCAL_RANK",       "AZ_BATCHAI_TASK_INDEX",
};
constexpr const char* kReservedPrefixes[] = {"BASIN_INPUT_", "AZUREML_DATAREFERENCE_"};

bool IsReserved(absl::string_view name) {
  return std::any_of(std::begin(kReservedVariables), std::end(kReservedVariables),
                     [name](const char* reserved) { return name == reserved; }) ||
         std::any_of(std::begin(kReservedPrefixes), std::end(kReservedPrefixes),
                     [name](const char* prefix) { return absl::StartsWith(name, prefix); });
}

absl::Status ReadVariables(const YamlFields& fields, const std::string& file, Job* job) {
  if (!fields.Has("environment_variables")) return absl::OkStatus();
  const YAML::Node map = fields.Value("environment_variables");
  if (!map.IsMap()) {
    return fields.ErrorAt("environment_variables",
                          absl::StrCat("expected a mapping {NAME: value}, found ", Describe(map)));
  }
  for (const auto& item : map) {
    const std::string place = absl::StrCat(MarkText(file, item.first.Mark()), "environment_variables: ");
    if (!item.first.IsScalar() || item.first.Scalar().empty() || item.first.Scalar().size() > kMostNameBytes ||
        absl::StrContains(item.first.Scalar(), "=")) {
      return absl::InvalidArgumentError(absl::StrCat(place, Describe(item.first), " is no variable's name"));
    }
    const std::string& name = item.first.Scalar();
    if (!item.second.IsScalar()) {
      return absl::InvalidArgumentError(absl::StrCat(place, name, ": expected text, found ", Describe(item.second)));
    }
    if (IsReserved(name)) {
      return absl::InvalidArgumentError(absl::StrCat(place, name, " is set by the launcher; remove it"));
    }
    for (const auto& [other, value] : job->environment_variables) {
      if (other == name) return absl::InvalidArgumentError(absl::StrCat(place, name, " is given twice; remove one"));
    }
    job->environment_variables.emplace_back(name, item.second.Scalar());
  }
  return absl::OkStatus();
}

// A list of lines, or a text of them.
absl::Status ReadSetup(const YamlFields& fields, Job* job) {
  if (!fields.Has("setup")) return absl::OkStatus();
  const YAML::Node node = fields.Value("setup");
  if (!node.IsScalar()) return ReadTexts(fields, "setup", "a line of shell", &job->setup);
  for (const auto& line : absl::StrSplit(node.Scalar(), '\n')) {
    if (!absl::StripAsciiWhitespace(line).empty()) job->setup.emplace_back(line);
  }
  return absl::OkStatus();
}

absl::Status ReadSecrets(const YamlFields& fields, Job* job) {
  BASIN_RETURN_IF_ERROR(ReadTexts(fields, "secrets", "a variable's name", &job->secrets));
  for (size_t i = 0; i < job->secrets.size(); ++i) {
    const std::string& name = job->secrets[i];
    if (!IsName(name, "_") || absl::ascii_isdigit(name[0])) {
      return fields.ErrorAt("secrets", absl::StrCat("\"", name,
                                                    "\" is no variable's name; name variables of the environment that "
                                                    "submits, whose values are stored nowhere"));
    }
    if (IsReserved(name)) return fields.ErrorAt("secrets", absl::StrCat(name, " is set by the launcher; remove it"));
    if (std::find(job->secrets.begin(), job->secrets.begin() + i, name) != job->secrets.begin() + i) {
      return fields.ErrorAt("secrets", absl::StrCat(name, " is given twice; remove one"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTexts(const YamlFields& fields, absl::string_view name, absl::string_view what,
                       std::vector<std::string>* out) {
  if (!fields.Has(name)) return absl::OkStatus();
  const YAML::Node list = fields.Value(name);
  if (!list.IsSequence()) {
    return fields.ErrorAt(name, absl::StrCat("expected a list, each ", what, ", found ", Describe(list), "; write [",
                                             Describe(list), "]"));
  }
  out->clear();
  for (const YAML::Node& item : list) {
    if (!item.IsScalar() || absl::StripAsciiWhitespace(item.Scalar()).empty()) {
      return fields.ErrorAt(name, absl::StrCat("expected ", what, " in the list, found ", Describe(item)));
    }
    out->push_back(item.Scalar());
  }
  return absl::OkStatus();
}

absl::Status ReadEnvironment(const YamlFields& fields, const std::string& file, Job* job) {
  BASIN_RETURN_IF_ERROR(ReadVariables(fields, file, job));
  BASIN_RETURN_IF_ERROR(ReadSetup(fields, job));
  return ReadSecrets(fields, job);
}

}  // namespace basin
