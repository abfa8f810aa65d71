// A shard: the unit of ownership and of atomicity. A range of a variable's elements with the slots of its rule, and the
// record of what was applied, which changes together with them or not at all.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/rules/rule_spec.h"
#include "common/wire/control.pb.h"
#include "common/wire/frame.h"
#include "ps/block.h"
#include "ps/write_record.h"

namespace basin {

struct ShardOptions {
  ShardId id;
  wire::v1::Variable variable;  // checked (run_spec.h)
  wire::v1::Rule rule;          // the variable's, or the model's
  uint64_t begin = 0, end = 0;  // elements of the variable, half-open
};

// Not thread-safe: its lane's. Frames that Read returned are read by other threads; the blocks see to that.
class Shard {
 public:
  Shard(ShardOptions options, std::shared_ptr<BlockPool> pool);

  // Which push or assignment.
  struct Write {
    uint32_t worker = 0;  // wire::WorkerKey
    Incarnation incarnation;
    Sequence sequence;
    Version pulled;
    float learning_rate = 0;  // instead of the rule's, when it is not NaN
    absl::Span<const char> payload;
  };
  struct Written {
    bool repeat = false;     // was applied before; nothing has changed
    uint64_t staleness = 0;  // version before this apply less version pulled; 0 for a repeat
  };
  // Both check everything first; after an error values, slots, version and record are as they were, and the sequence
  // is not used up. OUT_OF_RANGE: a gap; INVALID_ARGUMENT: sequence 0, the wrong size, NaN or Inf; FAILED_PRECONDITION
  // (Apply): the values were never assigned; RESOURCE_EXHAUSTED: no memory for a block.
  absl::StatusOr<Written> Apply(const Write& write);
  // New values; the slots start afresh.
  absl::StatusOr<Written> Assign(const Write& write);
  // The parameters as they are now, without a copy; they hold still for as long as the frame lives. UNAVAILABLE: waits
  // for its Assign.
  absl::StatusOr<wire::Frame> Read();

  // 0: none. Of another incarnation than the last one that wrote: 0.
  Sequence last_sequence(uint32_t worker, Incarnation incarnation) const { return records_.last(worker, incarnation); }
  void ForgetSequence(uint32_t worker) { records_.Forget(worker); }  // for a mutant

  ShardId id() const { return options_.id; }
  const wire::v1::Variable& variable() const { return options_.variable; }
  uint64_t elements() const { return options_.end - options_.begin; }
  size_t bytes() const { return elements() * sizeof(float); }
  Version version() const { return version_; }
  uint64_t writes() const { return writes_; }
  bool has_values() const { return version_.value() > 0; }
  // nullptr where there are no values. Fills them in if nobody has touched the shard.
  const float* parameters();
  const float* parameters() const { return const_cast<Shard*>(this)->parameters(); }
  // nullptr before the first push.
  const float* slot(size_t i) const { return i < kMaxSlots && slots_[i] ? slots_[i].floats() : nullptr; }
  // Of blocks, parameters and slots, when all are there.
  static size_t Footprint(const ShardOptions& options);

 private:
  // The record says whether this is the next, a repeat or a gap.
  absl::StatusOr<bool> IsRepeat(const Write& write, const WriteRecord::Entry* record) const;
  struct Payload {
    absl::Span<const float> values;
    BlockRef copy;  // where the message's bytes were not aligned for floats
  };
  absl::StatusOr<Payload> CheckPayload(const Write& write);
  absl::Status EnsureParameters();
  absl::Status EnsureSlots();
  absl::Status NoMemory(size_t bytes) const;
  void Recorded(const Write& write, WriteRecord::Entry* record);
  std::string Place() const;

  const ShardOptions options_;
  const std::shared_ptr<BlockPool> pool_;
  const RuleSpec rule_;
  // Empty until first touched: a large model is there at once, and filled in as it is used.
  BlockRef parameters_;
  const size_t slot_count_;
  std::array<BlockRef, kMaxSlots> slots_;  // the first slot_count_, from the first push on
  Version version_;
  uint64_t rule_steps_ = 0;  // pushes since the slots (or the statistic) began
  uint64_t writes_ = 0;
  WriteRecord records_;
};

}  // namespace basin
