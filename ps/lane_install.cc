// The RunSpec arrives, and the lane makes the shards that placement gives to it.
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "ps/block.h"
#include "ps/coordinator.h"
#include "ps/lane_core.h"
#include "ps/lane_rows.h"
#include "ps/run_spec.h"
#include "ps/shard.h"

namespace basin {

absl::Status LaneCore::Install(const wire::v1::Install& install) {
  if (model_ && install.spec_hash() == model_->hash() && install.spec() == model_->bytes()) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(RunModel model, RunModel::Read(install.spec(), install.spec_hash()));
  if (model.spec().run_id() != run_id_) {
    return absl::FailedPreconditionError(
        absl::StrCat(Me(), " belongs to run \"", run_id_, "\", the RunSpec to run \"", model.spec().run_id(), "\""));
  }
  if (ps_count_ != 0 && model.spec().ps_count() != ps_count_) {
    return absl::InvalidArgumentError(
        absl::StrCat(Me(), " is one of ", ps_count_, " ps, the RunSpec is for ", model.spec().ps_count()));
  }
  if (static_cast<uint32_t>(install.lanes_size()) != model.spec().ps_count() ||
      options_.ordinal.value() >= model.spec().ps_count() ||
      install.lanes(static_cast<int>(options_.ordinal.value())) != options_.lanes) {
    return absl::InvalidArgumentError(
        absl::StrCat("Install does not name ", options_.lanes, " lanes for ps ", options_.ordinal.value()));
  }
  if (coordinator_) {
    if (coordinator_->model() == nullptr) return absl::FailedPreconditionError("no model was declared yet");
    BASIN_RETURN_IF_ERROR(CheckExtends(model.spec(), coordinator_->model()->spec()));
  }
  if (model_) {
    // An older generation of what is here: nothing to do.
    if (CheckExtends(model.spec(), model_->spec()).ok()) return absl::OkStatus();
    BASIN_RETURN_IF_ERROR(CheckExtends(model_->spec(), model.spec()));
  }
  BASIN_RETURN_IF_ERROR(MakeShards(model));
  model_ = std::make_unique<RunModel>(std::move(model));
  return absl::OkStatus();
}

absl::Status LaneCore::MakeShards(const RunModel& model) {
  const std::vector<ShardPlace>& places = model.placement().shards();
  const size_t before = shards_.size();
  std::vector<std::unique_ptr<Shard>> made(places.size() - before);
  size_t bytes = 0, count = 0;
  for (size_t i = before; i < places.size(); ++i) {
    const ShardPlace& place = places[i];
    const ShardId id(static_cast<uint32_t>(i));
    if (place.ps != options_.ordinal || model.placement().lane_of(id, options_.lanes) != options_.lane) continue;
    const wire::v1::Variable& variable = model.spec().model().variables(static_cast<int>(place.variable.value()));
    ShardOptions shard{
        .id = id, .variable = variable, .rule = model.rule_of(variable), .begin = place.begin, .end = place.end};
    bytes += Shard::Footprint(shard);
    ++count;
    made[i - before] = std::make_unique<Shard>(std::move(shard), pool_);
  }
  if (!pool_->Plan(bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Me(), ": the model's shards need ", bytes, " bytes here with the rule's slots; ",
                     pool_->planned_bytes(), " of ", pool_->limit_bytes(),
                     " bytes are promised already; use more ps, or start basin-ps with a larger --memory-limit"));
  }
  for (auto& shard : made) shards_.push_back(std::move(shard));
  rows_->Install(model);
  counters_->shards.Add(count);
  return absl::OkStatus();
}

}  // namespace basin
