// What of a device's memory a ps may take, over all of its lanes.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "common/base/mutex.h"

namespace basin {

// Thread-safe.
class DeviceBudget {
 public:
  explicit DeviceBudget(uint64_t limit) : limit_(limit) {}
  // False past the limit.
  bool Take(uint64_t bytes) {
    MutexLock lock(mutex_);
    if (bytes > limit_ - taken_) return false;
    taken_ += bytes;
    return true;
  }
  void GiveBack(uint64_t bytes) {
    MutexLock lock(mutex_);
    taken_ -= bytes;
  }
  uint64_t limit() const { return limit_; }
  uint64_t taken() const {
    MutexLock lock(mutex_);
    return taken_;
  }

 private:
  const uint64_t limit_;
  mutable Mutex mutex_;
  uint64_t taken_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace basin
