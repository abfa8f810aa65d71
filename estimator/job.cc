#include "estimator/job.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "common/format/yaml_fields.h"
#include "estimator/job_support.h"

namespace basin {
namespace {

constexpr int kMostTasks = 1024;
constexpr size_t kMostBytes = size_t{1} << 20;

// What the launcher itself sets; a job that set one would break its own run.
const std::vector<std::string> kReservedVariables = {"TF_CONFIG", "BASIN_RUN_ID", "BASIN_TOKEN_FILE", "BASIN_RUN_DIR"};
const std::vector<std::string> kReservedFlags = {"--program", "--token-file", "--run-id", "--outputs"};

bool IsName(absl::string_view text, absl::string_view more) {
  if (text.empty() || text.size() > 64) return false;
  return std::all_of(text.begin(), text.end(),
                     [more](char c) { return absl::ascii_isalnum(c) || more.find(c) != absl::string_view::npos; });
}

absl::Status ReadExperiment(const YamlFields& fields, Job* job) {
  BASIN_RETURN_IF_ERROR(fields.Read("experiment", &job->experiment));
  if (!IsName(job->experiment, "_.-") || job->experiment[0] == '.' || job->experiment[0] == '-') {
    return fields.ErrorAt("experiment", absl::StrCat("\"", job->experiment,
                                                     "\" cannot name a folder; use 1 to 64 of A-Z a-z 0-9 _ . - and "
                                                     "begin with a letter or digit"));
  }
  return absl::OkStatus();
}

absl::Status ReadEntryScript(const YamlFields& fields, Job* job) {
  std::string script;
  BASIN_RETURN_IF_ERROR(fields.Read("entry_script", &script));
  if (script.empty()) return fields.ErrorAt("entry_script", "not given; name what the workers run, such as basin:mlp");
  if (!absl::StartsWith(script, "basin:")) {
    return fields.Unimplemented("entry_script",
                                absl::StrCat("this version runs built-in programs alone, found \"", script,
                                             "\"; use basin:mlp, or start your own program by hand with "
                                             "TF_CONFIG and the client library"));
  }
  job->program = script.substr(6);
  if (!IsName(job->program, "_-")) {
    return fields.ErrorAt("entry_script", absl::StrCat("\"", script, "\" names no program; write basin:mlp"));
  }
  return absl::OkStatus();
}

absl::Status ReadBackend(const YamlFields& fields, const std::string& file, Job* job) {
  std::string backend;
  BASIN_RETURN_IF_ERROR(fields.Read("distributed_backend", &backend));
  const std::string lower = absl::AsciiStrToLower(backend);
  if (!lower.empty() && lower != "ps" && lower != "mpi") {
    return fields.ErrorAt("distributed_backend", absl::StrCat("unknown backend \"", backend, "\"; supported: ps"));
  }
  if (lower == "mpi") {
    return fields.Unimplemented("distributed_backend", "this version cannot do mpi; use distributed_backend: ps");
  }
  BASIN_RETURN_IF_ERROR(fields.Read("worker_count", &job->worker_count, 0, kMostTasks));
  BASIN_RETURN_IF_ERROR(fields.Read("parameter_server_count", &job->parameter_server_count, 0, kMostTasks));
  if (fields.Has("distributed_training")) {
    const YAML::Node node = fields.Value("distributed_training");
    std::string kind;
    YAML::Node counts;
    if (node.IsScalar()) {
      kind = node.Scalar();
    } else if (node.IsMap() && node.size() == 1 && node.begin()->first.IsScalar()) {
      kind = node.begin()->first.Scalar();
      counts = node.begin()->second;
    } else {
      return fields.ErrorAt("distributed_training",
                            absl::StrCat("expected one of ParameterServer, TensorflowConfiguration "
                                         "with its counts, found ",
                                         Describe(node)));
    }
    if (kind == "Mpi" || kind == "MpiConfiguration") {
      return fields.Unimplemented("distributed_training", absl::StrCat("this version cannot do ", kind,
                                                                       "; use {ParameterServer: {worker_count: 2}}"));
    }
    if (kind != "ParameterServer" && kind != "TensorflowConfiguration") {
      return fields.ErrorAt(
          "distributed_training",
          absl::StrCat("unknown configuration \"", kind, "\"; supported: ParameterServer, TensorflowConfiguration"));
    }
    if (!counts.IsNull()) {
      BASIN_ASSIGN_OR_RETURN(const YamlFields nested,
                             YamlFields::From(counts, file, absl::StrCat("distributed_training.", kind),
                                              {"worker_count", "parameter_server_count"}));
      for (const char* name : {"worker_count", "parameter_server_count"}) {
        if (!nested.Has(name)) continue;
        int* count = name[0] == 'w' ? &job->worker_count : &job->parameter_server_count;
        const int above = *count;
        BASIN_RETURN_IF_ERROR(nested.Read(name, count, 0, kMostTasks));
        if (fields.Has(name) && *count != above) {
          return nested.ErrorAt(name,
                                absl::StrCat(*count, " conflicts with ", name, ": ", above, "; remove one of the two"));
        }
      }
    }
  } else if (lower.empty()) {
    return fields.Unimplemented("distributed_backend",
                                "not given, and this version runs the ps backend alone; write "
                                "distributed_backend: ps");
  }
  if (job->worker_count < 1) return fields.ErrorAt("worker_count", "found 0, at least one worker is needed");
  if (job->parameter_server_count < 1) {
    return fields.ErrorAt("parameter_server_count",
                          "found 0, but the ps backend needs at least one; basin-worker alone "
                          "trains without");
  }
  return absl::OkStatus();
}

absl::Status ReadInputs(const YamlFields& fields, const std::string& file, const JobOverrides& overrides, Job* job) {
  if (fields.Has("inputs")) {
    const YAML::Node list = fields.Value("inputs");
    if (!list.IsSequence()) {
      return fields.ErrorAt("inputs",
                            absl::StrCat("expected a list of {name: NAME, path: PATH}, found ", Describe(list)));
    }
    for (size_t i = 0; i < list.size(); ++i) {
      BASIN_ASSIGN_OR_RETURN(const YamlFields item,
                             YamlFields::From(list[i], file, absl::StrCat("inputs[", i, "]"), {"name", "path"}));
      JobInput input;
      BASIN_RETURN_IF_ERROR(item.Read("name", &input.name));
      BASIN_RETURN_IF_ERROR(item.Read("path", &input.path));
      if (!IsName(input.name, "_") || absl::ascii_isdigit(input.name[0])) {
        return item.ErrorAt("name", absl::StrCat("\"", input.name,
                                                 "\" is no name; use letters, digits and _ (it becomes a "
                                                 "part of a variable's name)"));
      }
      if (input.path.empty()) return item.ErrorAt("path", "not given; write where the data lies");
      if (input.path[0] != '/' && !overrides.base_folder.empty()) {
        input.path = absl::StrCat(overrides.base_folder, "/", input.path);
      }
      for (const JobInput& other : job->inputs) {
        if (absl::EqualsIgnoreCase(other.name, input.name)) {
          return item.ErrorAt("name", absl::StrCat("\"", input.name, "\" is there twice (letter case does not count)"));
        }
      }
      job->inputs.push_back(std::move(input));
    }
  }
  for (const std::string& text : overrides.inputs) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    const auto found = std::find_if(job->inputs.begin(), job->inputs.end(),
                                    [&](const JobInput& input) { return input.name == parts.first; });
    if (parts.second.empty() || !IsName(parts.first, "_") || absl::ascii_isdigit(parts.first[0])) {
      return absl::InvalidArgumentError(
          absl::StrCat("--input ", text, ": expected name=path, such as --input data=/data"));
    }
    if (found != job->inputs.end()) {
      found->path = parts.second;
    } else {
      job->inputs.push_back({parts.first, parts.second});
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFlag(absl::string_view place, absl::string_view flag) {
  if (flag.size() < 2 || flag[0] != '-' || absl::StrContains(flag, "=")) {
    return absl::InvalidArgumentError(absl::StrCat(place, "\"", flag, "\" is no flag; write --name: value"));
  }
  if (std::find(kReservedFlags.begin(), kReservedFlags.end(), std::string(flag)) != kReservedFlags.end()) {
    return absl::InvalidArgumentError(absl::StrCat(place, flag, " is set by the launcher; remove it"));
  }
  return absl::OkStatus();
}

absl::Status ReadScriptParams(const YamlFields& fields, const std::string& file, const JobOverrides& overrides,
                              Job* job) {
  if (fields.Has("script_params")) {
    const YAML::Node map = fields.Value("script_params");
    if (!map.IsMap()) {
      return fields.ErrorAt("script_params", absl::StrCat("expected a mapping {--flag: value}, found ", Describe(map)));
    }
    for (const auto& item : map) {
      const std::string place = absl::StrCat(MarkText(file, item.first.Mark()), "script_params: ");
      if (!item.first.IsScalar())
        return absl::InvalidArgumentError(absl::StrCat(place, "a flag is text, found ", Describe(item.first)));
      ScriptParam param{item.first.Scalar(), ""};
      BASIN_RETURN_IF_ERROR(CheckFlag(place, param.flag));
      for (const ScriptParam& other : job->script_params) {
        if (other.flag == param.flag)
          return absl::InvalidArgumentError(absl::StrCat(place, param.flag, " is given twice; remove one"));
      }
      if (item.second.IsScalar()) {
        param.value = item.second.Scalar();
      } else if (item.second.IsMap()) {
        BASIN_ASSIGN_OR_RETURN(
            const YamlFields reference,
            YamlFields::From(item.second, file, absl::StrCat("script_params.", param.flag), {"input"}));
        std::string name;
        BASIN_RETURN_IF_ERROR(reference.Read("input", &name));
        std::vector<std::string> names;
        for (const JobInput& input : job->inputs) {
          names.push_back(input.name);
          if (input.name == name) param.value = input.path;
        }
        if (param.value.empty()) {
          return reference.ErrorAt("input", absl::StrCat("no input is named \"", name, "\"; inputs: ",
                                                         names.empty() ? "none" : absl::StrJoin(names, ", ")));
        }
      } else {
        return absl::InvalidArgumentError(absl::StrCat(
            place, param.flag, ": expected a value, or \"\" for a bare flag, found ", Describe(item.second)));
      }
      job->script_params.push_back(std::move(param));
    }
  }
  for (const std::string& text : overrides.params) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    BASIN_RETURN_IF_ERROR(CheckFlag("--param: ", parts.first));
    const auto found = std::find_if(job->script_params.begin(), job->script_params.end(),
                                    [&](const ScriptParam& param) { return param.flag == parts.first; });
    if (found != job->script_params.end()) {
      found->value = parts.second;
    } else {
      job->script_params.push_back({parts.first, parts.second});
    }
  }
  return absl::OkStatus();
}

absl::Status ReadEnvironment(const YamlFields& fields, const std::string& file, Job* job) {
  if (!fields.Has("environment_variables")) return absl::OkStatus();
  const YAML::Node map = fields.Value("environment_variables");
  if (!map.IsMap()) {
    return fields.ErrorAt("environment_variables",
                          absl::StrCat("expected a mapping {NAME: value}, found ", Describe(map)));
  }
  for (const auto& item : map) {
    const std::string place = absl::StrCat(MarkText(file, item.first.Mark()), "environment_variables: ");
    if (!item.first.IsScalar() || item.first.Scalar().empty() || absl::StrContains(item.first.Scalar(), "=")) {
      return absl::InvalidArgumentError(absl::StrCat(place, Describe(item.first), " is no variable's name"));
    }
    const std::string& name = item.first.Scalar();
    if (!item.second.IsScalar()) {
      return absl::InvalidArgumentError(absl::StrCat(place, name, ": expected text, found ", Describe(item.second)));
    }
    if (std::find(kReservedVariables.begin(), kReservedVariables.end(), name) != kReservedVariables.end() ||
        absl::StartsWith(name, "BASIN_INPUT_") || absl::StartsWith(name, "AZUREML_DATAREFERENCE_")) {
      return absl::InvalidArgumentError(absl::StrCat(place, name, " is set by the launcher; remove it"));
    }
    job->environment_variables.emplace_back(name, item.second.Scalar());
  }
  return absl::OkStatus();
}

absl::Status ReadNumber(const YamlFields& fields, absl::string_view name, std::optional<double>* out, double least,
                        double below) {
  if (!fields.Has(name)) return absl::OkStatus();
  double number = 0;
  BASIN_RETURN_IF_ERROR(fields.Read(name, &number));
  if (number < least || number >= below) {
    return fields.ErrorAt(name, absl::StrCat("found ", number, ", expected at least ", least,
                                             below < 1e9 ? absl::StrCat(" and less than ", below) : std::string()));
  }
  *out = number;
  return absl::OkStatus();
}

absl::Status ReadTraining(const YamlFields& fields, const std::string& file, Job* job) {
  if (!fields.Has("training")) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const YamlFields training,
                         YamlFields::From(fields.Value("training"), file, "training",
                                          {"rule", "consistency", "tables", "dense", "checkpoint"}));
  for (const char* later : {"tables", "dense", "checkpoint"}) {
    if (training.Has(later)) return training.Unimplemented(later, "this version cannot do that; remove it");
  }
  std::string consistency = "async";
  BASIN_RETURN_IF_ERROR(training.Read("consistency", &consistency));
  if (consistency != "async") {
    return training.Unimplemented("consistency", absl::StrCat("this version trains asynchronously alone, found \"",
                                                              consistency, "\"; write consistency: async"));
  }
  if (!training.Has("rule")) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const YamlFields rule, YamlFields::From(training.Value("rule"), file, "training.rule",
                                                                 {"name", "learning_rate", "momentum", "nesterov",
                                                                  "beta1", "beta2", "epsilon"}));
  RuleChoice choice;
  BASIN_RETURN_IF_ERROR(rule.Read("name", &choice.name));
  const std::vector<std::string> rules = {"sgd", "momentum", "adagrad", "adam"};
  if (std::find(rules.begin(), rules.end(), choice.name) == rules.end()) {
    const auto nearest = Nearest(choice.name, rules);
    return rule.ErrorAt(
        "name", absl::StrCat(choice.name.empty() ? "not given" : absl::StrCat("unknown rule \"", choice.name, "\""),
                             "; supported: ", absl::StrJoin(rules, ", "),
                             nearest ? absl::StrCat("; did you mean \"", *nearest, "\"?") : ""));
  }
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "learning_rate", &choice.learning_rate, 0, 1e9));
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "momentum", &choice.momentum, 0, 1));
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "beta1", &choice.beta1, 0, 1));
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "beta2", &choice.beta2, 0, 1));
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "epsilon", &choice.epsilon, 0, 1e9));
  BASIN_RETURN_IF_ERROR(rule.Read("nesterov", &choice.nesterov));
  job->rule = choice;
  return absl::OkStatus();
}

