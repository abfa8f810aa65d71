// Which parts of a range are free: gives out the lowest one that fits, so that the same memory is used again while it
// is still in the caches. Pure; the memory itself is the owner's.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace basin::wire {

class FreeExtents final {
 public:
  static constexpr size_t kAlignment = 64;
  // All of [0, bytes) is free. REQUIRES: a multiple of kAlignment.
  explicit FreeExtents(size_t bytes);

  // Where `bytes` (rounded up to kAlignment; 0 counts as 1) are free, now taken; nothing where no extent is so large.
  std::optional<size_t> Take(size_t bytes);
  // REQUIRES: what Take(bytes) gave.
  void Give(size_t offset, size_t bytes);

  size_t taken_bytes() const { return taken_; }

 private:
  struct Extent {
    size_t begin, end;  // [begin, end)
  };
  std::vector<Extent> free_;  // by offset; never two that touch
  size_t taken_ = 0;
};

}  // namespace basin::wire
