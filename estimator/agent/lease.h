// Who an agent listens to, and how long it goes on when nobody speaks. Pure: it is told the time.
//
//   first contact ─▶ held ──(the connection ends, or no byte for the lease)──▶ grace ──(grace over)──▶ lost
//                     ▲                                                          │
//                     └────────────(a byte comes, or a larger epoch)─────────────┘
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace basin {

class AgentLease {
 public:
  enum class State {
    kFirstContact,  // no supervisor has said hello yet
    kHeld,
    kGrace,  // tasks run on
    kLost,   // for good: everything ends
  };

  // An agent that nobody talks to within `first_contact` has no reason to be.
  AgentLease(absl::Time now, absl::Duration first_contact);

  // Empty, or why a connection with this epoch must be refused: each one needs a larger epoch than all before.
  std::string WhyRefused(uint64_t epoch) const;
  // A connection was accepted. REQUIRES: WhyRefused(epoch) is empty.
  void Connected(uint64_t epoch, absl::Duration lease, absl::Duration grace, absl::Time now);
  // The current connection was read, and brought `bytes`: none (its end) is no sign of life. Nobody knows how long they
  // have waited, so they count as having come in time, unless At has said before that it is too late.
  void Heard(uint64_t bytes, absl::Time now);
  // The current connection is gone.
  void Disconnected(absl::Time now);
  // What is the case at `now`, the time at which the connection was last looked at; call it at next() at the latest.
  State At(absl::Time now);
  // No supervisor was ever here.
  bool never_connected() const { return never_connected_; }
  // When the state changes by itself; InfiniteFuture once it is lost.
  absl::Time next() const;

 private:
  State state_ = State::kFirstContact;
  absl::Duration lease_;
  absl::Duration grace_;
  absl::Time until_;  // end of this state, where nothing happens
  uint64_t epoch_ = 0;
  bool never_connected_ = true;
};

}  // namespace basin
