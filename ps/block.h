// Blocks of memory for shards: 64-byte aligned, reference-counted, and mapped for as long as the pool lives (a fresh
// page costs more than the copy into it). Blocks of 2 MiB and more lie in huge pages where the system has them.
//
// Whoever needs bytes that hold still has a BlockRef: a shard its values, a reply its payload on the way through the
// kernel. A writer that is the only holder (IsUnique) writes in place; otherwise it takes a fresh block. Blocks are
// given back by any thread, often by ZeroMQ's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/base/mutex.h"
#include "common/wire/frame.h"

namespace basin {

class BlockPool;

class BlockRef {
 public:
  BlockRef() = default;
  BlockRef(const BlockRef& other) : block_(other.block_) {
    if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
  }
  BlockRef(BlockRef&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  BlockRef& operator=(BlockRef other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~BlockRef() { Release(); }

  explicit operator bool() const { return block_ != nullptr; }
  size_t size() const { return block_->size; }
  const char* data() const { return reinterpret_cast<const char*>(block_) + kHeaderBytes; }
  const float* floats() const { return reinterpret_cast<const float*>(data()); }
  // REQUIRES: IsUnique().
  float* mutable_floats() { return reinterpret_cast<float*>(reinterpret_cast<char*>(block_) + kHeaderBytes); }
  // Whether nobody else holds the block. What other holders read of it has happened before this returns true.
  bool IsUnique() const { return block_->references.load(std::memory_order_acquire) == 1; }

  // The first `bytes` as a frame that holds a reference. REQUIRES: bytes <= size().
  wire::Frame ToFrame(size_t bytes) const;

 private:
  friend class BlockPool;
  struct alignas(64) Block {
    std::atomic<uint32_t> references{1};
    size_t size = 0;
    std::shared_ptr<BlockPool> pool;  // held while the block is out
  };
  static constexpr size_t kHeaderBytes = sizeof(Block);
  static_assert(kHeaderBytes == 64);

  explicit BlockRef(Block* block) : block_(block) {}
  void Release();

  Block* block_ = nullptr;
};

// Thread-safe. Held by shared_ptr: it lives until its last block has come back.
class BlockPool : public std::enable_shared_from_this<BlockPool> {
 public:
  // Makes memory ready for a device, for as long as the result lives; nullptr: it is used as it is.
  using Pin = std::function<std::shared_ptr<void>(void* memory, size_t bytes)>;
  // `limit_bytes`: of all blocks mapped; 0: none. `pin` is asked once for each piece of memory that blocks are cut
  // from.
  static std::shared_ptr<BlockPool> Make(size_t limit_bytes, Pin pin = nullptr);
  ~BlockPool();

  // A block of at least `bytes` with unknown content; an empty reference where the limit or the system is exceeded.
  BlockRef Allocate(size_t bytes);
  // Sets `bytes` aside in the plan, so that lanes which install at the same time do not promise the same memory twice.
  // False past the limit.
  bool Plan(size_t bytes);
  void Unplan(size_t bytes);

  // What Allocate(bytes) takes of the limit.
  static size_t Footprint(size_t bytes);
  size_t limit_bytes() const { return limit_; }
  size_t planned_bytes() const;
  size_t mapped_bytes() const;

 private:
  friend class BlockRef;
  enum class Source { kOwnMapping, kArena, kHeap };
  BlockPool(size_t limit, Pin pin) : limit_(limit), pin_(std::move(pin)) {}
  Source SourceOf(size_t footprint) const;
  void GiveBack(BlockRef::Block* block);
  void* NewMemory(size_t footprint);

  const size_t limit_;
  const Pin pin_;
  mutable Mutex mutex_;
  // By footprint. Shards have few sizes and keep them, so a block that came back fits the next request exactly.
  std::map<size_t, std::vector<BlockRef::Block*>> free_ ABSL_GUARDED_BY(mutex_);
  // Where shards' blocks are cut from; what is left of the last one.
  std::vector<char*> arenas_ ABSL_GUARDED_BY(mutex_);
  size_t arena_left_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::shared_ptr<void>> pinned_ ABSL_GUARDED_BY(mutex_);
  size_t mapped_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t planned_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace basin
