#include "ps/shard.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rules/apply.h"
#include "ps/mutants.h"
#include "ps/variable_rules.h"

namespace basin {
namespace {

// Only after AllFinite has said no: the first element that is NaN or Inf.
size_t FirstNotFinite(absl::Span<const float> values) {
  size_t i = 0;
  while (i < values.size() && std::isfinite(values[i])) ++i;
  return i;
}

size_t SlotsOf(const ShardOptions& options) {
  return options.variable.statistic() == wire::v1::STATISTIC_UNSPECIFIED
             ? static_cast<size_t>(SlotCount(RuleOf(options.rule).kind))
             : 0;
}

}  // namespace

Shard::Shard(ShardOptions options, std::shared_ptr<BlockPool> pool)
    : options_(std::move(options)),
      pool_(std::move(pool)),
      rule_(RuleOf(options_.rule)),
      slot_count_(SlotsOf(options_)) {
  version_ = Version(options_.variable.initializer().kind() == wire::v1::INIT_KIND_ASSIGNED ? 0 : 1);
}

size_t Shard::Footprint(const ShardOptions& options) {
  return BlockPool::Footprint((options.end - options.begin) * sizeof(float)) * (1 + SlotsOf(options));
}

std::string Shard::Place() const {
  return absl::StrCat("\"", options_.variable.name(), "\" elements [", options_.begin, ", ", options_.end, ")");
}

absl::Status Shard::NoMemory(size_t bytes) const {
  return absl::ResourceExhaustedError(absl::StrCat(
      Place(), ": no memory for a block of ", bytes, " bytes, ", pool_->mapped_bytes(), " of ", pool_->limit_bytes(),
      " bytes are in use; start basin-ps with a larger --memory-limit or use more ps"));
}

const float* Shard::parameters() { return has_values() && EnsureParameters().ok() ? parameters_.floats() : nullptr; }

absl::Status Shard::EnsureParameters() {
  if (parameters_) return absl::OkStatus();
  BlockRef block = pool_->Allocate(bytes());
  if (!block) return NoMemory(bytes());
  Fill(InitOf(options_.variable.initializer()), FansOf(options_.variable.shape()), options_.begin,
       absl::MakeSpan(block.mutable_floats(), elements()));
  parameters_ = std::move(block);
  return absl::OkStatus();
}

absl::Status Shard::EnsureSlots() {
  if (slot_count_ == 0 || slots_[slot_count_ - 1]) return absl::OkStatus();
  std::array<BlockRef, kMaxSlots> slots;
  for (size_t i = 0; i < slot_count_; ++i) {
    BlockRef block = pool_->Allocate(bytes());
    if (!block) return NoMemory(bytes());
    std::fill_n(block.mutable_floats(), elements(), SlotInitialValue(rule_, static_cast<int>(i)));
    slots[i] = std::move(block);
  }
  slots_ = std::move(slots);
  return absl::OkStatus();
}

absl::StatusOr<bool> Shard::IsRepeat(const Write& write, const WriteRecord::Entry* record) const {
  return records_.IsRepeat({write.worker, write.incarnation, write.sequence}, record, [this] { return Place(); });
}

absl::StatusOr<Shard::Payload> Shard::CheckPayload(const Write& write) {
  if (write.payload.size() != bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("push to ", Place(), ": ", write.payload.size(), " bytes, the shard has ", bytes()));
  }
  Payload payload;
  const char* data = write.payload.data();
  if (reinterpret_cast<uintptr_t>(data) % alignof(float) != 0) {
    payload.copy = pool_->Allocate(bytes());
    if (!payload.copy) return NoMemory(bytes());
    std::memcpy(payload.copy.mutable_floats(), data, bytes());
    data = payload.copy.data();
  }
  payload.values = absl::MakeConstSpan(reinterpret_cast<const float*>(data), elements());
  if (!AllFinite(payload.values)) {
    // Memory that is shared with the client may be finite again by now: then there is no such element.
    const size_t at = FirstNotFinite(payload.values);
    return absl::InvalidArgumentError(
        absl::StrCat("push to ", Place(), ": element ", options_.begin + at, " is ",
                     at < payload.values.size() && std::isnan(payload.values[at]) ? "NaN" : "Inf"));
  }
  return payload;
}

void Shard::Recorded(const Write& write, WriteRecord::Entry* record) {
  records_.Note({write.worker, write.incarnation, write.sequence}, record);
  version_ = version_.next();
  ++writes_;
}

