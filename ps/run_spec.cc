#include "ps/run_spec.h"

#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/wire/header.h"
#include "ps/variable_rules.h"

namespace basin {
namespace {

using wire::v1::Input;
using wire::v1::Model;
using wire::v1::RunSpec;
using wire::v1::Variable;

constexpr int kMaxInputs = 1024;
// Pieces of one input over all epochs.
constexpr uint64_t kMaxPieces = uint64_t{1} << 48;

template <class Proto>
bool Same(const Proto& a, const Proto& b) {
  return a.SerializeAsString() == b.SerializeAsString();
}

std::string ShapeText(const Variable& variable) {
  return absl::StrCat("[", absl::StrJoin(variable.shape(), ", "), "]");
}

std::string DTypeText(uint32_t number) {
  const std::optional<DType> dtype = DTypeFromNumber(number);
  return dtype ? std::string(Name(*dtype)) : absl::StrCat("dtype ", number);
}

std::string StatisticText(wire::v1::Statistic statistic) {
  switch (statistic) {
    case wire::v1::STATISTIC_UNSPECIFIED:
      return "trained by its rule";
    case wire::v1::STATISTIC_MEAN:
      return "a statistic (mean)";
    case wire::v1::STATISTIC_SUM:
      return "a statistic (sum)";
    case wire::v1::STATISTIC_LAST:
      return "a statistic (last)";
    default:
      return absl::StrCat("statistic ", static_cast<int>(statistic));
  }
}

std::string ConsistencyText(wire::v1::Consistency consistency) {
  switch (consistency) {
    case wire::v1::CONSISTENCY_ASYNC:
      return "async";
    case wire::v1::CONSISTENCY_BOUNDED_STALENESS:
      return "bounded_staleness";
    case wire::v1::CONSISTENCY_SYNC:
      return "sync";
    default:
      return absl::StrCat("consistency ", static_cast<int>(consistency));
  }
}

std::string InputText(const Input& input) {
  return absl::StrCat(input.items(), " items in pieces of ", input.piece_items(), ", ", input.epochs(),
                      " epochs, shuffle seed ", input.shuffle_seed());
}

absl::Status CheckName(absl::string_view what, const std::string& name) {
  if (name.empty())
    return absl::InvalidArgumentError(absl::StrCat("a ", what, " of the model has no name; give each one its own"));
  if (name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name of a ", what, " has ", name.size(), " bytes, at most ", kMaxNameBytes, " are allowed"));
  }
  return absl::OkStatus();
}

absl::Status CheckVariable(const Model& model, const Variable& variable) {
  BASIN_RETURN_IF_ERROR(CheckName("variable", variable.name()));
  const std::optional<DType> dtype = DTypeFromNumber(variable.dtype());
  if (!dtype)
    return absl::InvalidArgumentError(
        absl::StrCat("variable \"", variable.name(), "\": dtype ", variable.dtype(), " is unknown"));
  if (*dtype != DType::kF32) {
    return absl::UnimplementedError(absl::StrCat("variable \"", variable.name(), "\": dtype ", Name(*dtype),
                                                 " is not in this version; declare it as f32"));
  }
  if (static_cast<size_t>(variable.shape_size()) > kMaxRank) {
    return absl::InvalidArgumentError(absl::StrCat("variable \"", variable.name(), "\" has ", variable.shape_size(),
                                                   " dimensions, at most ", kMaxRank, " are allowed"));
  }
  uint64_t elements = 1;
  for (const int64_t dim : variable.shape()) {
    if (dim < 0)
      return absl::InvalidArgumentError(
          absl::StrCat("variable \"", variable.name(), "\": shape ", ShapeText(variable), " has a negative dimension"));
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(dim), &elements) || elements > (uint64_t{1} << 60)) {
      return absl::InvalidArgumentError(absl::StrCat("variable \"", variable.name(), "\": shape ", ShapeText(variable),
                                                     " is larger than any machine"));
    }
  }
  if (variable.statistic() < wire::v1::STATISTIC_UNSPECIFIED || variable.statistic() > wire::v1::STATISTIC_LAST) {
    return absl::InvalidArgumentError(
        absl::StrCat("variable \"", variable.name(), "\": ", StatisticText(variable.statistic()), " is unknown"));
  }
  if (variable.statistic() == wire::v1::STATISTIC_UNSPECIFIED) {
    const absl::Status rule = CheckRule(variable.has_rule() ? variable.rule() : model.rule());
    if (!rule.ok())
      return absl::Status(rule.code(), absl::StrCat("variable \"", variable.name(), "\": ", rule.message()));
  } else if (variable.has_rule()) {
    return absl::InvalidArgumentError(absl::StrCat("variable \"", variable.name(), "\" is ",
                                                   StatisticText(variable.statistic()), " and has a rule; choose one"));
  }
  const absl::Status initializer = CheckInitializer(variable.initializer());
  if (!initializer.ok())
    return absl::Status(initializer.code(),
                        absl::StrCat("variable \"", variable.name(), "\": ", initializer.message()));
  return absl::OkStatus();
}

