#include "ps/block.h"

#include <cstdlib>
#include <new>

#include "common/base/limits.h"
#include "common/base/status_macros.h"

namespace basin {

wire::Frame BlockRef::ToFrame(size_t bytes) const {
  BASIN_CHECK(bytes <= size());
  return wire::Frame(data(), bytes, std::make_shared<const BlockRef>(*this));
}

void BlockRef::Release() {
  if (block_ == nullptr) return;
  // acq_rel: this holder's reads happen before whoever gets the memory next writes it.
  if (block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    const std::shared_ptr<BlockPool> pool = std::move(block_->pool);  // may be the last to hold it
    pool->GiveBack(block_);
  }
  block_ = nullptr;
}

std::shared_ptr<BlockPool> BlockPool::Make(size_t limit_bytes) {
  return std::shared_ptr<BlockPool>(new BlockPool(limit_bytes));
}

BlockPool::~BlockPool() {
  MutexLock lock(mutex_);
  for (auto& [footprint, blocks] : free_) {
    for (BlockRef::Block* block : blocks) {
      block->~Block();
      std::free(block);
    }
  }
}

size_t BlockPool::Footprint(size_t bytes) {
  const size_t data = (bytes + kShardAlignmentBytes - 1) / kShardAlignmentBytes * kShardAlignmentBytes;
  return BlockRef::kHeaderBytes + (data == 0 ? kShardAlignmentBytes : data);
}

BlockRef BlockPool::Allocate(size_t bytes) {
  const size_t footprint = Footprint(bytes);
  BlockRef::Block* block = nullptr;
  {
    MutexLock lock(mutex_);
    std::vector<BlockRef::Block*>& free = free_[footprint];
    if (!free.empty()) {
      block = free.back();
      free.pop_back();
    } else if (limit_ != 0 && (footprint > limit_ || mapped_ > limit_ - footprint)) {
      return BlockRef();
    } else {
      mapped_ += footprint;
    }
  }
  if (block == nullptr) {
    void* memory = std::aligned_alloc(kShardAlignmentBytes, footprint);
    if (memory == nullptr) {
      MutexLock lock(mutex_);
      mapped_ -= footprint;
      return BlockRef();
    }
    block = new (memory) BlockRef::Block;
    block->size = footprint - BlockRef::kHeaderBytes;
  }
  block->references.store(1, std::memory_order_relaxed);
  block->pool = shared_from_this();
  return BlockRef(block);
}

void BlockPool::GiveBack(BlockRef::Block* block) {
  MutexLock lock(mutex_);
  free_[Footprint(block->size)].push_back(block);
}

bool BlockPool::Plan(size_t bytes) {
  MutexLock lock(mutex_);
  if (limit_ != 0 && (bytes > limit_ || planned_ > limit_ - bytes)) return false;
  planned_ += bytes;
  return true;
}

void BlockPool::Unplan(size_t bytes) {
  MutexLock lock(mutex_);
  planned_ -= bytes;
}

size_t BlockPool::planned_bytes() const {
  MutexLock lock(mutex_);
  return planned_;
}

size_t BlockPool::mapped_bytes() const {
  MutexLock lock(mutex_);
  return mapped_;
}

}  // namespace basin
