#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/format/yaml_fields.h"
#include "estimator/job/job_readers.h"
#include "estimator/job/roles.h"

namespace basin {
namespace {

constexpr int kMostCpus = 65536;
constexpr int kMostGpus = 1024;
constexpr Role kRoles[] = {Role::kPs, Role::kChief, Role::kWorker, Role::kEvaluator};

// "400GiB", "64G", "512MB", "1073741824"; -1 for anything else.
int64_t BytesOf(absl::string_view text) {
  size_t end = 0;
  while (end < text.size() && (absl::ascii_isdigit(text[end]) || text[end] == '.')) ++end;
  double number = 0;
  if (end == 0 || !absl::SimpleAtod(text.substr(0, end), &number)) return -1;
  const std::string unit = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text.substr(end)));
  const std::pair<const char*, double> units[] = {{"", 1},
                                                  {"b", 1},
                                                  {"k", 1024.0},
                                                  {"kib", 1024.0},
                                                  {"kb", 1e3},
                                                  {"m", 1048576.0},
                                                  {"mib", 1048576.0},
                                                  {"mb", 1e6},
                                                  {"g", 1073741824.0},
                                                  {"gib", 1073741824.0},
                                                  {"gb", 1e9},
                                                  {"t", 1099511627776.0},
                                                  {"tib", 1099511627776.0},
                                                  {"tb", 1e12}};
  for (const auto& [name, factor] : units) {
    if (unit == name && number * factor >= 1 && number * factor < 1e18) return std::llround(number * factor);
  }
  return -1;
}

absl::Status ReadRole(const YamlFields& roles, const std::string& file, Role role, RoleResources* out) {
  const std::string name(Name(role));
  BASIN_ASSIGN_OR_RETURN(const YamlFields fields, YamlFields::From(roles.Value(name), file, roles.PathOf(name),
                                                                   {"nodes", "partition", "cpus", "memory", "gpus"}));
  BASIN_RETURN_IF_ERROR(fields.Read("nodes", &out->nodes, 1, kMostTasks));
  BASIN_RETURN_IF_ERROR(fields.Read("partition", &out->partition));
  if (!out->partition.empty() && !IsSbatchWord(out->partition)) {
    return fields.ErrorAt("partition",
                          absl::StrCat("\"", out->partition, "\" is no value that sbatch takes in one word"));
  }
  BASIN_RETURN_IF_ERROR(fields.Read("cpus", &out->cpus, 1, kMostCpus));
  BASIN_RETURN_IF_ERROR(fields.Read("gpus", &out->gpus, 0, kMostGpus));
  std::string memory;
  BASIN_RETURN_IF_ERROR(fields.Read("memory", &memory));
  if (!memory.empty()) out->memory_bytes = BytesOf(memory);
  if (out->memory_bytes < 0) {
    return fields.ErrorAt("memory", absl::StrCat("\"", memory, "\" is no amount of memory; write 40GiB or 512MB"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadRoles(const YamlFields& fields, const std::string& file, Roles* out) {
  if (!fields.Has("roles")) return absl::OkStatus();
  std::vector<std::string> names;
  for (const Role role : kRoles) names.emplace_back(Name(role));
  BASIN_ASSIGN_OR_RETURN(const YamlFields roles, YamlFields::From(fields.Value("roles"), file, "roles", names));
  for (const Role role : kRoles) {
    if (!roles.Has(Name(role))) continue;
    RoleResources resources;
    BASIN_RETURN_IF_ERROR(ReadRole(roles, file, role, &resources));
    if (resources != RoleResources()) (*out)[role] = resources;
  }
  return absl::OkStatus();
}

std::string RolesToJson(const Roles& roles) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [role, resources] : roles) {
    nlohmann::ordered_json one = nlohmann::ordered_json::object();
    if (resources.nodes > 0) one["nodes"] = resources.nodes;
    if (!resources.partition.empty()) one["partition"] = resources.partition;
    if (resources.cpus > 0) one["cpus"] = resources.cpus;
    if (resources.memory_bytes > 0) one["memory"] = absl::StrCat(resources.memory_bytes);
    if (resources.gpus > 0) one["gpus"] = resources.gpus;
    json[std::string(Name(role))] = one;
  }
  return json.empty() ? "" : json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace basin