absl::StatusOr<Shard::Written> Shard::Apply(const Write& write) {
  WriteRecord::Entry* const record = records_.Find(write.worker);
  BASIN_ASSIGN_OR_RETURN(const bool repeat, IsRepeat(write, record));
  if (repeat) return Written{.repeat = true};
  const absl::StatusOr<Payload> payload = CheckPayload(write);
  if (!payload.ok()) {
    if (BASIN_MUTANT(kRefusedPushUsesSequence))
      records_.Note({write.worker, write.incarnation, write.sequence}, record);
    return payload.status();
  }
  if (!has_values()) {
    return absl::FailedPreconditionError(
        absl::StrCat("push to ", Place(), ", which waits for its values; Assign them first"));
  }
  BASIN_RETURN_IF_ERROR(EnsureParameters());
  BASIN_RETURN_IF_ERROR(EnsureSlots());

  // Every block that somebody else reads is replaced by a fresh one; all are there before anything is written.
  BlockRef fresh_parameters;
  std::array<BlockRef, kMaxSlots> fresh_slots;
  for (size_t i = 0; i <= slot_count_; ++i) {
    const BlockRef& held = i == 0 ? parameters_ : slots_[i - 1];
    if (held.IsUnique() || BASIN_MUTANT(kServeTornShard)) continue;
    BlockRef block = pool_->Allocate(bytes());
    if (!block) return NoMemory(bytes());
    (i == 0 ? fresh_parameters : fresh_slots[i - 1]) = std::move(block);
  }

  const uint64_t before = version_.value();
  const bool drop = BASIN_MUTANT(kAcknowledgeBeforeApply) && writes_ % 5 == 4;
  if (!drop) {
    ++rule_steps_;
    const auto in = [&](const BlockRef& block) { return absl::MakeConstSpan(block.floats(), elements()); };
    const auto out = [&](BlockRef& fresh, BlockRef& held) {
      return absl::MakeSpan(fresh ? fresh.mutable_floats() : held.mutable_floats(), elements());
    };
    if (options_.variable.statistic() != wire::v1::STATISTIC_UNSPECIFIED) {
      ApplyStatistic(static_cast<Statistic>(options_.variable.statistic()), rule_steps_, payload->values,
                     in(parameters_), out(fresh_parameters, parameters_));
    } else {
      ApplyArguments arguments{
          .gradient = payload->values,
          .parameters_in = in(parameters_),
          .parameters_out = out(fresh_parameters, parameters_),
          .step = rule_steps_,
          .learning_rate = std::isnan(write.learning_rate) ? rule_.learning_rate : write.learning_rate};
      for (size_t i = 0; i < slot_count_; ++i) {
        arguments.slots_in[i] = in(slots_[i]);
        arguments.slots_out[i] = out(fresh_slots[i], slots_[i]);
      }
      basin::Apply(rule_, arguments);
    }
    if (fresh_parameters) parameters_ = std::move(fresh_parameters);
    for (size_t i = 0; i < slot_count_; ++i) {
      if (fresh_slots[i]) slots_[i] = std::move(fresh_slots[i]);
    }
  }
  Recorded(write, record);
  return Written{.staleness = before > write.pulled.value() ? before - write.pulled.value() : 0};
}

absl::StatusOr<Shard::Written> Shard::Assign(const Write& write) {
  WriteRecord::Entry* const record = records_.Find(write.worker);
  BASIN_ASSIGN_OR_RETURN(const bool repeat, IsRepeat(write, record));
  if (repeat) return Written{.repeat = true};
  BASIN_ASSIGN_OR_RETURN(const Payload payload, CheckPayload(write));
  if (!parameters_ || !parameters_.IsUnique()) {
    BlockRef block = pool_->Allocate(bytes());
    if (!block) return NoMemory(bytes());
    parameters_ = std::move(block);
  }
  if (bytes() > 0) std::memcpy(parameters_.mutable_floats(), payload.values.data(), bytes());
  slots_ = {};
  rule_steps_ = 0;
  Recorded(write, record);
  return Written{};
}

absl::StatusOr<wire::Frame> Shard::Read() {
  if (!has_values()) return absl::UnavailableError(absl::StrCat(Place(), " waits for its values"));
  BASIN_RETURN_IF_ERROR(EnsureParameters());
  return parameters_.ToFrame(bytes());
}

}  // namespace basin
