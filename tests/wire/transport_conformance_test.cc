// What every Transport must do, run over each.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/wire/inproc_transport.h"
#include "tests/wire/transport_twins.h"

namespace basin::wire {
namespace {

class TransportConformance : public TwinTest {};

TEST_P(TransportConformance, AMessageArrivesWithItsFrames) {
  auto listener = twin_->Listen({});
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(listener->address());
  Message message = Text("first");
  message.frames.push_back(Frame());
  message.frames.push_back(Frame::Copy(std::string(100'000, 'x')));
  ASSERT_TRUE(channel->Send(message).ok());
  while (true) {
    dialer->Wait(absl::Now() + absl::Milliseconds(10));
    auto received = listener->Receive(absl::Now() + absl::Milliseconds(10));
    if (received == nullptr) continue;
    ASSERT_EQ(received->message.frames.size(), 3u);
    EXPECT_EQ(received->message.frames[0].view(), "first");
    EXPECT_EQ(received->message.frames[1].view(), "");
    EXPECT_EQ(received->message.frames[2].view(), std::string(100'000, 'x'));
    break;
  }
}

TEST_P(TransportConformance, AChannelKeepsItsOrderBothWays) {
  Echo echo(twin_->Listen({}));
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(echo.address());
  constexpr int kMessages = 500;
  for (int i = 0; i < kMessages; ++i) {
    // Small and large ones mixed: copied and referenced frames must not overtake one another.
    ASSERT_TRUE(channel->Send(Text(absl::StrCat(i, std::string(i % 3 == 0 ? 20'000 : 1, '.')))).ok());
  }
  for (int i = 0; i < kMessages; ++i) {
    const std::string text = NextText(*dialer, *channel);
    ASSERT_EQ(text.substr(0, text.find('.')), absl::StrCat(i));
  }
}

TEST_P(TransportConformance, TheLargestMessageArrives) {
  Echo echo(twin_->Listen({}));
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(echo.address());
  Message message = Text("header");
  for (size_t i = 0; i < kMaxPayloadFrames; ++i) {
    const size_t bytes = std::min((kMaxMessageBytes - message.bytes()) / (kMaxPayloadFrames - i), kMaxFrameBytes);
    message.frames.push_back(Frame::Make(bytes, [&](char* out) { std::fill(out, out + bytes, static_cast<char>(i)); }));
  }
  ASSERT_EQ(message.bytes(), kMaxMessageBytes);
  ASSERT_TRUE(channel->Send(message).ok());
  auto got = Next(*dialer, *channel);
  ASSERT_TRUE(got.ok()) << got.status();
  ASSERT_EQ((*got)->frames.size(), message.frames.size());
  for (size_t i = 0; i < message.frames.size(); ++i)
    EXPECT_TRUE((*got)->frames[i].view() == message.frames[i].view()) << i;
}

TEST_P(TransportConformance, ManyPeersAreToldApart) {
  Echo echo(twin_->Listen({}));
  auto dialer = twin_->MakeDialer({});
  std::vector<std::unique_ptr<Channel>> channels;
  for (int i = 0; i < 64; ++i) {
    channels.push_back(dialer->Dial(echo.address()));
    ASSERT_TRUE(channels.back()->Send(Text(absl::StrCat("from ", i))).ok());
  }
  for (int i = 63; i >= 0; --i) EXPECT_EQ(NextText(*dialer, *channels[i]), absl::StrCat("from ", i));
}

TEST_P(TransportConformance, AFrameIsReleasedOnceItHasLeft) {
  Echo echo(twin_->Listen({}));
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(echo.address());
  Frame frame = Frame::Copy(std::string(1 << 20, 'x'));
  std::weak_ptr<const void> memory = frame.owner();
  Message message;
  message.frames.push_back(std::move(frame));
  ASSERT_TRUE(channel->Send(std::move(message)).ok());
  ASSERT_TRUE(Next(*dialer, *channel).ok());
  const absl::Time deadline = Patience();
  while (!memory.expired() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(memory.expired());
}

TEST_P(TransportConformance, AClosedListenerIsNoticedByReceiveAndSend) {
  auto listener = twin_->Listen({});
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(listener->address());
  ASSERT_TRUE(channel->Send(Text("hello")).ok());
  std::thread lane([&] {
    EXPECT_EQ(TakeText(*listener), "hello");
    listener.reset();
  });
  const auto got = Next(*dialer, *channel);
  lane.join();
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(got.status().message(), "closed by the peer")) << got.status();
  EXPECT_EQ(channel->Send(Text("more")).code(), absl::StatusCode::kUnavailable);
  // A cut that was told does not end waits any more.
  EXPECT_EQ(channel->Receive().status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(TransportConformance, ASendToAGonePeerIsUnavailable) {
  auto listener = twin_->Listen({});
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(listener->address());
  ASSERT_TRUE(channel->Send(Text("hello")).ok());
  std::thread client([&] {
    EXPECT_EQ(NextText(*dialer, *channel), "welcome");
    channel.reset();
  });
  const Received received = Take(*listener);
  EXPECT_TRUE(listener->Send(received.peer, Text("welcome")).ok());
  client.join();
  const absl::Time deadline = Patience();
  absl::Status status;
  while (status.ok() && absl::Now() < deadline) {
    status = listener->Send(received.peer, Text("more"));
    listener->Receive(absl::Now() + absl::Milliseconds(1));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(listener->Send(received.peer, Text("more")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(listener->Send(123'456'789, Text("never seen")).code(), absl::StatusCode::kUnavailable);
}

TEST_P(TransportConformance, ANewChannelIsANewPeer) {
  auto listener = twin_->Listen({});
  auto dialer = twin_->MakeDialer({});
  std::vector<PeerId> peers;
  for (int i = 0; i < 3; ++i) {
    auto channel = dialer->Dial(listener->address());
    ASSERT_TRUE(channel->Send(Text("hello")).ok());
    std::thread client([&] { EXPECT_EQ(NextText(*dialer, *channel), "welcome"); });
    peers.push_back(Take(*listener).peer);
    EXPECT_TRUE(listener->Send(peers.back(), Text("welcome")).ok());
    client.join();
  }
  EXPECT_NE(peers[0], peers[1]);
  EXPECT_NE(peers[1], peers[2]);
  EXPECT_NE(peers[0], peers[2]);
}

TEST_P(TransportConformance, CloseFlushesWhatWasQueued) {
  auto listener = twin_->Listen({});
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(listener->address());
  ASSERT_TRUE(channel->Send(Text("hello")).ok());
  constexpr int kAnswers = 300;
  std::atomic<bool> greeted{false};
  std::thread lane([&] {
    const Received received = Take(*listener);
    EXPECT_TRUE(listener->Send(received.peer, Text("welcome")).ok());
    while (!greeted.load()) std::this_thread::yield();
    for (int i = 0; i < kAnswers; ++i) {
      ASSERT_TRUE(
          listener->Send(received.peer, Text(absl::StrCat(i, std::string(i % 10 == 0 ? 200'000 : 10, '.')))).ok());
    }
    listener->Close(Patience());
    EXPECT_EQ(listener->Send(received.peer, Text("late")).code(), absl::StatusCode::kUnavailable);
  });
  EXPECT_EQ(NextText(*dialer, *channel), "welcome");
  greeted.store(true);
  lane.join();
  // All the answers first, then the cut: also those that had arrived but were not read when the cut came.
  for (int i = 0; i < kAnswers; ++i) {
    const std::string text = NextText(*dialer, *channel);
    ASSERT_EQ(text.substr(0, text.find('.')), absl::StrCat(i));
  }
  EXPECT_EQ(Next(*dialer, *channel).status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(TransportConformance, WhatAClientSentBeforeItLeftIsReceived) {
  auto listener = twin_->Listen({});
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(listener->address());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(channel->Send(Text(absl::StrCat(i))).ok());
  std::thread client([&] {
    // The answer to the last one shows that all have left.
    EXPECT_EQ(NextText(*dialer, *channel), "welcome");
    channel.reset();
  });
  Received received = Take(*listener);
  EXPECT_TRUE(listener->Send(received.peer, Text("welcome")).ok());
  client.join();
  for (int i = 1; i < 10; ++i) EXPECT_EQ(TakeText(*listener), absl::StrCat(i));
}

TEST_P(TransportConformance, WakeEndsADialersWait) {
  auto dialer = twin_->MakeDialer({});
  std::thread other([&] { dialer->Wake(); });
  dialer->Wait(absl::InfiniteFuture());
  other.join();
  // Also one that came before.
  dialer->Wake();
  dialer->Wait(absl::InfiniteFuture());
}

TEST_P(TransportConformance, WakeEndsAListenersReceive) {
  auto listener = twin_->Listen({});
  std::thread other([&] { listener->Wake(); });
  EXPECT_EQ(listener->Receive(absl::InfiniteFuture()), nullptr);
  other.join();
  listener->Wake();
  EXPECT_EQ(listener->Receive(absl::InfiniteFuture()), nullptr);
}

TEST_P(TransportConformance, AWakeAtAnyMomentEndsAReceiveWithoutADeadline) {
  auto listener = twin_->Listen({});
  std::atomic<int> received{0}, woken{0};
  constexpr int kWakes = 30'000;
  std::thread lane([&] {
    for (; received < kWakes; ++received) EXPECT_EQ(listener->Receive(absl::InfiniteFuture()), nullptr);
  });
  const absl::Time deadline = Patience();
  for (; woken < kWakes && absl::Now() < deadline; ++woken) {
    // The next one only when the one before has ended a Receive: a lost wake stops it all. At all distances from it.
    for (int i = woken % 997; i > 0; --i) received.load();
    listener->Wake();
    // It spins, to be there when the lane begins its next Receive; not for long, since the lane may need this core.
    for (int looks = 0; received <= woken && absl::Now() < deadline; ++looks) {
      if (looks > 1000) std::this_thread::yield();
    }
  }
  EXPECT_EQ(woken, kWakes);
  while (received < kWakes) listener->Wake();
  lane.join();
}

TEST_P(TransportConformance, ADeadlineEndsWaitAndReceive) {
  auto listener = twin_->Listen({});
  auto dialer = twin_->MakeDialer({});
  dialer->Wait(absl::Now() + absl::Milliseconds(5));
  dialer->Wait(absl::InfinitePast());
  EXPECT_EQ(listener->Receive(absl::Now() + absl::Milliseconds(5)), nullptr);
  EXPECT_EQ(listener->Receive(absl::InfinitePast()), nullptr);
}

TEST_P(TransportConformance, ARefusedConnectionSaysSo) {
  auto dialer = twin_->MakeDialer({});
  const std::string address = twin_->RefusedAddress();
  auto channel = dialer->Dial(address);
  const auto got = Next(*dialer, *channel);
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(got.status().message(), absl::StrCat(address, ": connection refused"));
  EXPECT_EQ(channel->Send(Text("hello")).code(), absl::StatusCode::kUnavailable);
}

TEST_P(TransportConformance, ANameThatDoesNotResolveSaysSo) {
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial("no-such-host.invalid:2222");
  const auto got = Next(*dialer, *channel);
  EXPECT_EQ(got.status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(absl::StrContains(got.status().message(), "\"no-such-host.invalid\": name does not resolve"))
      << got.status();
}

TEST_P(TransportConformance, AnAddressWithoutAPortSaysSo) {
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial("localhost");
  const auto got = Next(*dialer, *channel);
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(got.status().message(), "no port; expected host:port")) << got.status();
}

TEST_P(TransportConformance, EndsMayBeDestroyedInAnyOrder) {
  auto listener = twin_->Listen({});
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(listener->address());
  ASSERT_TRUE(channel->Send(Text("hello")).ok());
  dialer.reset();
  listener.reset();
  channel.reset();
}

INSTANTIATE_TEST_SUITE_P(Transports, TransportConformance, AllTwins(), TwinName);

TEST(InprocNetworkTest, ACutIsNoticedAtBothEndsAndLosesWhatWasUnderWay) {
  InprocNetwork network;
  auto listener = *network.Listen("h1:2222");
  auto dialer = network.MakeDialer();
  auto channel = dialer->Dial("h1:2222");
  ASSERT_TRUE(channel->Send(Text("one")).ok());
  const auto received = listener->Receive(Patience());
  ASSERT_NE(received, nullptr);
  ASSERT_TRUE(listener->Send(received->peer, Text("lost")).ok());
  ASSERT_TRUE(channel->Send(Text("lost too")).ok());
  network.Cut("h1:2222");
  EXPECT_EQ(channel->Receive().status().message(), "h1:2222: cut");
  EXPECT_EQ(listener->Send(received->peer, Text("x")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(listener->Receive(absl::InfinitePast()), nullptr);
  auto again = dialer->Dial("h1:2222");
  EXPECT_TRUE(again->Send(Text("two")).ok());
  EXPECT_NE(listener->Receive(Patience())->peer, received->peer);
}

}  // namespace
}  // namespace basin::wire
