#include "ps/run_spec.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/wire/header.h"

namespace basin {
namespace {

using wire::v1::Model;
using wire::v1::RunSpec;
using wire::v1::Variable;

// Each adds a variable, a table or an input, of which there are fewer.
constexpr size_t kMaxGenerations = 2 * kMaxVariables;

}  // namespace

RunModel::RunModel(RunSpec spec, Placement placement)
    : spec_(std::move(spec)),
      placement_(std::move(placement)),
      table_placement_(TablePlacement::Make(static_cast<int>(spec_.ps_count()))) {
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
  if (Covers(spec_.model(), model)) return *this;
  RunSpec spec = spec_;
  for (int i = spec.model().variables_size(); i < model.variables_size(); ++i)
    *spec.mutable_model()->add_variables() = model.variables(i);
  for (int i = spec.model().inputs_size(); i < model.inputs_size(); ++i)
    *spec.mutable_model()->add_inputs() = model.inputs(i);
  for (int i = spec.model().tables_size(); i < model.tables_size(); ++i)
    *spec.mutable_model()->add_tables() = model.tables(i);
  // Each of both was checked by itself: a new table may still have the name of a variable that `model` left out.
  BASIN_RETURN_IF_ERROR(CheckModel(spec.model()));
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
      static_cast<size_t>(spec.generations_size()) > kMaxGenerations) {
    return absl::InvalidArgumentError("the RunSpec's generations do not count up to its variables");
  }
  BASIN_ASSIGN_OR_RETURN(RunModel model, Finish(std::move(spec)));
  // The bytes that were hashed are the truth, should another protobuf have written them otherwise.
  model.bytes_ = std::string(bytes);
  model.hash_ = std::string(hash);
  return model;
}

}  // namespace basin