absl::Status CheckInput(const Input& input) {
  BASIN_RETURN_IF_ERROR(CheckName("input", input.name()));
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("input \"", input.name(), "\" (", InputText(input), "): ", why));
  };
  if (input.piece_items() == 0) return refuse("a piece needs at least one item");
  if (input.epochs() == 0) return refuse("at least one epoch is needed");
  if (input.items() > (uint64_t{1} << 60) || input.piece_items() > (uint64_t{1} << 60))
    return refuse("more items than any data set has");
  const uint64_t pieces = input.items() / input.piece_items() + 1;
  if (pieces > kMaxPieces / input.epochs())
    return refuse(absl::StrCat("more than ", kMaxPieces, " pieces; make pieces larger"));
  return absl::OkStatus();
}

absl::Status Differ(absl::string_view declarer, absl::string_view what, absl::string_view expected,
                    absl::string_view found) {
  return absl::InvalidArgumentError(absl::StrCat("the model that ", declarer,
                                                 " declares differs from the run's: ", what, " is ", found,
                                                 ", the run has ", expected, "; start every task with the same model"));
}

}  // namespace

absl::Status CheckModel(const Model& model) {
  if (model.consistency() != wire::v1::CONSISTENCY_UNSPECIFIED && model.consistency() != wire::v1::CONSISTENCY_ASYNC) {
    return absl::UnimplementedError(
        absl::StrCat("consistency ", ConsistencyText(model.consistency()), " is not in this version; use async"));
  }
  if (static_cast<size_t>(model.variables_size()) > kMaxVariables) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has ", model.variables_size(), " variables, at most ", kMaxVariables, " are allowed"));
  }
  if (model.inputs_size() > kMaxInputs) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has ", model.inputs_size(), " inputs, at most ", kMaxInputs, " are allowed"));
  }
  std::set<absl::string_view> names;
  for (const Variable& variable : model.variables()) {
    BASIN_RETURN_IF_ERROR(CheckVariable(model, variable));
    if (!names.insert(variable.name()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("two variables are named \"", variable.name(), "\"; give each one its own"));
    }
  }
  names.clear();
  for (const Input& input : model.inputs()) {
    BASIN_RETURN_IF_ERROR(CheckInput(input));
    if (!names.insert(input.name()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("two inputs are named \"", input.name(), "\"; give each one its own"));
    }
  }
  return absl::OkStatus();
}

