// A shard: the unit of ownership and of atomicity. A range of a variable's elements with the slots of its rule, and the
// record of what was applied, which changes together with them or not at all.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/dtype.h"
#include "common/base/ids.h"
#include "common/wire/frame.h"
#include "ps/block.h"
#include "ps/shard_device.h"
#include "ps/shard_values.h"
#include "ps/write_record.h"

namespace basin {

// Not thread-safe: its lane's. Frames that Read returned are read by other threads; the values see to that.
class Shard {
 public:
  // On the host, in blocks of the pool.
  Shard(ShardOptions options, std::shared_ptr<BlockPool> pool);
  // In the memory of a device, which has been reserved there.
  Shard(ShardOptions options, ShardDevice& device);
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  // Which push or assignment.
  struct Write {
    uint32_t worker = 0;  // wire::WorkerKey
    Incarnation incarnation;
    Sequence sequence;
    Version pulled;
    float learning_rate = 0;    // instead of the rule's, when it is not NaN
    DType dtype = DType::kF32;  // of the payload: kF32, or with Apply kF16 or kBF16
    absl::Span<const char> payload;
    bool on_device = false;  // the payload is memory of the shard's device
  };
  struct Written {
    bool repeat = false;     // was applied before; nothing has changed
    uint64_t staleness = 0;  // version before this apply less version pulled; 0 for a repeat
  };
  // Both check everything first; after an error values, slots, version and record are as they were, and the sequence
  // is not used up. OUT_OF_RANGE: a gap; INVALID_ARGUMENT: sequence 0, the wrong size, NaN or Inf; FAILED_PRECONDITION
  // (Apply): the values were never assigned; RESOURCE_EXHAUSTED: no memory for a block; INTERNAL: the device is lost.
  absl::StatusOr<Written> Apply(const Write& write) { return Carry(Change::kPush, write); }
  // New values; the slots start afresh.
  absl::StatusOr<Written> Assign(const Write& write) { return Carry(Change::kAssign, write); }

  // The same in two steps, so that a device takes many shards at once: Begin on each, one Run of the device, End on
  // each. False: a repeat, there is nothing to end. Until End, nothing else is asked of the shard but Read.
  enum class Change { kPush, kAssign };
  absl::StatusOr<bool> Begin(Change change, const Write& write);
  absl::StatusOr<Written> End();
  bool changing() const { return begun_.has_value(); }

  // The parameters as they are now, without a copy; they hold still for as long as the frame lives. In a device's
  // memory they are there once it has run, with the change that was begun. UNAVAILABLE: waits for its Assign.
  absl::StatusOr<wire::Frame> Read();
  // The same to memory of the shard's device.
  absl::Status ReadOnDevice(char* to);

  // 0: none. Of another incarnation than the last one that wrote: 0.
  Sequence last_sequence(uint32_t worker, Incarnation incarnation) const { return records_.last(worker, incarnation); }
  void ForgetSequence(uint32_t worker) { records_.Forget(worker); }  // for a mutant

  ShardId id() const { return options_.id; }
  const wire::v1::Variable& variable() const { return options_.variable; }
  uint64_t elements() const { return options_.elements(); }
  size_t bytes() const { return options_.bytes(); }
  Version version() const { return version_; }
  uint64_t writes() const { return writes_; }
  bool has_values() const { return version_.value() > 0; }
  // nullptr where there are no values, or where they lie on a device. Fills them in if nobody has touched the shard.
  const float* parameters() const { return has_values() ? values_->on_host() : nullptr; }

 private:
  explicit Shard(ShardOptions options);
  absl::StatusOr<Written> Carry(Change change, const Write& write);
  absl::Status Start(Change change, const Write& write);
  absl::Status CheckValues() const;

  const ShardOptions options_;
  std::unique_ptr<ShardValues> values_;
  Version version_;
  uint64_t pushes_ = 0;  // since the slots (or the statistic) began
  uint64_t writes_ = 0;
  WriteRecord records_;
  struct Begun {
    Change change;
    WriteRecord::Write write;
    WriteRecord::Entry* record;
    Version pulled;
  };
  std::optional<Begun> begun_;
};

}  // namespace basin
