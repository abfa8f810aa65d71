#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "estimator/job.h"

namespace basin {

std::string JobToJson(const Job& job) {
  using Json = nlohmann::ordered_json;
  Json out = {{"experiment", job.experiment}, {"entry_script", absl::StrCat("basin:", job.program)}};
  Json params = Json::object();
  for (const ScriptParam& param : job.script_params) params[param.flag] = param.value;
  out["script_params"] = params;
  Json inputs = Json::array();
  for (const JobInput& input : job.inputs) inputs.push_back({{"name", input.name}, {"path", input.path}});
  out["inputs"] = inputs;
  out["compute_target"] = "local";
  out["distributed_backend"] = "ps";
  out["node_count"] = 1;
  out["parameter_server_count"] = job.parameter_server_count;
  out["worker_count"] = job.worker_count;
  out["chief_count"] = job.chief_count;
  out["evaluator_count"] = job.evaluator_count;
  Json environment = Json::object();
  for (const auto& [name, value] : job.environment_variables) environment[name] = value;
  out["environment_variables"] = environment;
  out["training"] = {{"consistency", "async"}};
  if (job.rule) {
    Json rule = {{"name", job.rule->name}};
    const auto add = [&rule](const char* name, const std::optional<double>& value) {
      if (value) rule[name] = *value;
    };
    add("learning_rate", job.rule->learning_rate);
    add("momentum", job.rule->momentum);
    if (job.rule->nesterov) rule["nesterov"] = true;
    add("beta1", job.rule->beta1);
    add("beta2", job.rule->beta2);
    add("epsilon", job.rule->epsilon);
    out["training"]["rule"] = rule;
  }
  out["network"] = {{"ports", absl::StrCat(job.ports.first, "-", job.ports.last)}, {"security", "token"}};
  if (job.max_run_duration_seconds > 0) out["max_run_duration_seconds"] = job.max_run_duration_seconds;
  out["cancel_grace_seconds"] = job.cancel_grace_seconds;
  // Text that is no UTF-8 (a path may be) is shown with replacement characters rather than refused.
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace basin
