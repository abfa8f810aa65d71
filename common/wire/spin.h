// Whether a thread may look for the next message for a moment instead of sleeping at once.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace basin::wire {

// Spinning is worth it where answers follow one another closely, and takes cores from others where they do not. So:
// only the first wait after a message spins, never where the process may use one core alone, and what is spent in vain
// stays below a twentieth of the time. Pure: times are given, in nanoseconds of a steady clock.
class SpinBudget final {
 public:
  SpinBudget(absl::Duration spin, int usable_cores);

  // A message came.
  void OnTraffic() { traffic_ = true; }
  // How long to spin now, 0 for not at all. The caller tells how it ended.
  int64_t Allowed(int64_t now);
  void OnVain(int64_t spent) { spent_in_vain_ += spent; }

 private:
  const int64_t spin_;
  bool traffic_ = false;
  int64_t spent_in_vain_ = 0;
  int64_t forgotten_until_ = 0;
};

// Cores that this process may run on.
int UsableCoresForSpinning();
int64_t SteadyNanos();
inline void SpinPause() { __builtin_ia32_pause(); }

}  // namespace basin::wire
