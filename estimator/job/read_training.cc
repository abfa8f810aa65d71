#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "estimator/job/job_fields.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

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

absl::Status ReadRule(const YamlFields& rule, RuleChoice* choice) {
  BASIN_RETURN_IF_ERROR(rule.Read("name", &choice->name));
  const std::vector<std::string> rules = {"sgd", "momentum", "adagrad", "adam"};
  if (std::find(rules.begin(), rules.end(), choice->name) == rules.end()) {
    const auto nearest = Nearest(choice->name, rules);
    return rule.ErrorAt(
        "name", absl::StrCat(choice->name.empty() ? "not given" : absl::StrCat("unknown rule \"", choice->name, "\""),
                             "; supported: ", absl::StrJoin(rules, ", "),
                             nearest ? absl::StrCat("; did you mean \"", *nearest, "\"?") : ""));
  }
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "learning_rate", &choice->learning_rate, 0, 1e9));
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "momentum", &choice->momentum, 0, 1));
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "beta1", &choice->beta1, 0, 1));
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "beta2", &choice->beta2, 0, 1));
  BASIN_RETURN_IF_ERROR(ReadNumber(rule, "epsilon", &choice->epsilon, 0, 1e9));
  return rule.Read("nesterov", &choice->nesterov);
}

}  // namespace

absl::Status ReadTraining(const YamlFields& fields, const std::string& file, Job* job) {
  if (!fields.Has("training")) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const YamlFields training,
                         YamlFields::From(fields.Value("training"), file, "training",
                                          {"rule", "consistency", "tables", "dense", "checkpoint"}));
  const std::pair<const char*, const char*> later[] = {
      {"tables", "a program declares its own tables; remove it"},
      {"dense", "dense variables are on the parameter servers; remove it"},
      {"checkpoint", "no checkpoints are kept; remove it, and let the script write to ./outputs"},
  };
  for (const auto& [name, next] : later) {
    if (!training.Has(name)) continue;
    return training.Unimplemented(
        name, absl::StrCat("this version cannot do that (found ", Describe(training.Value(name)), "); ", next));
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
  BASIN_RETURN_IF_ERROR(ReadRule(rule, &choice));
  job->rule = choice;
  return absl::OkStatus();
}

absl::Status ReadNetwork(const YamlFields& fields, const std::string& file, Job* job) {
  if (!fields.Has("network")) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const YamlFields network, YamlFields::From(fields.Value("network"), file, "network",
                                                                    {"ports", "interface", "security"}));
  if (network.Has("interface")) {
    return network.Unimplemented(
        "interface", absl::StrCat("this version cannot do that (found ", Describe(network.Value("interface")),
                                  "); give each node the address of that interface in the targets file"));
  }
  std::string security = "token";
  BASIN_RETURN_IF_ERROR(network.Read("security", &security));
  if (security != "token") {
    return network.Unimplemented(
        "security", absl::StrCat("found \"", security, "\", this version knows token alone; write security: token"));
  }
  std::string ports;
  BASIN_RETURN_IF_ERROR(network.Read("ports", &ports));
  if (ports.empty()) return absl::OkStatus();
  const std::pair<std::string, std::string> ends = absl::StrSplit(ports, absl::MaxSplits('-', 1));
  PortRange& range = job->ports;
  if (!absl::SimpleAtoi(ends.first, &range.first) || !absl::SimpleAtoi(ends.second, &range.last) || range.first < 1 ||
      range.last > 65535 || range.first > range.last) {
    return network.ErrorAt(
        "ports", absl::StrCat("expected FIRST-LAST within 1-65535, found \"", ports, "\"; write 20000-29999"));
  }
  return absl::OkStatus();
}

}  // namespace basin
