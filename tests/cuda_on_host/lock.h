// Locks of the emulation that the thread sanitizer does not see: with them it would hold every two calls of the CUDA
// runtime for ordered, and miss that the program forgot to wait. What CUDA orders is told to it in sanitizers.h.
#pragma once

#include <atomic>
#include <cstdint>

namespace basin::cuda_on_host {

class Lock {
 public:
  void lock();
  void unlock();

 private:
  std::atomic<uint32_t> state_{0};  // 0 free, 1 held, 2 held and waited for
};

// Counts changes of what a Lock guards. To wait for a condition: read Count under the lock, unlock, WaitAfter, lock.
class Changes {
 public:
  uint32_t Count() const { return count_.load(std::memory_order_relaxed); }
  void Announce();
  void WaitAfter(uint32_t count);

  // REQUIRES: `lock` is held; it is again when `condition` holds.
  template <typename Condition>
  void Await(Lock& lock, Condition condition) {
    while (!condition()) {
      const uint32_t count = Count();
      lock.unlock();
      WaitAfter(count);
      lock.lock();
    }
  }

 private:
  std::atomic<uint32_t> count_{0};
};

}  // namespace basin::cuda_on_host
