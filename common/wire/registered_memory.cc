#include "common/wire/registered_memory.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <vector>

#include "common/base/mutex.h"
#include "common/wire/free_extents.h"
#include "common/wire/shm_memory.h"

namespace basin::wire {
namespace {

// Arenas are address space; memory is taken where it is touched. Large, so that a program needs few of them: each costs
// a descriptor here and a mapping at each lane.
constexpr size_t kArenaBytes = size_t{256} << 20;
// From here on freed pages go back to the system; smaller ones are zeroed and stay.
constexpr size_t kReturnBytes = size_t{64} << 10;
constexpr size_t kPage = 4096;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

struct Arena {
  Arena(uint64_t given_number, std::unique_ptr<ShmMemory> given)
      : number(given_number), memory(std::move(given)), free(memory->size()) {}
  const uint64_t number;
  const std::unique_ptr<ShmMemory> memory;
  FreeExtents free;                // always zero
  std::map<size_t, size_t> taken;  // offset -> bytes
};

// Never destroyed: memory may be given back by destructors that run at exit.
class Registry final {
 public:
  static Registry& Get() {
    static Registry* const registry = new Registry;
    return *registry;
  }

  void* Allocate(size_t bytes) {
    MutexLock lock(mutex_);
    DropOthers();
    for (auto& arena : arenas_) {
      if (void* data = TakeFrom(*arena, bytes)) return data;
    }
    auto memory = ShmMemory::Make("basin-registered", std::max(kArenaBytes, RoundUp(bytes, kPage)));
    if (!memory.ok()) return nullptr;
    auto arena = std::make_unique<Arena>(next_number_++, *std::move(memory));
    void* data = TakeFrom(*arena, bytes);
    arenas_.insert(std::upper_bound(arenas_.begin(), arenas_.end(), arena,
                                    [](const auto& a, const auto& b) { return a->memory->data() < b->memory->data(); }),
                   std::move(arena));
    return data;
  }

  // False for memory that is not of an arena.
  bool Deallocate(char* data) {
    MutexLock lock(mutex_);
    DropOthers();
    for (const auto& [begin, end] : foreign_) {
      if (data >= begin && data < end) return true;  // the parent's, which has it still
    }
    const auto at = Find(data);
    if (at == arenas_.end()) return false;
    Arena& arena = **at;
    const size_t offset = static_cast<size_t>(data - arena.memory->data());
    const auto taken = arena.taken.find(offset);
    if (taken == arena.taken.end()) return true;
    const size_t bytes = taken->second;
    arena.taken.erase(taken);
    Zero(arena, offset, bytes);
    arena.free.Give(offset, bytes);
    // One empty arena stays, so that memory that comes and goes makes no new segments.
    if (arena.taken.empty() && std::any_of(arenas_.begin(), arenas_.end(), [&](const auto& other) {
          return other.get() != &arena && other->taken.empty();
        })) {
      arenas_.erase(at);
    }
    return true;
  }

  std::optional<RegisteredRange> Locate(const char* data, size_t bytes) {
    MutexLock lock(mutex_);
    if (arenas_.empty() || owner_ != getpid()) return std::nullopt;
    const auto at = Find(data);
    if (at == arenas_.end()) return std::nullopt;
    const ShmMemory& memory = *(*at)->memory;
    const auto offset = static_cast<size_t>(data - memory.data());
    if (bytes > memory.size() - offset) return std::nullopt;
    return RegisteredRange{
        .segment = (*at)->number, .fd = memory.fd(), .segment_bytes = memory.size(), .offset = offset};
  }

 private:
  using Arenas = std::vector<std::unique_ptr<Arena>>;

  // After a fork the arenas are the parent's: the mappings stay (the child may read them), but nothing is given out of
  // them here.
  void DropOthers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (owner_ == getpid()) return;
    owner_ = getpid();
    for (auto& arena : arenas_) {
      foreign_.emplace_back(arena->memory->data(), arena->memory->data() + arena->memory->size());
      arena.release();  // unmapping would pull the memory from under the child's own pointers
    }
    arenas_.clear();
  }

  Arenas::iterator Find(const char* data) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    auto at = std::upper_bound(arenas_.begin(), arenas_.end(), data,
                               [](const char* value, const auto& arena) { return value < arena->memory->data(); });
    if (at == arenas_.begin()) return arenas_.end();
    --at;
    return data < (*at)->memory->data() + (*at)->memory->size() ? at : arenas_.end();
  }

  static void* TakeFrom(Arena& arena, size_t bytes) {
    const std::optional<size_t> offset = arena.free.Take(bytes);
    if (!offset) return nullptr;
    arena.taken.emplace(*offset, bytes);
    return arena.memory->data() + *offset;
  }

  static void Zero(const Arena& arena, size_t offset, size_t bytes) {
    char* const data = arena.memory->data();
    const size_t end = offset + bytes;
    if (bytes >= kReturnBytes) {
      const size_t first = RoundUp(offset, kPage), last = end / kPage * kPage;
      if (fallocate(arena.memory->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(first),
                    static_cast<off_t>(last - first)) == 0) {
        std::memset(data + offset, 0, first - offset);
        std::memset(data + last, 0, end - last);
        return;
      }
    }
    std::memset(data + offset, 0, bytes);
  }

  Mutex mutex_;
  Arenas arenas_ ABSL_GUARDED_BY(mutex_);  // by address
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 1;
  pid_t owner_ ABSL_GUARDED_BY(mutex_) = getpid();
  std::vector<std::pair<const char*, const char*>> foreign_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

void* AllocateRegistered(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  bytes = std::max(RoundUp(bytes, FreeExtents::kAlignment), FreeExtents::kAlignment);
  if (void* data = Registry::Get().Allocate(bytes)) return data;
  void* data = std::aligned_alloc(FreeExtents::kAlignment, bytes);
  if (data != nullptr) std::memset(data, 0, bytes);
  return data;
}

void DeallocateRegistered(void* memory) {
  if (memory == nullptr) return;
  if (!Registry::Get().Deallocate(static_cast<char*>(memory))) std::free(memory);
}

std::optional<RegisteredRange> FindRegistered(const void* data, size_t bytes) {
  return Registry::Get().Locate(static_cast<const char*>(data), bytes);
}

}  // namespace basin::wire
