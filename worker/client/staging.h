// The memory through which the bytes of calls with device pointers go: pinned memory of the host, one block that the
// shared-memory transport knows, so that a ps of the same host reads a gradient where the device's copy has put it; or
// the block that a lane on that very device has lent, so that the bytes do not come to the host at all.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/wire/free_extents.h"
#include "worker/client/device_copies.h"

namespace basin {

// Thread-safe. Lives as long as anything that was taken.
class Staging final : public std::enable_shared_from_this<Staging> {
 public:
  // RESOURCE_EXHAUSTED: no memory.
  static absl::StatusOr<std::shared_ptr<Staging>> Make(size_t bytes, DeviceCopies& copies, int device);
  // In a block of a lane's, which stays open for as long as it or anything taken lives.
  static std::shared_ptr<Staging> In(std::shared_ptr<char> block, size_t bytes);
  ~Staging();

  // `bytes` of it until the result is gone; nullptr: not so many are free in one place now.
  std::shared_ptr<char> Take(size_t bytes);
  size_t bytes() const { return bytes_; }
  // REQUIRES: taken, or nullptr, which is 0.
  size_t OffsetOf(const char* taken) const { return taken == nullptr ? 0 : static_cast<size_t>(taken - begin_); }

 private:
  explicit Staging(size_t bytes);

  const size_t bytes_;
  void* memory_ = nullptr;       // of the host
  std::shared_ptr<char> block_;  // or of a lane
  char* begin_ = nullptr;        // in it, on a page's border: pages are pinned whole
  std::shared_ptr<const void> pinned_;
  Mutex mutex_;
  wire::FreeExtents free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace basin
