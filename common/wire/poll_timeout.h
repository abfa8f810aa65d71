// A deadline as poll and zmq_poll take it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace basin::wire {

// Milliseconds, rounded up; -1 for an infinite deadline; at most an hour (callers loop).
inline int PollTimeout(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return -1;
  const int64_t ms = absl::ToInt64Milliseconds(absl::Ceil(deadline - absl::Now(), absl::Milliseconds(1)));
  return static_cast<int>(std::clamp<int64_t>(ms, 0, 3'600'000));
}

}  // namespace basin::wire
