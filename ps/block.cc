#include "ps/block.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "common/base/limits.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// Large memory asks for huge pages: one entry of the processor's address cache for 2 MiB, where small pages spend much
// of the time on looking up addresses (`d[i] += s[i]` over 64 MiB: 10 GB/s on small pages, 15 on huge ones). Blocks of
// tables are as large as that themselves; shards are cut from arenas.
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kArenaBytes = size_t{16} << 20;  // of address space: memory comes with its first touch

size_t MappedBytes(size_t footprint) {
  constexpr size_t kPageBytes = 4096;
  return (footprint + kPageBytes - 1) / kPageBytes * kPageBytes;
}

// Aligned to a huge page: mapped with one more, and cut at both ends. Nothing where the system has no more.
void* MapHuge(size_t footprint) {
  const size_t bytes = MappedBytes(footprint);
  void* mapped = mmap(nullptr, bytes + kHugePageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(mapped);
  const size_t before = -reinterpret_cast<uintptr_t>(begin) % kHugePageBytes;
  if (before != 0) munmap(begin, before);
  munmap(begin + before + bytes, kHugePageBytes - before);
  madvise(begin + before, bytes, MADV_HUGEPAGE);  // advice: without it there are small pages
  return begin + before;
}

}  // namespace

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

std::shared_ptr<BlockPool> BlockPool::Make(size_t limit_bytes, Pin pin) {
  return std::shared_ptr<BlockPool>(new BlockPool(limit_bytes, std::move(pin)));
}

BlockPool::Source BlockPool::SourceOf(size_t footprint) const {
  if (footprint >= kHugePageBytes) return Source::kOwnMapping;
  return footprint >= kMinShardBytes || pin_ ? Source::kArena : Source::kHeap;  // the heap's pages are not ours to pin
}

BlockPool::~BlockPool() {
  MutexLock lock(mutex_);
  pinned_.clear();
  for (auto& [footprint, blocks] : free_) {
    for (BlockRef::Block* block : blocks) {
      block->~Block();
      if (SourceOf(footprint) == Source::kOwnMapping) munmap(block, MappedBytes(footprint));
      if (SourceOf(footprint) == Source::kHeap) std::free(block);
    }
  }
  for (char* arena : arenas_) munmap(arena, kArenaBytes);
}

void* BlockPool::NewMemory(size_t footprint) {
  const Source source = SourceOf(footprint);
  if (source == Source::kHeap) return std::aligned_alloc(kShardAlignmentBytes, footprint);
  if (source == Source::kOwnMapping) {
    void* memory = MapHuge(footprint);
    if (memory == nullptr || !pin_) return memory;
    MutexLock lock(mutex_);
    pinned_.push_back(pin_(memory, MappedBytes(footprint)));
    return memory;
  }
  MutexLock lock(mutex_);
  if (arena_left_ < footprint) {
    void* arena = MapHuge(kArenaBytes);
    if (arena == nullptr) return nullptr;
    arenas_.push_back(static_cast<char*>(arena));
    if (pin_) pinned_.push_back(pin_(arena, kArenaBytes));
    arena_left_ = kArenaBytes;
  }
  char* const memory = arenas_.back() + (kArenaBytes - arena_left_);
  arena_left_ -= footprint;
  return memory;
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
    void* memory = NewMemory(footprint);
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
