// What may be declared.
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "cluster_spec/table_placement.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "ps/model_text.h"
#include "ps/run_spec.h"
#include "ps/variable_rules.h"

namespace basin {
namespace {

using wire::v1::Input;
using wire::v1::Model;
using wire::v1::Table;
using wire::v1::Variable;

constexpr int kMaxInputs = 1024;
// Pieces of one input over all epochs.
constexpr uint64_t kMaxPieces = uint64_t{1} << 48;
// Pushes that a key may be made to wait for: more are no admission policy, but a table that never gets a row.
constexpr uint32_t kMaxAdmitAfter = 1000000;
constexpr uint64_t kMinTableBytes = uint64_t{1} << 20;
constexpr float kMaxF16 = 65504;

absl::Status CheckName(absl::string_view what, const std::string& name) {
  if (name.empty())
    return absl::InvalidArgumentError(absl::StrCat("a ", what, " of the model has no name; give each one its own"));
  if (name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name of a ", what, " has ", name.size(), " bytes, at most ", kMaxNameBytes, " are allowed"));
  }
  return absl::OkStatus();
}

// As CheckRule, for a variable.
absl::Status CheckVariableRule(const wire::v1::Rule& rule) {
  if (IsForTablesOnly(RuleOf(rule).kind)) {
    return absl::InvalidArgumentError(absl::StrCat("rule ", Name(RuleOf(rule).kind),
                                                   " is for tables, which have rows; give the variable a rule of its "
                                                   "own, such as adagrad"));
  }
  return CheckRule(rule);
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
    const absl::Status rule = CheckVariableRule(variable.has_rule() ? variable.rule() : model.rule());
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

absl::Status CheckTable(const Model& model, const Table& table) {
  BASIN_RETURN_IF_ERROR(CheckName("table", table.name()));
  const auto refuse = [&](const auto&... why) {
    return absl::InvalidArgumentError(absl::StrCat("table \"", table.name(), "\": ", why...));
  };
  if (table.dim() < 1 || table.dim() > kMaxTableDim)
    return refuse("dim is ", table.dim(), ", expected 1 to ", kMaxTableDim);
  const std::optional<DType> storage = DTypeFromNumber(table.storage());
  if (storage != DType::kF32 && storage != DType::kF16 && storage != DType::kBF16)
    return refuse("storage is ", DTypeText(table.storage()), ", expected f32, f16 or bf16");
  const absl::Status rule = CheckRule(table.has_rule() ? table.rule() : model.rule());
  if (!rule.ok()) return absl::Status(rule.code(), absl::StrCat("table \"", table.name(), "\": ", rule.message()));
  const wire::v1::Initializer& initializer = table.initializer();
  if (initializer.kind() > wire::v1::INIT_KIND_NORMAL && initializer.kind() <= wire::v1::INIT_KIND_ASSIGNED) {
    return refuse("initializer ", InitializerText(initializer), " is for variables; a row's is zeros, constant, ",
                  "uniform or normal");
  }
  if (const absl::Status checked = CheckInitializer(initializer); !checked.ok())
    return absl::Status(checked.code(), absl::StrCat("table \"", table.name(), "\": ", checked.message()));
  if (storage == DType::kF16 && initializer.kind() != wire::v1::INIT_KIND_ZEROS &&
      (std::abs(initializer.a()) > kMaxF16 ||
       (initializer.kind() != wire::v1::INIT_KIND_CONSTANT && std::abs(initializer.b()) > kMaxF16))) {
    return refuse("initializer ", InitializerText(initializer), " does not fit f16, whose largest number is ", kMaxF16,
                  "; store the rows as bf16 or f32");
  }
  if (table.admit_after() < 1 || table.admit_after() > kMaxAdmitAfter)
    return refuse("admit_after is ", table.admit_after(), ", expected 1 to ", kMaxAdmitAfter);
  if (!(table.admit_probability() > 0 && table.admit_probability() <= 1))
    return refuse("admit_probability is ", table.admit_probability(), ", expected more than 0 and at most 1");
  if (table.evict_unused_ms() > kMaxEvictUnusedMs)
    return refuse("evict_unused is ", table.evict_unused_ms(), " ms, at most ", kMaxEvictUnusedMs,
                  " (100 years) are allowed; 0 is never");
  if (table.max_bytes() != 0 && table.max_bytes() < kMinTableBytes)
    return refuse("max_bytes is ", table.max_bytes(), ", at least ", kMinTableBytes,
                  " are needed; 0 is what the servers' memory limit leaves");
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
  if (static_cast<size_t>(model.tables_size()) > kMaxTables) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has ", model.tables_size(), " tables, at most ", kMaxTables, " are allowed"));
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
  for (const Table& table : model.tables()) {
    BASIN_RETURN_IF_ERROR(CheckTable(model, table));
    if (!names.insert(table.name()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("table \"", table.name(), "\" has the name of another table or variable; give each its own"));
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

}  // namespace basin
