#include "common/wire/spin.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

namespace basin::wire {
namespace {

// What may be spent in vain beyond the share: a burst after quiet.
constexpr int64_t kBurstNanos = 1'000'000;
constexpr int64_t kShare = 20;

}  // namespace

SpinBudget::SpinBudget(absl::Duration spin, int usable_cores)
    : spin_(usable_cores > 1 ? std::max<int64_t>(0, absl::ToInt64Nanoseconds(spin)) : 0) {}

int64_t SpinBudget::Allowed(int64_t now) {
  if (spin_ == 0 || !traffic_) return 0;
  traffic_ = false;
  spent_in_vain_ = std::max<int64_t>(0, spent_in_vain_ - (now - forgotten_until_) / kShare);
  forgotten_until_ = now;
  return spent_in_vain_ <= kBurstNanos ? spin_ : 0;
}

int UsableCoresForSpinning() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

int64_t SteadyNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace basin::wire