absl::Status ReadNetwork(const YamlFields& fields, const std::string& file, Job* job) {
  if (!fields.Has("network")) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const YamlFields network, YamlFields::From(fields.Value("network"), file, "network",
                                                                    {"ports", "interface", "security"}));
  if (network.Has("interface")) {
    return network.Unimplemented("interface", "the local target uses the loopback interface; remove it");
  }
  std::string security = "token";
  BASIN_RETURN_IF_ERROR(network.Read("security", &security));
  if (security != "token") {
    return network.Unimplemented("security", absl::StrCat("found \"", security, "\", this version knows token alone"));
  }
  std::string ports;
  BASIN_RETURN_IF_ERROR(network.Read("ports", &ports));
  if (ports.empty()) return absl::OkStatus();
  const std::pair<std::string, std::string> ends = absl::StrSplit(ports, absl::MaxSplits('-', 1));
  PortRange& range = job->ports;
  if (!absl::SimpleAtoi(ends.first, &range.first) || !absl::SimpleAtoi(ends.second, &range.last) || range.first < 1 ||
      range.last > 65535 || range.first > range.last) {
    return network.ErrorAt("ports", absl::StrCat("expected FIRST-LAST within 1-65535, found \"", ports, "\""));
  }
  return absl::OkStatus();
}

