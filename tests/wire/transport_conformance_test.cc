// What every Transport must do, run over each.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/wire/inproc_transport.h"
#include "common/wire/zmq_transport.h"
#include "tests/wire/transport_twins.h"

namespace basin::wire {

std::unique_ptr<Twin> MakeZmqTwin() {
  class ZmqTwin final : public Twin {
   public:
    std::unique_ptr<Listener> Listen(const TransportOptions& options) override {
      return *ZmqListen({.ip = "127.0.0.1", .port = 0, .host = "localhost"}, options, context_);
    }
    std::unique_ptr<Dialer> MakeDialer(const TransportOptions& options) override { return MakeZmqDialer(options, context_); }
    std::string RefusedAddress() override {
      // A port that was free a moment ago.
      auto listener = Listen({});
      std::string address = listener->address();
      listener->Close(absl::Now() + absl::Seconds(10));
      return address;
    }

   private:
    std::shared_ptr<ZmqContext> context_ = MakeZmqContext(1);
  };
  return std::make_unique<ZmqTwin>();
}

std::unique_ptr<Twin> MakeInprocTwin() {
  class InprocTwin final : public Twin {
   public:
    std::unique_ptr<Listener> Listen(const TransportOptions& options) override { return *network_.Listen("localhost:0", options); }
    std::unique_ptr<Dialer> MakeDialer(const TransportOptions& options) override { return network_.MakeDialer(options); }
    std::string RefusedAddress() override { return Listen({})->address(); }

   private:
    InprocNetwork network_;
  };
  return std::make_unique<InprocTwin>();
}

namespace {

class TransportConformance : public ::testing::TestWithParam<TwinCase> {
 protected:
  // The lane's next message; fails the test when none comes.
  Received Take(Listener& listener) {
    const absl::Time deadline = Patience();
    while (absl::Now() < deadline) {
      if (std::unique_ptr<Received> received = listener.Receive(deadline)) return std::move(*received);
    }
    ADD_FAILURE() << "nothing came";
    return {};
  }
  std::string TakeText(Listener& listener) {
    Received received = Take(listener);
    return received.message.frames.empty() ? "" : std::string(received.message.frames[0].view());
  }

  const std::unique_ptr<Twin> twin_ = GetParam().make();
};

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

// A client's thread that sends and waits, since a channel moves only while its thread calls it.
class Echo {
 public:
  explicit Echo(std::unique_ptr<Listener> listener) : listener_(std::move(listener)), thread_([this] { Run(); }) {}
  ~Echo() {
    stop_.store(true);
    listener_->Wake();
    thread_.join();
  }
  std::string address() const { return listener_->address(); }

