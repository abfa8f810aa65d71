#include "tests/cuda_on_host/lock.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

#include "tests/cuda_on_host/sanitizers.h"

namespace basin::cuda_on_host {
namespace {

// By hand, for the sanitizer's runtime intercepts what libpthread has.
void Sleep(std::atomic<uint32_t>* word, uint32_t while_it_is) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, while_it_is, nullptr, nullptr, 0);
}
void Wake(std::atomic<uint32_t>* word, int most) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, nullptr, nullptr, 0);
}

}  // namespace

void Lock::lock() {
  uint32_t free = 0;
  if (!state_.compare_exchange_strong(free, 1)) {
    while (state_.exchange(2) != 0) Sleep(&state_, 2);
  }
  // Nor are the containers under a lock to be watched, which it would see unordered.
  if (__tsan_ignore_thread_begin != nullptr) __tsan_ignore_thread_begin();
}

void Lock::unlock() {
  if (__tsan_ignore_thread_end != nullptr) __tsan_ignore_thread_end();
  if (state_.exchange(0) == 2) Wake(&state_, 1);
}

void Changes::Announce() {
  count_.fetch_add(1);
  Wake(&count_, INT_MAX);
}

void Changes::WaitAfter(uint32_t count) {
  while (count_.load() == count) Sleep(&count_, count);
}

}  // namespace basin::cuda_on_host
