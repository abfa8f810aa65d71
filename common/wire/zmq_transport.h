// The Transport seam over TCP with ZeroMQ: a ROUTER a lane, a DEALER a channel. Decisions and what libzmq does not do
// for us are in README.md.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/wire/bind_address.h"
#include "common/wire/transport.h"

namespace basin::wire {

// libzmq's I/O threads; one serves any number of dialers and listeners. Lives until the last of them is gone.
class ZmqContext;
std::shared_ptr<ZmqContext> MakeZmqContext(int io_threads);

class ZmqDialer : public Dialer {
 public:
  // Wait also returns when this descriptor, which outlives the dialer, is readable.
  virtual void AlsoWatch(int fd) = 0;
};

// Channels and dialer may be destroyed in any order. Dial resolves the host name in the calling thread, which may block
// as long as the system's resolver does. `context`: made with options.io_threads where none is given.
// After fork, the child must call none of these methods; destructors are harmless there.
std::unique_ptr<ZmqDialer> MakeZmqDialer(const TransportOptions& options,
                                         std::shared_ptr<ZmqContext> context = nullptr);

class ZmqListener : public Listener {
 public:
  // Receive also returns (nullptr) when this descriptor, which outlives the listener, is readable.
  virtual void AlsoWatch(int fd) = 0;
  // From any thread.
  virtual ListenerCounters counters() const = 0;
};

// Errors: ALREADY_EXISTS: the port is taken, by whom where that can be known; INVALID_ARGUMENT: this machine has no
// such address; UNAVAILABLE: out of descriptors.
absl::StatusOr<std::unique_ptr<ZmqListener>> ZmqListen(const BindAddress& address, const TransportOptions& options,
                                                       std::shared_ptr<ZmqContext> context = nullptr);

}  // namespace basin::wire
