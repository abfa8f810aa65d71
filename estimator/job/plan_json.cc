#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "estimator/job/plan.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

// Reads a member of a type that nlohmann knows; its exceptions end here.
template <typename T>
absl::Status Read(const Json& object, const char* name, T* out) {
  const auto found = object.find(name);
  if (found == object.end()) return absl::InvalidArgumentError(absl::StrCat("plan: \"", name, "\" is missing"));
  try {
    *out = found->template get<T>();
    return absl::OkStatus();
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("plan: \"", name, "\": ", error.what()));
  }
}

absl::StatusOr<PlannedTask> ParseTask(const Json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError("plan: a task is no object");
  PlannedTask task;
  std::string role;
  BASIN_RETURN_IF_ERROR(Read(json, "role", &role));
  const std::optional<Role> known = RoleNamed(role);
  if (!known) return absl::InvalidArgumentError(absl::StrCat("plan: \"role\": \"", role, "\" is no role"));
  task.place.name.role = *known;
  BASIN_RETURN_IF_ERROR(Read(json, "index", &task.place.name.index));
  BASIN_RETURN_IF_ERROR(Read(json, "node", &task.place.node));
  BASIN_RETURN_IF_ERROR(Read(json, "host", &task.place.host));
  if (json.contains("port")) BASIN_RETURN_IF_ERROR(Read(json, "port", &task.place.port));
  BASIN_RETURN_IF_ERROR(Read(json, "argv", &task.argv));
  BASIN_RETURN_IF_ERROR(Read(json, "takes_listener", &task.takes_listener));
  BASIN_RETURN_IF_ERROR(Read(json, "uses_snapshot", &task.uses_snapshot));
  if (json.contains("is_rank")) BASIN_RETURN_IF_ERROR(Read(json, "is_rank", &task.is_rank));
  if (json.contains("image")) BASIN_RETURN_IF_ERROR(Read(json, "image", &task.image));
  BASIN_RETURN_IF_ERROR(Read(json, "devices", &task.devices));
  BASIN_RETURN_IF_ERROR(Read(json, "tf_config", &task.tf_config));
  Json environment;
  BASIN_RETURN_IF_ERROR(Read(json, "environment", &environment));
  if (!environment.is_object()) return absl::InvalidArgumentError("plan: \"environment\" is no object");
  for (const auto& [name, value] : environment.items()) {
    if (!value.is_string()) return absl::InvalidArgumentError(absl::StrCat("plan: variable ", name, " is no text"));
    task.environment.emplace_back(name, value.get<std::string>());
  }
  return task;
}

Json ToJson(const PlannedTask& task) {
  Json environment = Json::object();
  for (const auto& [name, value] : task.environment) environment[name] = value;
  Json out = {{"role", std::string(Name(task.place.name.role))},
              {"index", task.place.name.index},
              {"node", task.place.node},
              {"host", task.place.host}};
  if (task.place.port != 0) out["port"] = task.place.port;
  out["argv"] = task.argv;
  out["takes_listener"] = task.takes_listener;
  out["uses_snapshot"] = task.uses_snapshot;
  if (task.is_rank) out["is_rank"] = true;
  if (!task.image.empty()) out["image"] = task.image;
  out["devices"] = task.devices;
  out["tf_config"] = task.tf_config;
  out["environment"] = environment;
  return out;
}

}  // namespace

std::string PlanToJson(const Plan& plan) {
  Json out = {{"run_id", plan.run_id}, {"experiment", plan.experiment}};
  out["setup"] = plan.setup;
  out["secrets"] = plan.secrets;
  out["tasks"] = Json::array();
  for (const PlannedTask& task : plan.tasks) out["tasks"].push_back(ToJson(task));
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Plan> ParsePlan(absl::string_view json) {
  const Json parsed = Json::parse(ToStd(json), nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return absl::InvalidArgumentError("plan: no JSON object");
  Plan plan;
  BASIN_RETURN_IF_ERROR(Read(parsed, "run_id", &plan.run_id));
  BASIN_RETURN_IF_ERROR(Read(parsed, "experiment", &plan.experiment));
  BASIN_RETURN_IF_ERROR(Read(parsed, "setup", &plan.setup));
  BASIN_RETURN_IF_ERROR(Read(parsed, "secrets", &plan.secrets));
  Json tasks;
  BASIN_RETURN_IF_ERROR(Read(parsed, "tasks", &tasks));
  if (!tasks.is_array()) return absl::InvalidArgumentError("plan: \"tasks\" is no list");
  bool trains = false;
  for (const Json& json_task : tasks) {
    BASIN_ASSIGN_OR_RETURN(PlannedTask task, ParseTask(json_task));
    trains = trains || task.place.name.role == Role::kChief || task.place.name.role == Role::kWorker;
    plan.tasks.push_back(std::move(task));
  }
  if (!trains) return absl::InvalidArgumentError("plan: no task of it trains");
  return plan;
}

}  // namespace basin
