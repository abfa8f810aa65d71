#include "estimator/kubernetes/pod_plan.h"

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cluster_spec/tf_config.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kTfConfig[] = "TF_CONFIG";

Json TaskToJson(const PlannedTask& task) {
  Json environment = Json::object();
  for (const auto& [name, value] : task.environment) {
    if (name != kTfConfig) environment[name] = value;
  }
  return {{"index", task.place.name.index},
          {"node", task.place.node},
          {"host", task.place.host},
          {"port", task.place.port},
          {"argv", task.argv},
          {"takes_listener", task.takes_listener},
          {"uses_snapshot", task.uses_snapshot},
          {"environment", environment}};
}

}  // namespace

PodPlace ParsePodPlace(const std::string& text, const std::string& otherwise) {
  PodPlace place;
  const std::string given = text.empty() ? otherwise : text;
  const size_t colon = given.find(':');
  place.kind = given.substr(0, colon);
  if (colon == std::string::npos) return place;
  const std::string rest = given.substr(colon + 1);
  if (place.kind == "image") {
    place.path = rest;
    return place;
  }
  const size_t slash = rest.find('/');
  place.claim = rest.substr(0, slash);
  if (slash != std::string::npos) place.path = rest.substr(slash + 1);
  return place;
}

PodPlan PodPlanOf(const Job& job, const Plan& plan, Role role, const KubernetesSettings& settings,
                  const std::string& environment_spec, int wait_seconds) {
  PodPlan pod;
  pod.version = BASIN_VERSION;
  pod.run_id = plan.run_id;
  pod.role = role;
  pod.setup = plan.setup;
  pod.cancel_grace_seconds = job.cancel_grace_seconds;
  pod.wait_seconds = wait_seconds;
  pod.source_limit_mb = job.snapshot_limit_mb;
  bool uses_snapshot = false, runs_script = false;
  for (const PlannedTask& task : plan.tasks) {
    if (task.place.name.role != role) continue;
    pod.tasks.push_back(task);
    uses_snapshot = uses_snapshot || task.uses_snapshot;
    runs_script = runs_script || !task.takes_listener;
  }
  // basin-ps reads neither inputs nor the environment of scripts.
  if (runs_script) {
    pod.inputs = job.inputs;
    pod.environment_spec = environment_spec;
  }
  const PodPlace source = ParsePodPlace(settings.source, "configmap");
  if (uses_snapshot || !pod.environment_spec.empty()) {
    pod.source = job.source_directory.empty() ? "" : source.kind == "configmap" ? "archive" : "folder";
    if (source.kind == "image") pod.source_path = source.path;
    if (source.kind == "claim") pod.source_path = absl::StrCat(kPodSourceFolder, "/", source.path);
  }
  const PodPlace outputs = ParsePodPlace(settings.outputs, "exec");
  pod.outputs = outputs.kind == "claim" ? "folder" : outputs.kind;
  if (outputs.kind == "claim") {
    pod.kept_path = absl::StrCat(kPodKeptFolder, "/", outputs.path, outputs.path.empty() ? "" : "/", plan.run_id);
  }
  return pod;
}

std::string PodPlanToJson(const PodPlan& plan) {
  Json out = {{"version", plan.version}, {"run_id", plan.run_id}, {"role", std::string(Name(plan.role))}};
  out["inputs"] = Json::array();
  for (const JobInput& input : plan.inputs) out["inputs"].push_back({{"name", input.name}, {"path", input.path}});
  out["setup"] = plan.setup;
  out["environment_spec"] = plan.environment_spec;
  out["cancel_grace_seconds"] = plan.cancel_grace_seconds;
  out["source"] = plan.source;
  out["source_path"] = plan.source_path;
  out["source_limit_mb"] = plan.source_limit_mb;
  out["outputs"] = plan.outputs;
  out["kept_path"] = plan.kept_path;
  out["wait_seconds"] = plan.wait_seconds;
  out["tf_config"] = Json();
  out["tasks"] = Json::array();
  for (const PlannedTask& task : plan.tasks) {
    if (out["tf_config"].is_null() && !task.tf_config.empty()) {
      out["tf_config"] = Json::parse(task.tf_config, nullptr, /*allow_exceptions=*/false);
    }
    out["tasks"].push_back(TaskToJson(task));
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<PodPlan> ParsePodPlan(absl::string_view text) {
  const Json json = Json::parse(ToStd(text), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("the pod's plan is no JSON object");
  PodPlan plan;
  try {
    plan.version = json.at("version").get<std::string>();
    plan.run_id = json.at("run_id").get<std::string>();
    const std::optional<Role> role = RoleOfJob(json.at("role").get<std::string>());
    if (!role) return absl::InvalidArgumentError("the pod's plan names no role");
    plan.role = *role;
    for (const Json& input : json.at("inputs")) {
      plan.inputs.push_back({input.at("name").get<std::string>(), input.at("path").get<std::string>()});
    }
    plan.setup = json.at("setup").get<std::vector<std::string>>();
    plan.environment_spec = json.at("environment_spec").get<std::string>();
    plan.cancel_grace_seconds = json.at("cancel_grace_seconds").get<int>();
    plan.source = json.at("source").get<std::string>();
    plan.source_path = json.at("source_path").get<std::string>();
    plan.source_limit_mb = json.at("source_limit_mb").get<int64_t>();
    plan.outputs = json.at("outputs").get<std::string>();
    plan.kept_path = json.at("kept_path").get<std::string>();
    plan.wait_seconds = json.at("wait_seconds").get<int>();
    for (const Json& one : json.at("tasks")) {
      PlannedTask task;
      task.place.name = {plan.role, one.at("index").get<uint32_t>()};
      task.place.node = one.at("node").get<int>();
      task.place.host = one.at("host").get<std::string>();
      task.place.port = one.at("port").get<int>();
      task.argv = one.at("argv").get<std::vector<std::string>>();
      task.takes_listener = one.at("takes_listener").get<bool>();
      task.uses_snapshot = one.at("uses_snapshot").get<bool>();
      for (const auto& [name, value] : one.at("environment").items()) {
        task.environment.emplace_back(name, value.get<std::string>());
      }
      if (json.at("tf_config").is_object()) {
        BASIN_ASSIGN_OR_RETURN(const TfConfig config, ParseTfConfig(json.at("tf_config").dump()));
        task.tf_config = FormatTfConfig(config.cluster, task.place.name);
        task.environment.emplace_back(kTfConfig, task.tf_config);
      }
      plan.tasks.push_back(std::move(task));
    }
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("the pod's plan: ", error.what()));
  }
  return plan;
}

}  // namespace basin
