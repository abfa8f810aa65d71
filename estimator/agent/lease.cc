#include "estimator/agent/lease.h"

#include "absl/strings/str_cat.h"

namespace basin {

AgentLease::AgentLease(absl::Time now, absl::Duration first_contact) : until_(now + first_contact) {}

std::string AgentLease::WhyRefused(uint64_t epoch) const {
  if (state_ == State::kLost) return "the agent is ending: its supervisor was away for too long";
  if (never_connected_ || epoch > epoch_) return "";
  return absl::StrCat("a supervisor with epoch ", epoch_, " was here already, this one has ", epoch,
                      "; only a later one may take over");
}

void AgentLease::Connected(uint64_t epoch, absl::Duration lease, absl::Duration grace, absl::Time now) {
  never_connected_ = false;
  epoch_ = epoch;
  lease_ = lease;
  grace_ = grace;
  state_ = State::kHeld;
  until_ = now + lease_;
}

void AgentLease::Heard(uint64_t bytes, absl::Time now) {
  if (bytes == 0 || (state_ != State::kHeld && state_ != State::kGrace)) return;
  state_ = State::kHeld;
  until_ = now + lease_;
}

void AgentLease::Disconnected(absl::Time now) {
  if (At(now) != State::kHeld) return;
  state_ = State::kGrace;
  until_ = now + grace_;
}

AgentLease::State AgentLease::At(absl::Time now) {
  if (state_ == State::kHeld && now >= until_) {
    state_ = State::kGrace;
    until_ += grace_;
  }
  if ((state_ == State::kGrace || state_ == State::kFirstContact) && now >= until_) state_ = State::kLost;
  return state_;
}

absl::Time AgentLease::next() const { return state_ == State::kLost ? absl::InfiniteFuture() : until_; }

}  // namespace basin
