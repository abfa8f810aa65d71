// How many blocks of device memory a lane's shards take. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "common/base/limits.h"
#include "ps/shard_values.h"

namespace basin {

// What one batch takes at most: the gradients of a message, and the shard that closed it.
inline constexpr size_t kBatchBytes = kMessageBytes + kMaxShardBytes;
inline constexpr size_t kBatchShards = 1024;

// Blocks have exact sizes, since shards have few and keep them. Besides those that hold values there are as many as one
// batch writes, for a push is written into fresh blocks, and the old ones come back when it has ended.
class BlockPlan {
 public:
  // What a block of these bytes takes: a multiple of what kernels want to be aligned, and never nothing.
  static constexpr size_t BlockBytes(size_t bytes) {
    constexpr size_t kAlignment = 256;
    return bytes == 0 ? kAlignment : (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  void Add(const ShardOptions& shard);
  // From the bytes of a block to the number of them.
  std::map<size_t, size_t> blocks() const;
  uint64_t bytes() const;

 private:
  struct OfSize {
    size_t shards = 0;
    size_t held = 0;    // blocks for parameters and slots
    size_t widest = 0;  // of a shard
  };
  std::map<size_t, OfSize> sizes_;
};

}  // namespace basin
