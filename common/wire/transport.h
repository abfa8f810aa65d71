// The Transport seam: ordered channels between clients and lanes. Twins: zmq_transport (TCP), inproc_transport (one
// process, for tests); the simulation plays the same roles on virtual time.
//
// A channel that was cut stays cut: the transport never reconnects behind its user's back (frames in flight would be
// lost without a word). The user dials again and says Hello.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/limits.h"
#include "common/base/unique_fd.h"
#include "common/wire/frame.h"

namespace basin::wire {

// A client's end of a channel. One thread at a time; it may move between threads with a lock between.
class Channel {
 public:
  virtual ~Channel() = default;  // closes; what was not sent yet is dropped
  // Queues the message; never blocks. RESOURCE_EXHAUSTED past the bytes in flight that Options allow, INVALID_ARGUMENT
  // past limits.h, UNAVAILABLE (NOT_FOUND, see Receive) once the channel is cut. OK is not a delivery: only an answer
  // is.
  virtual absl::Status Send(Message message) = 0;
  // The next message, or nothing yet (nullptr) — never waits. UNAVAILABLE, with the reason ("connection refused",
  // "closed by the peer"), once the channel is cut and everything received was taken; NOT_FOUND where the address's
  // name does not resolve.
  virtual absl::StatusOr<std::unique_ptr<Message>> Receive() = 0;
  // Payloads of fewer bytes travel better within frame 0. It may change once, when the channel opens.
  virtual size_t inline_below() const { return kInlinePayloadBytes; }
};

// A client's transport: makes channels and waits on all of them at once.
class Dialer {
 public:
  virtual ~Dialer() = default;
  // `address` is host:port. Returns at once; a connection that fails shows in Receive.
  virtual std::unique_ptr<Channel> Dial(const std::string& address) = 0;
  // Waits until a channel of this dialer may have something (a message, a cut that Receive has not told yet), Wake is
  // called, or `deadline` passes. Sends what is queued meanwhile. Same thread rules as the channels.
  virtual void Wait(absl::Time deadline) = 0;
  // From any thread: ends a Wait that runs, or the next one.
  virtual void Wake() = 0;
};

// Whom a listener's message came from; never given out twice by one listener.
using PeerId = uint64_t;

struct Received {
  PeerId peer = 0;
  Message message;
};

// How a listener's clients reach it.
struct TransportCounts {
  uint64_t tcp_connections = 0;  // now
  uint64_t shm_connections = 0;  // now
  uint64_t shm_bytes_in = 0;
  uint64_t shm_bytes_out = 0;
};

// A lane's end: many peers. All methods but Wake belong to one thread.
class Listener {
 public:
  virtual ~Listener() = default;
  // host:port that peers can dial (the port is the real one when 0 was asked for).
  virtual std::string address() const = 0;
  // The next message, waiting until `deadline`; nullptr when it passed or Wake was called.
  // What is past limits.h never gets here and is counted: a frame that is too large costs its sender the connection,
  // too many frames cost it the message.
  virtual std::unique_ptr<Received> Receive(absl::Time deadline) = 0;
  // Queues; never blocks. UNAVAILABLE: the peer is gone; RESOURCE_EXHAUSTED: it does not read (its queue is full);
  // INVALID_ARGUMENT: the message is past limits.h.
  virtual absl::Status Send(PeerId peer, Message message) = 0;
  // As Channel::inline_below, towards that peer.
  virtual size_t inline_below(PeerId) const { return kInlinePayloadBytes; }
  // A descriptor that becomes readable when the peer's process has ended, whatever becomes of the channel.
  // FAILED_PRECONDITION: it is not known which process that is; UNAVAILABLE: the system has no such descriptor.
  virtual absl::StatusOr<UniqueFd> PeerProcess(PeerId peer);
  // Waits at most until `deadline` for what was queued to leave; then further sends fail.
  virtual void Close(absl::Time deadline) = 0;
  virtual void Wake() = 0;
  // From any thread.
  virtual TransportCounts counts() const { return {}; }
};

struct TransportOptions {
  int io_threads = 1;
  // Per channel and direction: what Send took and the kernel has not. (Sent and not yet answered is the client's
  // business.)
  size_t max_bytes_in_flight = size_t{256} << 20;
  // A listener accepts no further connection beyond these until one ends.
  size_t max_connections = kMaxConnectionsPerLane;
  // Over shared memory, after a message: how long to look for the next one before sleeping. Saves a wake-up (some
  // 5 to 50 us each way) at the cost of a core for that time; see spin.h for its bounds. Zero: never.
  absl::Duration spin = absl::Microseconds(50);
};

struct ListenerCounters {
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  uint64_t dropped_messages = 0;     // past limits.h, or from a peer that broke the transport's rules
  uint64_t refused_connections = 0;  // past max_connections, or (shared memory) of another user
  uint64_t failed_handshakes = 0;    // peers that do not speak the transport's protocol, or gave up
  uint64_t connections = 0;          // now
};

// INVALID_ARGUMENT, with the number and the limit, for a message that no peer would take.
absl::Status CheckLimits(const Message& message);

}  // namespace basin::wire
