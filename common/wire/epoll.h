// An epoll set, level-triggered, of descriptors that are readable.
#pragma once

#include <sys/epoll.h>

#include <cstdint>

#include "absl/types/span.h"
#include "common/wire/shm_memory.h"

namespace basin::wire {

class Epoll final {
 public:
  Epoll() : fd_(epoll_create1(EPOLL_CLOEXEC)) {}
  int fd() const { return fd_.get(); }
  // False: the system lacks something.
  bool Add(int fd, uint64_t key) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = key;
    return epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  }
  // Before the descriptor is closed: a forked child's copy would keep it in the set.
  void Remove(int fd) { epoll_ctl(fd_.get(), EPOLL_CTL_DEL, fd, nullptr); }
  // Never waits. The keys of what is readable, as many as fit.
  absl::Span<uint64_t> Readable(absl::Span<uint64_t> keys) {
    epoll_event events[64];
    const int most = static_cast<int>(keys.size() < 64 ? keys.size() : 64);
    const int got = epoll_wait(fd_.get(), events, most, 0);
    for (int i = 0; i < got; ++i) keys[i] = events[i].data.u64;
    return keys.subspan(0, got > 0 ? got : 0);
  }

 private:
  UniqueFd fd_;
};

}  // namespace basin::wire
