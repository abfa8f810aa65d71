// The float32 gradients of a call as 16-bit numbers, in memory that the transports know, before anything of it is sent.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/dtype.h"
#include "common/base/mutex.h"
#include "worker/client/client_session.h"

namespace basin {

// Registered memory (wire::AllocateRegistered) that is used again: a fresh page costs more than what is written into
// it. Thread-safe. Held by those who have memory of it, so it outlives its client where they do.
class SpareMemory final : public std::enable_shared_from_this<SpareMemory> {
 public:
  // Keeps at most so much that nobody uses.
  static std::shared_ptr<SpareMemory> Make(size_t most_bytes) {
    return std::shared_ptr<SpareMemory>(new SpareMemory(most_bytes));
  }
  ~SpareMemory();
  // At least `bytes`, with any content; comes back when the last holder lets go. nullptr: there is none.
  std::shared_ptr<char> Take(size_t bytes);

 private:
  explicit SpareMemory(size_t most_bytes) : most_bytes_(most_bytes) {}
  void Return(char* memory, size_t bytes);

  const size_t most_bytes_;
  Mutex mutex_;
  size_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::pair<size_t, char*>> kept_ ABSL_GUARDED_BY(mutex_);  // the one that came last at the end
};

// Rounds the gradients in float32 among `items` to `type` (kF16, kBF16), and lets the items point to them: those of
// variables that a rule trains, since updates of statistics (counts, sums) are no gradients; and those in host memory.
// `memory` holds what the items point to from then on; nullptr where there was no gradient to round. After an error
// nothing was sent.
// INVALID_ARGUMENT: a NaN, an infinity, or a number that the type cannot hold, named by variable and element;
// RESOURCE_EXHAUSTED: no memory.
absl::Status NarrowGradients(DType type, ClientSession& session, SpareMemory& spare, absl::Span<UpdateItem> items,
                             std::shared_ptr<char>* memory);

// The same for gradients in device memory, which become numbers of `type` as they are copied out of it; kF32: none do.
// Those that lie there in 16 bits already leave as they are. Where a call has any of either, nothing of it leaves
// before the device has looked at all of them: its items are held. INVALID_ARGUMENT: an address that no element can
// have. REQUIRES: `update` has an item for each.
absl::Status SendHalvesOfDevice(DType type, ClientSession& session, absl::Span<UpdateItem> items, DeviceUpdate& update);

}  // namespace basin
