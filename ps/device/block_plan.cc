#include "ps/device/block_plan.h"

#include <algorithm>

namespace basin {

void BlockPlan::Add(const ShardOptions& shard) {
  OfSize& size = sizes_[BlockBytes(shard.bytes())];
  const size_t blocks = 1 + shard.slots();
  ++size.shards;
  size.held += blocks;
  size.widest = std::max(size.widest, blocks);
}

std::map<size_t, size_t> BlockPlan::blocks() const {
  std::map<size_t, size_t> blocks;
  for (const auto& [bytes, size] : sizes_) {
    const size_t at_once = std::min({size.shards, kBatchBytes / bytes, kBatchShards});
    blocks[bytes] = size.held + at_once * size.widest;
  }
  return blocks;
}

uint64_t BlockPlan::bytes() const {
  uint64_t sum = 0;
  for (const auto& [bytes, count] : blocks()) sum += uint64_t{bytes} * count;
  return sum;
}

}  // namespace basin
