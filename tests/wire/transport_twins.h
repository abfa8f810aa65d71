// What the conformance suite and the transports' own tests share: a way to make one transport or the other, and
// waiting.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/wire/transport.h"

namespace basin::wire {

// One transport and a network for one test.
class Twin {
 public:
  virtual ~Twin() = default;
  virtual std::unique_ptr<Listener> Listen(const TransportOptions& options) = 0;
  virtual std::unique_ptr<Dialer> MakeDialer(const TransportOptions& options) = 0;
  // An address whose host exists and where nobody listens.
  virtual std::string RefusedAddress() = 0;
};
std::unique_ptr<Twin> MakeZmqTwin();
std::unique_ptr<Twin> MakeInprocTwin();
std::unique_ptr<Twin> MakeShmTwin();
std::unique_ptr<Twin> MakeHostTwin();

struct TwinCase {
  const char* name;
  std::unique_ptr<Twin> (*make)();
};
inline std::ostream& operator<<(std::ostream& out, const TwinCase& twin) { return out << twin.name; }

// Tests end by conditions; this only ends a test that has failed.
inline absl::Time Patience() { return absl::Now() + absl::Seconds(300); }

inline Message Text(absl::string_view text) {
  Message message;
  message.frames.push_back(Frame::Copy(text));
  return message;
}

// The channel's next message, or its error; DEADLINE_EXCEEDED past Patience.
inline absl::StatusOr<std::unique_ptr<Message>> Next(Dialer& dialer, Channel& channel) {
  const absl::Time deadline = Patience();
  while (true) {
    absl::StatusOr<std::unique_ptr<Message>> got = channel.Receive();
    if (!got.ok() || *got != nullptr) return got;
    if (absl::Now() >= deadline) return absl::DeadlineExceededError("nothing came");
    dialer.Wait(deadline);
  }
}

// Text of the channel's next message, or the error's message.
inline std::string NextText(Dialer& dialer, Channel& channel) {
  absl::StatusOr<std::unique_ptr<Message>> got = Next(dialer, channel);
  if (!got.ok()) return std::string(got.status().message());
  return std::string((*got)->frames.at(0).view());
}

inline auto AllTwins() {
  return ::testing::Values(TwinCase{"Zmq", &MakeZmqTwin}, TwinCase{"Inproc", &MakeInprocTwin},
                           TwinCase{"Shm", &MakeShmTwin}, TwinCase{"Host", &MakeHostTwin});
}
inline std::string TwinName(const ::testing::TestParamInfo<TwinCase>& info) { return info.param.name; }

class TwinTest : public ::testing::TestWithParam<TwinCase> {
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

// A lane that sends back what it gets.
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

}  // namespace basin::wire