absl::StatusOr<Job> Read(const YAML::Node& root, const std::string& file, const JobOverrides& overrides) {
  BASIN_ASSIGN_OR_RETURN(const YamlFields fields, YamlFields::From(root, file, "", KnownJobFields()));
  BASIN_RETURN_IF_ERROR(CheckConflicts(fields));
  int at_least_one = 1;
  BASIN_RETURN_IF_ERROR(fields.Read("node_count", &at_least_one, 1, kMostTasks));
  BASIN_RETURN_IF_ERROR(fields.Read("process_count_per_node", &at_least_one, 1, kMostTasks));
  Job job;
  BASIN_RETURN_IF_ERROR(ReadBackend(fields, file, &job));
  BASIN_RETURN_IF_ERROR(RefuseLaterFields(fields));
  BASIN_RETURN_IF_ERROR(ReadExperiment(fields, &job));
  BASIN_RETURN_IF_ERROR(ReadEntryScript(fields, &job));
  BASIN_RETURN_IF_ERROR(ReadInputs(fields, file, overrides, &job));
  BASIN_RETURN_IF_ERROR(ReadScriptParams(fields, file, overrides, &job));
  BASIN_RETURN_IF_ERROR(ReadEnvironment(fields, file, &job));
  BASIN_RETURN_IF_ERROR(fields.Read("chief_count", &job.chief_count, 0, 1));
  BASIN_RETURN_IF_ERROR(fields.Read("evaluator_count", &job.evaluator_count, 0, 1));
  // Docker is asked for by no accepted field, and the Python that is there is what tasks run in: both values hold.
  bool flag = false;
  BASIN_RETURN_IF_ERROR(fields.Read("use_docker", &flag));
  BASIN_RETURN_IF_ERROR(fields.Read("user_managed", &flag));
  BASIN_RETURN_IF_ERROR(ReadTraining(fields, file, &job));
  BASIN_RETURN_IF_ERROR(ReadNetwork(fields, file, &job));
  BASIN_RETURN_IF_ERROR(fields.Read("max_run_duration_seconds", &job.max_run_duration_seconds, 1, 1 << 30));
  BASIN_RETURN_IF_ERROR(fields.Read("cancel_grace_seconds", &job.cancel_grace_seconds, 0, 3600));
  const int in_cluster = job.parameter_server_count + job.chief_count + job.worker_count;
  if (const int there = job.ports.last - job.ports.first + 1; fields.Has("network") && there < in_cluster) {
    return fields.ErrorAt("network",
                          absl::StrCat(in_cluster, " tasks need a port each, but ports has ", there, "; widen it"));
  }
  return job;
}

}  // namespace

absl::StatusOr<Job> ParseJob(absl::string_view text, const std::string& file_name, const JobOverrides& overrides) {
  if (text.size() > kMostBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_name, ": ", text.size(), " bytes is too long for a job file (1 MiB)"));
  }
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() != 1) {
      return absl::InvalidArgumentError(absl::StrCat(file_name, ": expected one document, found ", documents.size()));
    }
    return Read(documents[0], file_name, overrides);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(MarkText(file_name, error.mark), "not valid YAML or JSON: ", error.msg));
  }
}

}  // namespace basin
