// What the conformance suite and the transports' own tests share: a way to make one transport or the other, and waiting.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>

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

struct TwinCase {
  const char* name;
  std::unique_ptr<Twin> (*make)();
};
inline std::ostream& operator<<(std::ostream& out, const TwinCase& twin) { return out << twin.name; }

// Tests end by conditions; this only ends a test that has failed.
inline absl::Time Patience() { return absl::Now() + absl::Seconds(60); }

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

}  // namespace basin::wire
