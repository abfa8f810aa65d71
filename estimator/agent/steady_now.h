// Time that no clock's correction moves: for leases, graces and deadlines.
#pragma once

#include <ctime>

#include "absl/time/time.h"

namespace basin {

// Only differences mean anything.
inline absl::Time SteadyNow() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::TimeFromTimespec(now);
}

}  // namespace basin
