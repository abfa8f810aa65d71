#include <gtest/gtest.h>

#include "estimator/agent/lease.h"

namespace basin {
namespace {

using State = AgentLease::State;
constexpr absl::Duration kLease = absl::Seconds(30);

absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

TEST(AgentLeaseTest, WithoutAnyContactTheAgentEnds) {
  AgentLease lease(At(0), absl::Seconds(60));
  EXPECT_EQ(lease.At(At(59)), State::kFirstContact);
  EXPECT_EQ(lease.next(), At(60));
  EXPECT_EQ(lease.At(At(60)), State::kLost);
}

TEST(AgentLeaseTest, BytesHoldTheLease) {
  AgentLease lease(At(0), absl::Seconds(60));
  lease.Connected(1, kLease, absl::Minutes(10), At(1));
  for (int t = 5; t < 1000; t += 29) {
    EXPECT_EQ(lease.At(At(t)), State::kHeld) << t;
    lease.Heard(1, At(t));
  }
}

TEST(AgentLeaseTest, SilenceBeginsTheGraceAndAByteEndsIt) {
  AgentLease lease(At(0), absl::Seconds(60));
  lease.Connected(1, kLease, absl::Minutes(10), At(0));
  EXPECT_EQ(lease.At(At(29.9)), State::kHeld);
  EXPECT_EQ(lease.At(At(30)), State::kGrace);
  lease.Heard(1, At(600));
  EXPECT_EQ(lease.At(At(629)), State::kHeld);
  EXPECT_EQ(lease.At(At(630)), State::kGrace);
  EXPECT_EQ(lease.At(At(1229)), State::kGrace);
  EXPECT_EQ(lease.At(At(1230)), State::kLost);
}

TEST(AgentLeaseTest, AnAttachedRunEndsWithItsConnection) {
  AgentLease lease(At(0), absl::Seconds(60));
  lease.Connected(1, kLease, absl::ZeroDuration(), At(0));
  lease.Disconnected(At(3));
  EXPECT_EQ(lease.At(At(3)), State::kLost);
  EXPECT_EQ(lease.next(), absl::InfiniteFuture());
}

TEST(AgentLeaseTest, ADetachedRunWaitsForAnotherSupervisor) {
  AgentLease lease(At(0), absl::Seconds(60));
  lease.Connected(4, kLease, absl::Minutes(10), At(0));
  lease.Disconnected(At(10));
  EXPECT_EQ(lease.At(At(609)), State::kGrace);
  EXPECT_NE(lease.WhyRefused(4), "");
  EXPECT_NE(lease.WhyRefused(3), "");
  EXPECT_EQ(lease.WhyRefused(5), "");
  lease.Connected(5, kLease, absl::Minutes(10), At(609));
  EXPECT_EQ(lease.At(At(638)), State::kHeld);
}

TEST(AgentLeaseTest, ALargerEpochTakesOverFromALivingOne) {
  AgentLease lease(At(0), absl::Seconds(60));
  EXPECT_EQ(lease.WhyRefused(0), "");
  lease.Connected(7, kLease, absl::Minutes(10), At(0));
  EXPECT_EQ(lease.WhyRefused(8), "");
  lease.Connected(8, kLease, absl::ZeroDuration(), At(1));
  EXPECT_NE(lease.WhyRefused(7).find("epoch 8"), std::string::npos);
}

TEST(AgentLeaseTest, TheEndOfAStreamIsNoSignOfLife) {
  AgentLease lease(At(0), absl::Seconds(60));
  lease.Connected(1, kLease, absl::Minutes(10), At(0));
  EXPECT_EQ(lease.At(At(500)), State::kGrace);
  // The link that was silent is cut at last: the grace goes on, and does not begin again.
  lease.Heard(0, At(500));
  lease.Disconnected(At(500));
  EXPECT_EQ(lease.next(), At(630));
  EXPECT_EQ(lease.At(At(630)), State::kLost);
}

TEST(AgentLeaseTest, BytesThatWaitedWhileNobodyLookedCount) {
  AgentLease lease(At(0), absl::Seconds(60));
  lease.Connected(1, kLease, absl::ZeroDuration(), At(0));
  EXPECT_EQ(lease.At(At(5)), State::kHeld);
  // A turn of the agent's loop took an hour; the supervisor has spoken all the time.
  lease.Heard(100, At(3600));
  EXPECT_EQ(lease.At(At(3600)), State::kHeld);
  EXPECT_EQ(lease.next(), At(3630));
}

TEST(AgentLeaseTest, WhatIsLostStaysLost) {
  AgentLease lease(At(0), absl::Seconds(60));
  lease.Connected(1, kLease, absl::Seconds(10), At(0));
  EXPECT_EQ(lease.At(At(40)), State::kLost);
  lease.Heard(1, At(41));
  EXPECT_EQ(lease.At(At(41)), State::kLost);
  EXPECT_NE(lease.WhyRefused(9), "");
}

}  // namespace
}  // namespace basin
