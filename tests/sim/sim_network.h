// Channels on virtual time: ordered, with random delays; a cut loses what is under way in both directions. Everything
// is drawn from one seed and every event has a place in one order, so that a run is replayed by its seed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/base/random.h"
#include "common/wire/frame.h"

namespace basin::sim {

class SimClock {
 public:
  absl::Time now() const { return now_; }
  // Runs `event` at `at` (now, if that has passed); events of one moment run in the order of their scheduling.
  void At(absl::Time at, std::function<void()> event) {
    events_.emplace(std::pair(std::max(at, now_), order_++), std::move(event));
  }
  void After(absl::Duration delay, std::function<void()> event) { At(now_ + delay, std::move(event)); }
  // Runs the next event; false when there is none.
  bool RunOne() {
    if (events_.empty()) return false;
    auto first = events_.begin();
    now_ = first->first.first;
    std::function<void()> event = std::move(first->second);
    events_.erase(first);
    event();
    return true;
  }

 private:
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  uint64_t order_ = 0;
  std::map<std::pair<absl::Time, uint64_t>, std::function<void()>> events_;
};

struct LinkFaults {
  absl::Duration delay_most = absl::Milliseconds(5);
  double slow_chance = 0.02;  // of a message to take up to slow_most instead
  absl::Duration slow_most = absl::Milliseconds(400);
};

// One connection. Each direction delivers in order; a cut (from either end, or by a fault) tells both ends, later.
class SimLink {
 public:
  using Deliver = std::function<void(wire::Message)>;

  SimLink(SimClock& clock, Random& random, const LinkFaults& faults)
      : clock_(clock), random_(random), faults_(faults) {}
  bool cut() const { return cut_; }
  void Cut() { cut_ = true; }
  // `alive` is asked at the moment of delivery.
  void Send(bool to_server, wire::Message message, std::function<void(wire::Message)> deliver) {
    if (cut_) return;
    absl::Time& last = last_arrival_[to_server ? 1 : 0];
    const absl::Duration most = random_.Chance(faults_.slow_chance) ? faults_.slow_most : faults_.delay_most;
    last = std::max(last, clock_.now() + random_.Unit() * most);
    clock_.At(last, [this, message = std::move(message), deliver = std::move(deliver)]() mutable {
      if (!cut_) deliver(std::move(message));
    });
  }

 private:
  SimClock& clock_;
  Random& random_;
  const LinkFaults faults_;
  bool cut_ = false;
  absl::Time last_arrival_[2] = {absl::InfinitePast(), absl::InfinitePast()};
};

}  // namespace basin::sim
