#include "common/wire/wake_fd.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace basin::wire {

WakeFd::WakeFd() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

WakeFd::~WakeFd() {
  if (fd_ >= 0) close(fd_);
}

void WakeFd::Wake() {
  woken_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the poll ends as well.
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof one);
}

// Wake raises the flag before the counter and Take lowers them in the same order, so at no time are both down with a
// Wake untold. A counter left up by a Wake between the two shows in the next poll, where Drain takes it.
bool WakeFd::Take() {
  if (!woken_.load(std::memory_order_relaxed)) return false;
  if (!woken_.exchange(false, std::memory_order_acq_rel)) return false;
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(fd_, &count, sizeof count);
  return true;
}

void WakeFd::Drain() {
  woken_.store(false, std::memory_order_relaxed);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(fd_, &count, sizeof count);
}

}  // namespace basin::wire
