#include "estimator/plan.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cluster_spec/cluster_spec.h"
#include "cluster_spec/tf_config.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

// The shortest text that reads back as the same number.
std::string NumberText(double value) {
  char text[64];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

// The evaluator stands outside: it is in no job.
absl::StatusOr<ClusterSpec> ClusterOf(const std::vector<PlacedTask>& tasks) {
  std::vector<ClusterSpec::Job> jobs;
  for (const PlacedTask& task : tasks) {
    if (task.port == 0) continue;
    const std::string job(Name(task.name.role));
    if (jobs.empty() || jobs.back().name != job) jobs.push_back({job, {}});
    jobs.back().tasks[task.name.index] = absl::StrCat(task.host, ":", task.port);
  }
  return ClusterSpec::Make(std::move(jobs));
}

bool HasFlag(const Job& job, const std::string& flag) {
  return std::any_of(job.script_params.begin(), job.script_params.end(),
                     [&flag](const ScriptParam& param) { return param.flag == flag; });
}

// A flag of script_params wins over what the job file says elsewhere: a program's flags are the last word.
void AddUnlessGiven(const Job& job, const std::string& flag, const std::string& value, std::vector<std::string>* argv) {
  if (HasFlag(job, flag)) return;
  argv->push_back(flag);
  if (!value.empty()) argv->push_back(value);
}

std::vector<std::string> ArgvFor(const Job& job, const NodeFacts& facts, Role role) {
  const std::string token_file = absl::StrCat(facts.run_folder, "/token");
  if (role == Role::kPs) {
    // One lane a ps: on one machine the ps share its cores with the workers.
    return {facts.ps_program, "--lanes", "1", "--token-file", token_file, "--run-id", facts.run_id};
  }
  std::vector<std::string> argv = {facts.worker_program, "--program", job.program,
                                   "--token-file",       token_file,  "--run-id",
                                   facts.run_id,         "--outputs", absl::StrCat(facts.run_folder, "/outputs")};
  for (const JobInput& input : job.inputs) {
    if (input.name == "data") AddUnlessGiven(job, "--data", input.path, &argv);
  }
  if (job.rule) {
    const RuleChoice& rule = *job.rule;
    const std::pair<const char*, const std::optional<double>&> numbers[] = {{"--learning-rate", rule.learning_rate},
                                                                            {"--momentum", rule.momentum},
                                                                            {"--beta1", rule.beta1},
                                                                            {"--beta2", rule.beta2},
                                                                            {"--epsilon", rule.epsilon}};
    AddUnlessGiven(job, "--rule", rule.name, &argv);
    for (const auto& [flag, value] : numbers) {
      if (value) AddUnlessGiven(job, flag, NumberText(*value), &argv);
    }
    if (rule.nesterov) AddUnlessGiven(job, "--nesterov", "", &argv);
  }
  for (const ScriptParam& param : job.script_params) {
    argv.push_back(param.flag);
    if (!param.value.empty()) argv.push_back(param.value);
  }
  return argv;
}

std::string QuotedForShell(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
    return absl::ascii_isalnum(c) || std::string_view("_./:=,+-@%").find(c) != std::string_view::npos;
  });
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word) c == '\'' ? quoted.append("'\\''") : quoted.append(1, c);
  return quoted + "'";
}

std::string AddressOf(const PlacedTask& place) {
  return place.port == 0 ? absl::StrCat(place.host, " (outside the cluster)")
                         : absl::StrCat(place.host, ":", place.port);
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const Job& job, const NodeFacts& facts) {
  TaskCounts counts;
  counts.ps = static_cast<uint32_t>(job.parameter_server_count);
  counts.chief = static_cast<uint32_t>(job.chief_count);
  counts.worker = static_cast<uint32_t>(job.worker_count);
  counts.evaluator = static_cast<uint32_t>(job.evaluator_count);
  BASIN_ASSIGN_OR_RETURN(const std::vector<PlacedTask> places, LayOut(counts, facts.nodes));
  BASIN_ASSIGN_OR_RETURN(const ClusterSpec cluster, ClusterOf(places));
  Plan plan{facts.run_id, job.experiment, facts.run_folder, {}};
  for (const PlacedTask& place : places) {
    PlannedTask task;
    task.place = place;
    task.argv = ArgvFor(job, facts, place.name.role);
    task.tf_config = FormatTfConfig(cluster, place.name);
    auto& environment = task.environment;
    // Tasks share this machine's cores; a BLAS that starts a thread a core in each would fight itself. The job may
    // differ.
    environment.emplace_back("OPENBLAS_NUM_THREADS", "1");
    for (const auto& variable : job.environment_variables) environment.push_back(variable);
    environment.emplace_back("TF_CONFIG", task.tf_config);
    environment.emplace_back("BASIN_RUN_ID", facts.run_id);
    environment.emplace_back("BASIN_TOKEN_FILE", absl::StrCat(facts.run_folder, "/token"));
    environment.emplace_back("BASIN_RUN_DIR", facts.run_folder);
    for (const JobInput& input : job.inputs) {
      environment.emplace_back(absl::StrCat("BASIN_INPUT_", absl::AsciiStrToUpper(input.name)), input.path);
      environment.emplace_back(absl::StrCat("AZUREML_DATAREFERENCE_", input.name), input.path);
    }
    plan.tasks.push_back(std::move(task));
  }
  return plan;
}

std::string FirstPsAddress(const Plan& plan) { return AddressOf(plan.tasks.at(0).place); }

std::string PlanToJson(const Plan& plan) {
  Json out = {{"run_id", plan.run_id}, {"experiment", plan.experiment}, {"run_folder", plan.run_folder}};
  out["tasks"] = Json::array();
  for (const PlannedTask& task : plan.tasks) {
    Json environment = Json::object();
    for (const auto& [name, value] : task.environment) environment[name] = value;
    Json one = {
        {"role", std::string(Name(task.place.name.role))}, {"index", task.place.name.index}, {"host", task.place.host}};
    if (task.place.port != 0) one["port"] = task.place.port;
    one["argv"] = task.argv;
    one["tf_config"] = task.tf_config;
    one["environment"] = environment;
    out["tasks"].push_back(one);
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string PlanToText(const Plan& plan) {
  std::string text = absl::StrCat("run ", plan.run_id, " of experiment ", plan.experiment, ", ", plan.tasks.size(),
                                  " tasks, in ", plan.run_folder, "\n");
  for (const PlannedTask& task : plan.tasks) {
    std::vector<std::string> words;
    for (const std::string& word : task.argv) words.push_back(QuotedForShell(word));
    absl::StrAppend(&text, "\n", task.place.name.Sentence(), "  ", AddressOf(task.place), "\n  ",
                    absl::StrJoin(words, " "), "\n  TF_CONFIG=", task.tf_config, "\n");
  }
  return text;
}

}  // namespace basin
