// How every Transport holds its bounds, run over each.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "common/base/limits.h"
#include "tests/wire/transport_twins.h"

namespace basin::wire {
namespace {

class TransportLimits : public TwinTest {};

TEST_P(TransportLimits, WhatIsPastTheLimitsIsNotSent) {
  Echo echo(twin_->Listen({}));
  auto dialer = twin_->MakeDialer({});
  auto channel = dialer->Dial(echo.address());
  EXPECT_EQ(channel->Send(Message()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(channel->Send(Text(std::string(kMaxFrameBytes + 1, 'x'))).code(), absl::StatusCode::kInvalidArgument);
  Message many;
  many.frames.resize(kMaxFrames + 1);
  EXPECT_EQ(channel->Send(many).code(), absl::StatusCode::kInvalidArgument);
  Message large;
  for (int i = 0; i < 3; ++i) large.frames.push_back(Frame::Copy(std::string(kMaxMessageBytes / 3 + 1, 'x')));
  EXPECT_EQ(channel->Send(large).code(), absl::StatusCode::kInvalidArgument);
  // The channel lives on, and the limit itself passes.
  ASSERT_TRUE(channel->Send(Text(std::string(kMaxFrameBytes, 'x'))).ok());
  EXPECT_EQ(NextText(*dialer, *channel), std::string(kMaxFrameBytes, 'x'));
}

TEST_P(TransportLimits, BytesInFlightAreBoundedFromTheClient) {
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

TEST_P(TransportLimits, APeerThatDoesNotReadExhaustsItselfAlone) {
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

TEST_P(TransportLimits, ConnectionsAreLimited) {
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

INSTANTIATE_TEST_SUITE_P(Transports, TransportLimits, AllTwins(), TwinName);

}  // namespace
}  // namespace basin::wire
