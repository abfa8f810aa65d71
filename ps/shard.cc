#include "ps/shard.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "ps/host_values.h"
#include "ps/mutants.h"

namespace basin {

Shard::Shard(ShardOptions options)
    : options_(std::move(options)),
      version_(options_.variable.initializer().kind() == wire::v1::INIT_KIND_ASSIGNED ? 0 : 1) {}

Shard::Shard(ShardOptions options, std::shared_ptr<BlockPool> pool) : Shard(std::move(options)) {
  values_ = std::make_unique<HostValues>(options_, std::move(pool));
}

Shard::Shard(ShardOptions options, ShardDevice& device) : Shard(std::move(options)) { values_ = device.Make(options_); }

absl::Status Shard::Start(Change change, const Write& write) {
  const size_t expected = elements() * SizeOf(write.dtype);
  if (write.payload.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat("push to ", options_.Place(), ": ", write.payload.size(),
                                                   " bytes, the shard has ", expected, " in ", Name(write.dtype)));
  }
  if (BASIN_MUTANT(kAcknowledgeBeforeApply) && writes_ % 5 == 4) return absl::OkStatus();
  if (change == Change::kAssign) {
    return write.on_device ? values_->AssignOnDevice(write.payload.data()) : values_->Assign(write.payload);
  }
  if (!has_values()) {
    return absl::FailedPreconditionError(
        absl::StrCat("push to ", options_.Place(), ", which waits for its values; Assign them first"));
  }
  return values_->Apply(
      {.gradient =
           {.type = write.dtype, .data = write.payload.data(), .on_device = write.on_device, .elements = elements()},
       .count = pushes_ + 1,
       .learning_rate = std::isnan(write.learning_rate) ? options_.rule.learning_rate() : write.learning_rate});
}

absl::StatusOr<bool> Shard::Begin(Change change, const Write& write) {
  BASIN_CHECK(!begun_);
  const WriteRecord::Write key{write.worker, write.incarnation, write.sequence};
  WriteRecord::Entry* const record = records_.Find(write.worker);
  BASIN_ASSIGN_OR_RETURN(const bool repeat, records_.IsRepeat(key, record, [this] { return options_.Place(); }));
  if (repeat) return false;
  if (absl::Status status = Start(change, write); !status.ok()) {
    if (BASIN_MUTANT(kRefusedPushUsesSequence)) records_.Note(key, record);
    return status;
  }
  begun_ = {change, key, record, write.pulled};
  return true;
}

absl::StatusOr<Shard::Written> Shard::End() {
  BASIN_CHECK(begun_);
  const Begun begun = *begun_;
  begun_.reset();
  BASIN_RETURN_IF_ERROR(values_->Settle());
  records_.Note(begun.write, begun.record);
  const uint64_t before = version_.value();
  version_ = version_.next();
  ++writes_;
  if (begun.change == Change::kAssign) {
    pushes_ = 0;
    return Written{};
  }
  ++pushes_;
  return Written{.staleness = before > begun.pulled.value() ? before - begun.pulled.value() : 0};
}

absl::StatusOr<Shard::Written> Shard::Carry(Change change, const Write& write) {
  BASIN_ASSIGN_OR_RETURN(const bool begun, Begin(change, write));
  if (!begun) return Written{.repeat = true};
  return End();
}

absl::Status Shard::CheckValues() const {
  if (has_values()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(options_.Place(), " waits for its values"));
}

absl::StatusOr<wire::Frame> Shard::Read() {
  BASIN_RETURN_IF_ERROR(CheckValues());
  return values_->Read();
}

absl::Status Shard::ReadOnDevice(char* to) {
  BASIN_RETURN_IF_ERROR(CheckValues());
  return values_->ReadOnDevice(to);
}

}  // namespace basin
