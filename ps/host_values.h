// Values of a shard in blocks of the ps's memory. A reply refers to the block; a write goes in place where nobody does,
// else into a fresh one.
#pragma once

#include <array>
#include <memory>

#include "ps/block.h"
#include "ps/shard_values.h"

namespace basin {

class HostValues final : public ShardValues {
 public:
  // `options` outlive it.
  HostValues(const ShardOptions& options, std::shared_ptr<BlockPool> pool);
  // Of blocks, parameters and slots, when all are there.
  static size_t Footprint(const ShardOptions& options) {
    return BlockPool::Footprint(options.bytes()) * (1 + options.slots());
  }

  absl::Status Apply(const Push& push) override;
  absl::Status Assign(absl::Span<const char> parameters) override;
  absl::Status Settle() override { return absl::OkStatus(); }  // all was done at once
  absl::StatusOr<wire::Frame> Read() override;
  const float* on_host() override { return EnsureParameters().ok() ? parameters_.floats() : nullptr; }

 private:
  struct Fresh {
    BlockRef parameters;
    std::array<BlockRef, kMaxSlots> slots;
  };
  // The blocks in `fresh` are written instead of those held, where there are any.
  void ApplyInPieces(const Push& push, Fresh& fresh);
  absl::Status EnsureParameters();
  absl::Status EnsureSlots();
  absl::Status NoMemory() const;

  const ShardOptions& options_;
  const std::shared_ptr<BlockPool> pool_;
  const RuleSpec rule_;
  const size_t slot_count_;
  // Empty until first touched: a large model is there at once, and filled in as it is used.
  BlockRef parameters_;
  std::array<BlockRef, kMaxSlots> slots_;  // the first slot_count_, from the first push on
};

}  // namespace basin