Model Canonical(Model model) {
  if (model.consistency() == wire::v1::CONSISTENCY_UNSPECIFIED) model.set_consistency(wire::v1::CONSISTENCY_ASYNC);
  for (Variable& variable : *model.mutable_variables()) {
    if (variable.has_rule() && Same(variable.rule(), model.rule())) variable.clear_rule();
  }
  return model;
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
  if (longer.model().variables_size() < shorter.model().variables_size() ||
      longer.generations_size() < shorter.generations_size() ||
      longer.model().inputs_size() < shorter.model().inputs_size()) {
    return Differ("the Install", "its size", absl::StrCat(shorter.model().variables_size(), " variables"),
                  absl::StrCat(longer.model().variables_size(), " variables"));
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

RunModel::RunModel(RunSpec spec, Placement placement) : spec_(std::move(spec)), placement_(std::move(placement)) {
  bytes_ = spec_.SerializeAsString();
  const uint64_t hash = wire::RunHash(bytes_);
  hash_.assign(reinterpret_cast<const char*>(&hash), sizeof(hash));
  for (const PlacedVariable& variable : placement_.variables()) {
    elements_ += variable.elements();
    parameter_bytes_ += variable.bytes();
  }
}

absl::StatusOr<RunModel> RunModel::Finish(RunSpec spec) {
  Placement placement = Placement::Make(static_cast<int>(spec.ps_count()));
  uint32_t at = 0;
  for (const uint32_t end : spec.generations()) {
    std::vector<PlacedVariable> added;
    for (; at < end; ++at) {
      const Variable& variable = spec.model().variables(static_cast<int>(at));
      added.push_back(
          {variable.name(), static_cast<DType>(variable.dtype()), {variable.shape().begin(), variable.shape().end()}});
    }
    BASIN_ASSIGN_OR_RETURN(placement, placement.Extend(added));
  }
  return RunModel(std::move(spec), std::move(placement));
}

absl::StatusOr<RunModel> RunModel::Make(const std::string& run_id, uint32_t ps_count, const Model& model) {
  RunSpec spec;
  spec.set_run_id(run_id);
  *spec.mutable_model() = model;
  spec.add_generations(static_cast<uint32_t>(model.variables_size()));
  spec.set_ps_count(ps_count);
  return Finish(std::move(spec));
}

absl::StatusOr<RunModel> RunModel::Extended(const Model& model) const {
  if (model.variables_size() <= spec_.model().variables_size() && model.inputs_size() <= spec_.model().inputs_size())
    return *this;
  RunSpec spec = spec_;
  for (int i = spec.model().variables_size(); i < model.variables_size(); ++i)
    *spec.mutable_model()->add_variables() = model.variables(i);
  for (int i = spec.model().inputs_size(); i < model.inputs_size(); ++i)
    *spec.mutable_model()->add_inputs() = model.inputs(i);
  spec.add_generations(static_cast<uint32_t>(spec.model().variables_size()));
  return Finish(std::move(spec));
}

absl::StatusOr<RunModel> RunModel::Read(absl::string_view bytes, absl::string_view hash) {
  const uint64_t expected = wire::RunHash(bytes);
  if (hash.size() != sizeof(expected) || std::memcmp(hash.data(), &expected, sizeof(expected)) != 0) {
    return absl::InvalidArgumentError("the RunSpec's hash does not fit its bytes");
  }
  RunSpec spec;
  if (!spec.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return absl::InvalidArgumentError("the RunSpec cannot be read");
  if (spec.ps_count() < 1 || spec.ps_count() > kMaxTasks) {
    return absl::InvalidArgumentError(
        absl::StrCat("the RunSpec names ", spec.ps_count(), " ps, expected 1 to ", kMaxTasks));
  }
  BASIN_RETURN_IF_ERROR(CheckModel(spec.model()));
  uint32_t before = 0;
  for (const uint32_t end : spec.generations()) {
    if (end < before || end > static_cast<uint32_t>(spec.model().variables_size())) {
      return absl::InvalidArgumentError("the RunSpec's generations do not count up to its variables");
    }
    before = end;
  }
  if (before != static_cast<uint32_t>(spec.model().variables_size()) || spec.generations_size() < 1 ||
      static_cast<size_t>(spec.generations_size()) > kMaxVariables) {
    return absl::InvalidArgumentError("the RunSpec's generations do not count up to its variables");
  }
  BASIN_ASSIGN_OR_RETURN(RunModel model, Finish(std::move(spec)));
  // The bytes that were hashed are the truth, should another protobuf have written them otherwise.
  model.bytes_ = std::string(bytes);
  model.hash_ = std::string(hash);
  return model;
}

}  // namespace basin
