#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "estimator/job/job.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const RuleChoice& rule) {
  Json out = {{"name", rule.name}};
  const auto add = [&out](const char* name, const std::optional<double>& value) {
    if (value) out[name] = *value;
  };
  add("learning_rate", rule.learning_rate);
  add("momentum", rule.momentum);
  if (rule.nesterov) out["nesterov"] = true;
  add("beta1", rule.beta1);
  add("beta2", rule.beta2);
  add("epsilon", rule.epsilon);
  return out;
}

void AddBackend(const Job& job, Json* out) {
  Json& json = *out;
  json["node_count"] = job.node_count;
  if (job.backend == Backend::kNone) return;
  json["distributed_backend"] = job.backend == Backend::kMpi ? "mpi" : "ps";
  if (job.backend == Backend::kMpi) {
    json["process_count_per_node"] = job.process_count_per_node;
    return;
  }
  json["parameter_server_count"] = job.parameter_server_count;
  if (job.script_parameter_server) json["parameter_server"] = "script";
  json["worker_count"] = job.worker_count;
  json["chief_count"] = job.chief_count;
  json["evaluator_count"] = job.evaluator_count;
}

void AddPackages(const Job& job, Json* out) {
  Json& json = *out;
  const Packages& packages = job.packages;
  if (!packages.conda.empty()) json["conda_packages"] = packages.conda;
  if (!packages.pip.empty()) json["pip_packages"] = packages.pip;
  const std::pair<const char*, const std::string&> files[] = {
      {"conda_dependencies_file", packages.conda_dependencies_file},
      {"pip_requirements_file", packages.pip_requirements_file},
      {"environment_definition", packages.environment_definition},
      {"framework_version", job.framework_version}};
  for (const auto& [name, value] : files) {
    if (!value.empty()) json[name] = value;
  }
  if (packages.user_managed) json["user_managed"] = true;
}

}  // namespace

std::string JobToJson(const Job& job) {
  Json out = {{"experiment", job.experiment}};
  if (!job.source_directory.empty()) out["source_directory"] = job.source_directory;
  out["snapshot_limit_mb"] = job.snapshot_limit_mb;
  out["entry_script"] = job.script.empty() ? absl::StrCat("basin:", job.program) : job.script;
  Json params = Json::object();
  for (const ScriptParam& param : job.script_params) params[param.flag] = param.value;
  out["script_params"] = params;
  Json inputs = Json::array();
  for (const JobInput& input : job.inputs) inputs.push_back({{"name", input.name}, {"path", input.path}});
  out["inputs"] = inputs;
  out["compute_target"] = job.compute_target;
  AddBackend(job, &out);
  out["use_gpu"] = job.use_gpu;
  if (job.use_gpu) out["workers_per_gpu"] = job.workers_per_gpu;
  AddPackages(job, &out);
  if (!job.image.empty()) out["custom_docker_image"] = job.image;
  if (job.shm_bytes > 0) out["shm_size"] = absl::StrCat(job.shm_bytes);
  Json environment = Json::object();
  for (const auto& [name, value] : job.environment_variables) environment[name] = value;
  out["environment_variables"] = environment;
  if (!job.setup.empty()) out["setup"] = job.setup;
  if (!job.secrets.empty()) out["secrets"] = job.secrets;
  out["training"] = {{"consistency", "async"}};
  if (job.rule) out["training"]["rule"] = ToJson(*job.rule);
  out["network"] = {{"ports", absl::StrCat(job.ports.first, "-", job.ports.last)}, {"security", "token"}};
  if (const std::string roles = RolesToJson(job.roles); !roles.empty()) out["roles"] = Json::parse(roles);
  if (const std::string slurm = SlurmOptionsToJson(job.slurm); !slurm.empty()) out["slurm"] = Json::parse(slurm);
  if (job.max_run_duration_seconds > 0) out["max_run_duration_seconds"] = job.max_run_duration_seconds;
  out["cancel_grace_seconds"] = job.cancel_grace_seconds;
  if (!job.resume_from.empty()) out["resume_from"] = job.resume_from;
  if (job.kubernetes != KubernetesSettings()) {
    out["kubernetes"] = Json::parse(KubernetesSettingsToJson(job.kubernetes));
  }
  // A Job that was made by hand may hold text that is no UTF-8: shown with replacement characters rather than refused.
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace basin
