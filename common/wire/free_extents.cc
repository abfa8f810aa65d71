#include "common/wire/free_extents.h"

#include <algorithm>

#include "common/base/status_macros.h"

namespace basin::wire {
namespace {

size_t RoundUp(size_t bytes) {
  return (std::max<size_t>(bytes, 1) + FreeExtents::kAlignment - 1) / FreeExtents::kAlignment * FreeExtents::kAlignment;
}

}  // namespace

FreeExtents::FreeExtents(size_t bytes) {
  BASIN_CHECK(bytes % kAlignment == 0);
  if (bytes > 0) free_.push_back({0, bytes});
}

std::optional<size_t> FreeExtents::Take(size_t bytes) {
  const size_t need = RoundUp(bytes);
  if (need < bytes) return std::nullopt;
  for (auto at = free_.begin(); at != free_.end(); ++at) {
    if (at->end - at->begin < need) continue;
    const size_t offset = at->begin;
    at->begin += need;
    if (at->begin == at->end) free_.erase(at);
    taken_ += need;
    return offset;
  }
  return std::nullopt;
}

void FreeExtents::Give(size_t offset, size_t bytes) {
  const size_t size = RoundUp(bytes);
  const size_t end = offset + size;
  auto next = std::lower_bound(free_.begin(), free_.end(), offset,
                               [](const Extent& extent, size_t value) { return extent.begin < value; });
  BASIN_CHECK((next == free_.end() || end <= next->begin) && taken_ >= size);
  taken_ -= size;
  const bool touches_next = next != free_.end() && next->begin == end;
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    BASIN_CHECK(before->end <= offset);
    if (before->end == offset) {
      before->end = touches_next ? next->end : end;
      if (touches_next) free_.erase(next);
      return;
    }
  }
  if (touches_next) {
    next->begin = offset;
  } else {
    free_.insert(next, {offset, end});
  }
}

}  // namespace basin::wire
