// Messages to and from multipart ZeroMQ messages, without copying frames of 4 KiB and more.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "common/wire/frame.h"

namespace basin::wire {

// Bytes that libzmq holds for one channel or peer. Its I/O thread counts down as it lets frames go.
using BytesInFlight = std::shared_ptr<std::atomic<size_t>>;

enum class Sent {
  kSent,
  kFull,  // no room at the first frame: nothing was taken, try again later
  kGone,  // the peer does not exist, or went away within the message
};
// `routing_id` is a ROUTER's first part, or empty. Never blocks.
Sent SendParts(void* socket, absl::string_view routing_id, const Message& message, const BytesInFlight& in_flight);

enum class Got {
  kMessage,
  kNothing,
  kTooManyFrames,  // all frames were read and dropped
  kForeign,        // a ROUTER's peer that chose its own routing id: read and dropped
  kClosed,         // the socket does not work any more
};
// For a ROUTER, `peer` takes the number that the ROUTER gave to the sender; for others it is null. Never blocks.
Got ReceiveParts(void* socket, uint64_t* peer, Message& message);

// The routing id that a ROUTER of libzmq makes: a zero byte, then 32 bits, big-endian, counted up over the socket's
// life.
inline constexpr size_t kRoutingIdBytes = 1 + 4;
void PutRoutingId(uint64_t peer, char out[kRoutingIdBytes]);

}  // namespace basin::wire
