// An eventfd that ends a poll from another thread.
#pragma once

#include <atomic>

namespace basin::wire {

class WakeFd final {
 public:
  WakeFd();
  ~WakeFd();
  WakeFd(const WakeFd&) = delete;
  WakeFd& operator=(const WakeFd&) = delete;

  // -1 where the process has no descriptor left.
  int fd() const { return fd_; }
  // From any thread.
  void Wake();
  // Whether Take would tell one.
  bool IsSet() const { return woken_.load(std::memory_order_relaxed); }
  // Whether Wake was called since the last time; takes it back. Ask before each poll.
  bool Take();
  // REQUIRES: a poll showed fd() readable. Takes the wake back. (One Wake may show both here and in Take.)
  void Drain();

 private:
  const int fd_;
  std::atomic<bool> woken_{false};
};

}  // namespace basin::wire
