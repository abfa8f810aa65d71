// The Unix socket of a shared-memory channel: it shows that both ends are on one host and of one user, hands over
// descriptors, wakes the peer, and hangs up when the peer dies.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/wire/shm_memory.h"

namespace basin::wire {

// Packets of the socket. What a peer sends is of any kind and size until it is checked.
struct ShmPacket {
  enum Kind : uint32_t {
    kWake = 0,
    kWelcome = 1,  // lane to client, with the channel's memfd; `value`: its bytes
    kRefused = 2,  // lane to client: `number` is a status code, `text` says why
    kSegment = 3,  // client to lane, with a memfd; `number` counts up from 0, `value`: its bytes
  };
  uint32_t kind = kWake;
  uint32_t number = 0;
  uint64_t value = 0;
  char text[112] = {};
};

class ShmSocket final {
 public:
  explicit ShmSocket(UniqueFd fd) : fd_(std::move(fd)), owner_(Self()) {}
  ~ShmSocket() { HangUp(); }
  ShmSocket(const ShmSocket&) = delete;
  ShmSocket& operator=(const ShmSocket&) = delete;

  int fd() const { return fd_.get(); }
  // Never block. False: the packet did not leave (the peer does not read, or is gone).
  bool Send(const ShmPacket& packet, int with_fd = -1) const;
  // A packet without its unused bytes. From any thread, also after HangUp.
  void Wake() const;
  enum class Got { kPacket, kNothing, kHungUp };
  // `fd` takes the descriptor that came with it. Packets that are too large, or bring several, are kHungUp.
  Got Receive(ShmPacket& packet, UniqueFd& fd) const;
  // The peer sees it at once, though a forked child still holds the descriptor. In such a child: does nothing.
  void HangUp() const;

 private:
  static pid_t Self();
  const UniqueFd fd_;
  const pid_t owner_;
};

// The user of the process at the other end.
absl::StatusOr<uid_t> PeerUser(int fd);

// Becomes readable when the process that has connected the other end has ended; a descriptor that it handed to another,
// or left to a child, does not matter. FAILED_PRECONDITION: it is in another namespace of process ids; UNAVAILABLE: the
// kernel has no such descriptor (before 5.3), or a sandbox forbids it.
absl::StatusOr<UniqueFd> PeerProcess(int fd);

// "ip:port" as the lane has bound it. ALREADY_EXISTS: another process has the name.
absl::StatusOr<UniqueFd> ListenShm(absl::string_view ip, uint16_t port);
// NOT_FOUND: nobody listens there in this network namespace. PERMISSION_DENIED: another user does. UNAVAILABLE: any
// other reason.
absl::StatusOr<UniqueFd> ConnectShm(absl::string_view ip, uint16_t port);
// The next connection; -1 and errno where there is none.
UniqueFd AcceptShm(int listening);

}  // namespace basin::wire
