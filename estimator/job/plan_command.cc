#include "estimator/job/plan_command.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/agent/placeholders.h"

namespace basin {
namespace {

// The shortest text that reads back as the same number.
std::string NumberText(double value) {
  char text[64];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

// A flag of script_params wins over what the job file says elsewhere: a program's flags are the last word.
void AddUnlessGiven(const Job& job, const std::string& flag, const std::string& value, std::vector<std::string>* argv) {
  const bool given = std::any_of(job.script_params.begin(), job.script_params.end(),
                                 [&flag](const ScriptParam& param) { return param.flag == flag; });
  if (given) return;
  argv->push_back(flag);
  if (!value.empty()) argv->push_back(value);
}

void AddScriptParams(const Job& job, std::vector<std::string>* argv) {
  for (const ScriptParam& param : job.script_params) {
    argv->push_back(param.flag);
    if (!param.value.empty()) argv->push_back(param.value);
  }
}

std::vector<std::string> BuiltInCommand(const Job& job, Role role, absl::string_view run_id) {
  std::vector<std::string> argv = {absl::StrCat(kProgramsPlaceholder, "/basin-worker"),
                                   "--program",
                                   job.program,
                                   "--token-file",
                                   kTokenPlaceholder,
                                   "--run-id",
                                   std::string(run_id),
                                   "--outputs",
                                   absl::StrCat(kTaskPlaceholder, "/outputs")};
  if (job.backend == Backend::kMpi) argv.insert(argv.end(), {"--backend", "mpi"});
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
  // The evaluator is given no GPU.
  if (job.use_gpu && role != Role::kEvaluator) AddUnlessGiven(job, "--device", "cuda", &argv);
  AddScriptParams(job, &argv);
  return argv;
}

std::vector<std::string> ScriptCommand(const Job& job) {
  std::vector<std::string> argv;
  if (absl::EndsWith(job.script, ".py")) argv.emplace_back(kPythonPlaceholder);
  if (absl::EndsWith(job.script, ".sh")) argv.emplace_back("bash");
  argv.push_back(absl::StrCat(kTaskPlaceholder, "/", job.script));
  AddScriptParams(job, &argv);
  if (!job.resume_from.empty()) {
    argv.emplace_back("--resume-from");
    argv.push_back(job.resume_from);
  }
  return argv;
}

std::string Quoted(const std::string& word) {
  // A shell expands braces only around a comma or "..", which no placeholder has.
  const std::string rest = ReplacePlaceholders(word, NodePaths{"p", "t", "k", "y", "s"});
  const bool plain = !word.empty() && std::all_of(rest.begin(), rest.end(), [](char c) {
    return absl::ascii_isalnum(c) || std::string_view("_./:=,+-@%").find(c) != std::string_view::npos;
  });
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word) c == '\'' ? quoted.append("'\\''") : quoted.append(1, c);
  return quoted + "'";
}

}  // namespace

bool RunsBasinPs(const Job& job, Role role) { return role == Role::kPs && !job.script_parameter_server; }

std::vector<std::string> CommandOf(const Job& job, Role role, absl::string_view run_id, bool shares_node) {
  if (RunsBasinPs(job, role)) {
    std::vector<std::string> argv = {absl::StrCat(kProgramsPlaceholder, "/basin-ps"), "--token-file", kTokenPlaceholder,
                                     "--run-id", std::string(run_id)};
    // One lane a ps where it shares the machine's cores with workers; alone it takes what it finds.
    if (shares_node) argv.insert(argv.begin() + 1, {"--lanes", "1"});
    return argv;
  }
  return job.script.empty() ? BuiltInCommand(job, role, run_id) : ScriptCommand(job);
}

std::string QuotedForShell(const std::vector<std::string>& words) {
  return absl::StrJoin(words, " ", [](std::string* out, const std::string& word) { out->append(Quoted(word)); });
}

}  // namespace basin
