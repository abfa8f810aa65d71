// Whether two declarations say the same, and where they begin to differ.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "ps/model_text.h"
#include "ps/run_spec.h"
#include "ps/variable_rules.h"

namespace basin {
namespace {

using wire::v1::Input;
using wire::v1::Model;
using wire::v1::RunSpec;
using wire::v1::Table;
using wire::v1::Variable;

template <class Proto>
bool Same(const Proto& a, const Proto& b) {
  return a.SerializeAsString() == b.SerializeAsString();
}

absl::Status Differ(absl::string_view declarer, absl::string_view what, absl::string_view expected,
                    absl::string_view found) {
  return absl::InvalidArgumentError(absl::StrCat("the model that ", declarer,
                                                 " declares differs from the run's: ", what, " is ", found,
                                                 ", the run has ", expected, "; start every task with the same model"));
}

// `no_rule`: the declarer leaves rules to the chief.
absl::Status CompareTable(const Model& spec, const Model& declared, int i, absl::string_view declarer, bool no_rule) {
  const Table &a = spec.tables(i), &b = declared.tables(i);
  const std::string name = absl::StrCat("table ", i, " (\"", a.name(), "\")");
  if (a.name() != b.name())
    return Differ(declarer, absl::StrCat("the name of table ", i), absl::StrCat("\"", a.name(), "\""),
                  absl::StrCat("\"", b.name(), "\""));
  if (a.dim() != b.dim())
    return Differ(declarer, absl::StrCat("the dim of ", name), absl::StrCat(a.dim()), absl::StrCat(b.dim()));
  if (a.storage() != b.storage())
    return Differ(declarer, absl::StrCat("the storage of ", name), DTypeText(a.storage()), DTypeText(b.storage()));
  if (!Same(a.initializer(), b.initializer()))
    return Differ(declarer, absl::StrCat("the initializer of ", name), InitializerText(a.initializer()),
                  InitializerText(b.initializer()));
  if (a.admit_after() != b.admit_after() || a.admit_probability() != b.admit_probability())
    return Differ(declarer, absl::StrCat("the admission of ", name), AdmissionText(a), AdmissionText(b));
  if (a.evict_unused_ms() != b.evict_unused_ms() || a.max_bytes() != b.max_bytes())
    return Differ(declarer, absl::StrCat("the eviction of ", name), EvictionText(a), EvictionText(b));
  if (no_rule && !b.has_rule()) return absl::OkStatus();
  const wire::v1::Rule& rule_a = a.has_rule() ? a.rule() : spec.rule();
  const wire::v1::Rule& rule_b = b.has_rule() ? b.rule() : declared.rule();
  if (!Same(rule_a, rule_b))
    return Differ(declarer, absl::StrCat("the rule of ", name), RuleText(rule_a), RuleText(rule_b));
  return absl::OkStatus();
}

std::string SizeText(const Model& model) {
  return absl::StrCat(model.variables_size(), " variables, ", model.tables_size(), " tables, ", model.inputs_size(),
                      " inputs");
}

}  // namespace

Model Canonical(Model model) {
  if (model.consistency() == wire::v1::CONSISTENCY_UNSPECIFIED) model.set_consistency(wire::v1::CONSISTENCY_ASYNC);
  for (Variable& variable : *model.mutable_variables()) {
    if (variable.has_rule() && Same(variable.rule(), model.rule())) variable.clear_rule();
  }
  for (Table& table : *model.mutable_tables()) {
    if (table.has_rule() && Same(table.rule(), model.rule())) table.clear_rule();
  }
  return model;
}

bool Covers(const Model& spec, const Model& declared) {
  return spec.variables_size() >= declared.variables_size() && spec.tables_size() >= declared.tables_size() &&
         spec.inputs_size() >= declared.inputs_size();
}

absl::Status Compare(const Model& spec, const Model& declared, absl::string_view declarer, bool loose) {
  const bool says_rule = declared.has_rule() && declared.rule().kind() != wire::v1::RULE_KIND_UNSPECIFIED;
  for (int i = 0; i < std::min(spec.variables_size(), declared.variables_size()); ++i) {
    const Variable &a = spec.variables(i), &b = declared.variables(i);
    const std::string name = absl::StrCat("variable ", i, " (\"", a.name(), "\")");
    if (a.name() != b.name())
      return Differ(declarer, absl::StrCat("the name of variable ", i), absl::StrCat("\"", a.name(), "\""),
                    absl::StrCat("\"", b.name(), "\""));
    if (a.dtype() != b.dtype())
      return Differ(declarer, absl::StrCat("the dtype of ", name), DTypeText(a.dtype()), DTypeText(b.dtype()));
    if (ShapeText(a) != ShapeText(b))
      return Differ(declarer, absl::StrCat("the shape of ", name), ShapeText(a), ShapeText(b));
    if (!Same(a.initializer(), b.initializer())) {
      return Differ(declarer, absl::StrCat("the initializer of ", name), InitializerText(a.initializer()),
                    InitializerText(b.initializer()));
    }
    if (a.statistic() != b.statistic())
      return Differ(declarer, name, StatisticText(a.statistic()), StatisticText(b.statistic()));
    if (a.statistic() != wire::v1::STATISTIC_UNSPECIFIED || (loose && !says_rule && !b.has_rule())) continue;
    const wire::v1::Rule& rule_a = a.has_rule() ? a.rule() : spec.rule();
    const wire::v1::Rule& rule_b = b.has_rule() ? b.rule() : declared.rule();
    if (!Same(rule_a, rule_b))
      return Differ(declarer, absl::StrCat("the rule of ", name), RuleText(rule_a), RuleText(rule_b));
  }
  for (int i = 0; i < std::min(spec.tables_size(), declared.tables_size()); ++i) {
    BASIN_RETURN_IF_ERROR(CompareTable(spec, declared, i, declarer, loose && !says_rule));
  }
  if (!(loose && !says_rule) && !Same(spec.rule(), declared.rule())) {
    return Differ(declarer, "the rule", RuleText(spec.rule()), RuleText(declared.rule()));
  }
  if (spec.consistency() != declared.consistency()) {
    return Differ(declarer, "the consistency", ConsistencyText(spec.consistency()),
                  ConsistencyText(declared.consistency()));
  }
  for (int i = 0; i < std::min(spec.inputs_size(), declared.inputs_size()); ++i) {
    const Input &a = spec.inputs(i), &b = declared.inputs(i);
    if (a.name() != b.name())
      return Differ(declarer, absl::StrCat("the name of input ", i), absl::StrCat("\"", a.name(), "\""),
                    absl::StrCat("\"", b.name(), "\""));
    if (!Same(a, b)) return Differ(declarer, absl::StrCat("input \"", a.name(), "\""), InputText(a), InputText(b));
  }
  if (spec.max_steps() != declared.max_steps() && !(loose && declared.max_steps() == 0)) {
    return Differ(declarer, "max_steps", absl::StrCat(spec.max_steps()), absl::StrCat(declared.max_steps()));
  }
  return absl::OkStatus();
}

absl::Status CheckExtends(const RunSpec& shorter, const RunSpec& longer) {
  if (shorter.run_id() != longer.run_id())
    return Differ("the Install", "the run id", shorter.run_id(), longer.run_id());
  if (shorter.ps_count() != longer.ps_count()) {
    return Differ("the Install", "the number of ps", absl::StrCat(shorter.ps_count()), absl::StrCat(longer.ps_count()));
  }
  BASIN_RETURN_IF_ERROR(Compare(shorter.model(), longer.model(), "the Install", /*loose=*/false));
  if (!Covers(longer.model(), shorter.model()) || longer.generations_size() < shorter.generations_size()) {
    return Differ("the Install", "its size", SizeText(shorter.model()), SizeText(longer.model()));
  }
  for (int i = 0; i < shorter.generations_size(); ++i) {
    if (shorter.generations(i) != longer.generations(i)) {
      return Differ("the Install", absl::StrCat("generation ", i + 1),
                    absl::StrCat(shorter.generations(i), " variables"),
                    absl::StrCat(longer.generations(i), " variables"));
    }
  }
  return absl::OkStatus();
}

}  // namespace basin