 private:
  void Run() {
    while (!stop_.load()) {
      auto received = listener_->Receive(absl::InfiniteFuture());
      if (received != nullptr) listener_->Send(received->peer, std::move(received->message)).IgnoreError();
    }
  }
  std::atomic<bool> stop_{false};
  std::unique_ptr<Listener> listener_;
  std::thread thread_;
};

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

TEST_P(TransportConformance, SixtyFourFramesOfAMebibyteArrive) {
  Echo echo(twin_->Listen({}));
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(echo.address());
  Message message = Text("header");
  for (size_t i = 0; i < kMaxPayloadFrames; ++i) {
    message.frames.push_back(Frame::Make(kMaxShardBytes, [&](char* out) { std::fill(out, out + kMaxShardBytes, static_cast<char>(i)); }));
  }
  ASSERT_TRUE(channel->Send(message).ok());
  auto got = Next(*dialer, *channel);
  ASSERT_TRUE(got.ok()) << got.status();
  ASSERT_EQ((*got)->frames.size(), message.frames.size());
  for (size_t i = 0; i < message.frames.size(); ++i) EXPECT_TRUE((*got)->frames[i].view() == message.frames[i].view()) << i;
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
  constexpr int kAnswers = 50;
  std::thread lane([&] {
    const Received received = Take(*listener);
    for (int i = 0; i < kAnswers; ++i) {
      ASSERT_TRUE(listener->Send(received.peer, Text(absl::StrCat(i, std::string(i % 2 == 0 ? 200'000 : 10, '.')))).ok());
    }
    listener->Close(Patience());
    EXPECT_EQ(listener->Send(received.peer, Text("late")).code(), absl::StatusCode::kUnavailable);
  });
  // All the answers first, then the cut: also those that had arrived but were not read when the cut came.
  dialer->Wait(Patience());
  lane.join();
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
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(got.status().message(), "\"no-such-host.invalid\": name does not resolve")) << got.status();
}

TEST_P(TransportConformance, AnAddressWithoutAPortSaysSo) {
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial("localhost");
  const auto got = Next(*dialer, *channel);
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(got.status().message(), "no port; expected host:port")) << got.status();
}

TEST_P(TransportConformance, WhatIsPastTheLimitsIsNotSent) {
  Echo echo(twin_->Listen({}));
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(echo.address());
  EXPECT_EQ(channel->Send(Message()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(channel->Send(Text(std::string(kMaxFrameBytes + 1, 'x'))).code(), absl::StatusCode::kInvalidArgument);
  Message many;
  many.frames.resize(kMaxFrames + 1);
  EXPECT_EQ(channel->Send(many).code(), absl::StatusCode::kInvalidArgument);
  // The channel lives on, and the limit itself passes.
  ASSERT_TRUE(channel->Send(Text(std::string(kMaxFrameBytes, 'x'))).ok());
  EXPECT_EQ(NextText(*dialer, *channel), std::string(kMaxFrameBytes, 'x'));
}

TEST_P(TransportConformance, BytesInFlightAreBoundedFromTheClient) {
  const TransportOptions options{.max_bytes_in_flight = size_t{8} << 20};
  auto listener = twin_->Listen(options);
  auto dialer = twin_->MakeDialer(options);
  auto channel = dialer->Dial(listener->address());
  const Frame frame = Frame::Copy(std::string(1 << 20, 'x'));
  size_t sent = 0;
  absl::Status status;
  // Nobody reads. The kernel and the listener's own queue take some megabytes more than the bound.
  const absl::Time deadline = Patience();
  while (absl::Now() < deadline) {
    Message message;
    message.frames.push_back(frame);
    status = channel->Send(std::move(message));
    if (!status.ok()) break;
    ASSERT_LT(++sent, 1000u);
  }
  ASSERT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_GE(sent, 8u);
  // Reading makes room, and nothing was lost.
  std::atomic<bool> done{false};
  std::thread lane([&] {
    for (size_t i = 0; i < sent + 1; ++i) EXPECT_EQ(Take(*listener).message.bytes(), size_t{1} << 20);
    done.store(true);
    dialer->Wake();
  });
  while (absl::Now() < deadline) {
    Message message;
    message.frames.push_back(frame);
    status = channel->Send(std::move(message));
    if (status.ok()) break;
    dialer->Wait(absl::Now() + absl::Milliseconds(5));
  }
  EXPECT_TRUE(status.ok()) << status;
  while (!done.load()) dialer->Wait(absl::Now() + absl::Milliseconds(50));
  lane.join();
}

TEST_P(TransportConformance, APeerThatDoesNotReadExhaustsItselfAlone) {
  const TransportOptions options{.max_bytes_in_flight = size_t{2} << 20};
  auto listener = twin_->Listen(options);
  auto dialer = twin_->MakeDialer({});
  auto deaf = dialer->Dial(listener->address());
  auto good = dialer->Dial(listener->address());
  ASSERT_TRUE(deaf->Send(Text("deaf")).ok());
  ASSERT_TRUE(good->Send(Text("good")).ok());
  std::atomic<bool> stop{false};
  std::atomic<int> answers{0};
  std::thread client([&] {
    while (!stop.load()) {
      dialer->Wait(absl::Now() + absl::Milliseconds(5));
      auto got = good->Receive();
      if (got.ok() && *got != nullptr) answers.fetch_add(1);
    }
  });
  PeerId deaf_peer = 0, good_peer = 0;
  for (int i = 0; i < 2; ++i) {
    const Received received = Take(*listener);
    (received.message.frames[0].view() == "deaf" ? deaf_peer : good_peer) = received.peer;
  }
  // The client's own library reads for the deaf channel as well, so what must hold is less: whatever the deaf one's
  // queue does, the good one is answered.
  const Frame frame = Frame::Copy(std::string(1 << 20, 'x'));
  for (int i = 0; i < 20; ++i) {
    Message message;
    message.frames.push_back(frame);
    const absl::Status status = listener->Send(deaf_peer, std::move(message));
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kResourceExhausted) << status;
  }
  EXPECT_TRUE(listener->Send(good_peer, Text("answer")).ok());
  const absl::Time deadline = Patience();
  while (answers.load() == 0 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(answers.load(), 1);
  stop.store(true);
  client.join();
}

TEST_P(TransportConformance, ConnectionsAreLimited) {
  auto listener = twin_->Listen({.max_connections = 2});
  auto dialer = twin_->MakeDialer({});
  std::atomic<bool> stop{false};
  std::thread lane([&] {
    while (!stop.load()) {
      auto received = listener->Receive(absl::InfiniteFuture());
      if (received != nullptr) listener->Send(received->peer, std::move(received->message)).IgnoreError();
    }
  });
  auto first = dialer->Dial(listener->address());
  ASSERT_TRUE(first->Send(Text("first")).ok());
  EXPECT_EQ(NextText(*dialer, *first), "first");
  auto second = dialer->Dial(listener->address());
  ASSERT_TRUE(second->Send(Text("second")).ok());
  EXPECT_EQ(NextText(*dialer, *second), "second");
  auto third = dialer->Dial(listener->address());
  const auto got = Next(*dialer, *third);
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable) << got.status();
  ASSERT_TRUE(first->Send(Text("still there")).ok());
  EXPECT_EQ(NextText(*dialer, *first), "still there");
  // One leaves, and one may come: not at once, since the lane has to notice.
  second.reset();
  const absl::Time deadline = Patience();
  std::string text;
  while (text != "fourth" && absl::Now() < deadline) {
    auto fourth = dialer->Dial(listener->address());
    fourth->Send(Text("fourth")).IgnoreError();
    text = NextText(*dialer, *fourth);
  }
  EXPECT_EQ(text, "fourth");
  stop.store(true);
  listener->Wake();
  lane.join();
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

INSTANTIATE_TEST_SUITE_P(Transports, TransportConformance,
                         ::testing::Values(TwinCase{"Zmq", &MakeZmqTwin}, TwinCase{"Inproc", &MakeInprocTwin}),
                         [](const auto& info) { return info.param.name; });

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
