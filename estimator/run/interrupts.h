// What a signal to the supervisor asks for. Pure.
//
// Ctrl-C on a terminal comes easily by mistake, so the first one only says what a second within five seconds does.
// A signal that a program sends is meant: the first cancels. Once the run is being stopped, any further one kills.
#pragma once

#include "absl/time/time.h"

namespace basin {

class Interrupts {
 public:
  static constexpr absl::Duration kAskedFor = absl::Seconds(5);
  enum Answer { kAsk, kCancel, kKill };
  // `by_keyboard`: the terminal sent it. `stopping`: the run is failing or canceled already.
  Answer OnSignal(bool by_keyboard, bool stopping, absl::Time now) {
    if (stopping) return kKill;
    if (!by_keyboard || now < asked_at_ + kAskedFor) return kCancel;
    asked_at_ = now;
    return kAsk;
  }

 private:
  absl::Time asked_at_ = absl::InfinitePast();
};

}  // namespace basin
