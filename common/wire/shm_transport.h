// The Transport seam over shared memory: both ends on one host, in one network namespace, of one user. Also the parts
// that the transport of a host (host_transport.h) is put together from. Decisions are in README.md.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/wire/bind_address.h"
#include "common/wire/transport.h"

namespace basin::wire {

// A channel that is still being made keeps what is sent, so that another transport can take it over.
class ShmChannel : public Channel {
 public:
  enum class Progress { kConnecting, kOpen, kFailed };
  // kOpen once the lane has answered, for good; kFailed: it never will.
  virtual Progress progress() = 0;
  // Where it failed: NOT_FOUND, nobody offers shared memory at this address; RESOURCE_EXHAUSTED, the lane takes no
  // further connection; else why it is refused.
  virtual const absl::Status& failure() const = 0;
  // What was sent while it was connecting.
  virtual std::deque<Message> TakeQueued() = 0;
};

class ShmDialer : public Dialer {
 public:
  // `ips` are what the address's host resolves to.
  virtual std::unique_ptr<ShmChannel> DialShm(const std::string& address, const std::vector<std::string>& ips,
                                              uint16_t port) = 0;

  // The parts of Wait, for whoever waits on other things too.
  // Sends what is queued. True: a channel has something.
  virtual bool Ready() = 0;
  // Looks for a moment where that is worth it, or until Wake. True: a channel has something.
  virtual bool Spin() = 0;
  // From Arm to Disarm peers wake this end: fd() becomes readable. False: a channel has something, do not sleep.
  virtual bool Arm() = 0;
  virtual void Disarm() = 0;
  // Whether Wake was called since the last time; takes it back.
  virtual bool TakeWake() = 0;
  virtual int fd() const = 0;
  // When a channel that is being made gives up.
  virtual absl::Time next_deadline() const = 0;
};

// Channels and dialer may be destroyed in any order. After fork, the child must call none of these methods; destructors
// are harmless there.
std::unique_ptr<ShmDialer> MakeShmDialer(const TransportOptions& options);

class ShmListener : public Listener {
 public:
  // From any thread.
  virtual ListenerCounters counters() const = 0;
  // The parts of Receive, as ShmDialer's.
  virtual std::unique_ptr<Received> TryReceive() = 0;
  virtual std::unique_ptr<Received> SpinReceive() = 0;
  virtual bool Arm() = 0;
  virtual void Disarm() = 0;
  virtual int fd() const = 0;
};

// PeerIds of this transport have this bit, those of ZeroMQ do not.
inline constexpr PeerId kShmPeerBit = PeerId{1} << 63;

// `address` names the lane (see ListenShm); nothing is bound but an abstract Unix socket. Port 0 takes a free number.
// Errors: ALREADY_EXISTS, UNAVAILABLE.
absl::StatusOr<std::unique_ptr<ShmListener>> ShmListen(const BindAddress& address, const TransportOptions& options);

}  // namespace basin::wire
