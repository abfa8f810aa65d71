// Float arrays laid out so that memory alone limits what streams through several of them: on huge pages where the
// system gives them, and each at another offset in its page, since processors take addresses that are equal in their
// last 12 bits for one another.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/files.h"

namespace basin::bench {

class HugeArray final {
 public:
  HugeArray() = default;
  // `place`: which of the arrays that are used together this is.
  static absl::StatusOr<HugeArray> Make(size_t floats, size_t place, float value) {
    HugeArray array;
    const size_t offset = kFirstOffset + place * kOffsetStep;
    array.bytes_ = (offset + floats * sizeof(float) + 2 * kHugePage - 1) / kHugePage * kHugePage;
    array.mapped_ = mmap(nullptr, array.bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (array.mapped_ == MAP_FAILED) return ErrnoStatus(errno, "map an array");
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(array.mapped_) + kHugePage - 1) / kHugePage * kHugePage;
    madvise(array.mapped_, array.bytes_, MADV_HUGEPAGE);  // advice: without it there are small pages
    array.floats_ = {reinterpret_cast<float*>(begin + offset), floats};
    std::fill(array.floats_.begin(), array.floats_.end(), value);
    return array;
  }
  HugeArray(HugeArray&& other) noexcept { *this = std::move(other); }
  HugeArray& operator=(HugeArray&& other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(bytes_, other.bytes_);
    std::swap(floats_, other.floats_);
    return *this;
  }
  ~HugeArray() {
    if (mapped_ != MAP_FAILED) munmap(mapped_, bytes_);
  }

  absl::Span<float> floats() const { return floats_; }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;
  static constexpr size_t kFirstOffset = 64, kOffsetStep = 1088;  // lines of 64 bytes, far from each other in a page

  void* mapped_ = MAP_FAILED;
  size_t bytes_ = 0;
  absl::Span<float> floats_;
};

}  // namespace basin::bench
