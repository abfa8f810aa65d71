// The pinned host memory through which the bytes of calls with device pointers go: one block that the shared-memory
// transport knows, so that a ps of the same host reads a gradient where the device's copy has put it.
//
// Where a ps keeps its shards on the device of this very host, the bytes need not come to the host at all: memory of
// that ps, opened through CUDA IPC, would stand here in this block's place.
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
  ~Staging();

  // `bytes` of it until the result is gone; nullptr: not so many are free in one place now.
  std::shared_ptr<char> Take(size_t bytes);
  size_t bytes() const { return bytes_; }

 private:
  explicit Staging(size_t bytes);

  const size_t bytes_;
  void* memory_ = nullptr;
  char* begin_ = nullptr;  // in it, on a page's border: pages are pinned whole
  std::shared_ptr<const void> pinned_;
  Mutex mutex_;
  wire::FreeExtents free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace basin
