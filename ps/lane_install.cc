// The RunSpec arrives, and the lane makes the shards that placement gives to it.
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "ps/block.h"
#include "ps/coordinator.h"
#include "ps/host_values.h"
#include "ps/lane_core.h"
#include "ps/lane_rows.h"
#include "ps/run_spec.h"
#include "ps/shard.h"
#include "ps/shard_device.h"

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
  std::vector<ShardOptions> own;
  size_t bytes = 0;
  for (size_t i = before; i < places.size(); ++i) {
    const ShardPlace& place = places[i];
    const ShardId id(static_cast<uint32_t>(i));
    if (place.ps != options_.ordinal || model.placement().lane_of(id, options_.lanes) != options_.lane) continue;
    const wire::v1::Variable& variable = model.spec().model().variables(static_cast<int>(place.variable.value()));
    own.push_back(
        {.id = id, .variable = variable, .rule = model.rule_of(variable), .begin = place.begin, .end = place.end});
    bytes += HostValues::Footprint(own.back());
  }
  if (options_.device) {
    const absl::Status status = options_.device->Reserve(own, rows_->ForDevice(model));
    if (!status.ok()) return absl::Status(status.code(), absl::StrCat(Me(), ": ", status.message()));
    counters_->device_bytes.Set(options_.device->bytes());
  } else if (!pool_->Plan(bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Me(), ": the model's shards need ", bytes, " bytes here with the rule's slots; ",
                     pool_->planned_bytes(), " of ", pool_->limit_bytes(),
                     " bytes are promised already; use more ps, or start basin-ps with a larger --memory-limit"));
  }
  shards_.resize(places.size());
  counters_->shards.Add(own.size());
  for (ShardOptions& options : own) {
    std::unique_ptr<Shard>& shard = shards_[options.id.value()];
    shard = options_.device ? std::make_unique<Shard>(std::move(options), *options_.device)
                            : std::make_unique<Shard>(std::move(options), pool_);
  }
  // All lanes say the same.
  for (std::string& note : rows_->Install(model)) {
    if (options_.lane.value() == 0) Note(std::move(note));
  }
  return absl::OkStatus();
}

}  // namespace basin
