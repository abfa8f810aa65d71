#include "common/wire/shm_socket.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/wire/resolve.h"
#include "common/wire/shm_layout.h"

namespace basin::wire {
namespace {

// The bytes of kWake that are sent.
constexpr size_t kWakeBytes = sizeof(uint32_t);

struct Address {
  sockaddr_un name = {};
  socklen_t size = 0;
};

// An abstract name: it belongs to the network namespace, and ends with the socket.
Address AddressOf(absl::string_view ip, uint16_t port) {
  const std::string text = absl::StrCat("basin.", kShmLayout, "/", JoinHostPort(ip, port));
  Address address;
  address.name.sun_family = AF_UNIX;
  const size_t size = std::min(text.size(), sizeof(address.name.sun_path) - 1);
  std::memcpy(address.name.sun_path + 1, text.data(), size);
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
  return address;
}

absl::StatusOr<UniqueFd> OpenSocket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) {
    return absl::UnavailableError(absl::StrCat("shared memory: cannot make a socket: ", std::strerror(errno),
                                               errno == EMFILE ? "; raise the limit of open files (ulimit -n)" : ""));
  }
  return fd;
}

}  // namespace

pid_t ShmSocket::Self() { return getpid(); }

bool ShmSocket::Send(const ShmPacket& packet, int with_fd) const {
  ShmPacket copy = packet;
  iovec bytes = {&copy, packet.kind == ShmPacket::kWake ? kWakeBytes : sizeof copy};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  if (with_fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &with_fd, sizeof with_fd);
  }
  return sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.iov_len);
}

// A full buffer loses the packet, and then the peer has others to wake up by.
void ShmSocket::Wake() const {
  const uint32_t kind = ShmPacket::kWake;
  [[maybe_unused]] const ssize_t sent = send(fd_.get(), &kind, kWakeBytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ShmSocket::Got ShmSocket::Receive(ShmPacket& packet, UniqueFd& fd) const {
  packet = ShmPacket();
  fd.Close();
  iovec bytes = {&packet, sizeof packet};
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got;
  do {
    got = recvmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? Got::kNothing : Got::kHungUp;
  bool sound = got == kWakeBytes || got == sizeof packet;
  int count = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t descriptors = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < descriptors; ++i) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(header) + i * sizeof(int), sizeof received);
      fd = UniqueFd(received);  // closes one that came before
      ++count;
    }
  }
  sound = sound && count <= 1 && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  if (got == kWakeBytes && packet.kind != ShmPacket::kWake) sound = false;
  packet.text[sizeof packet.text - 1] = '\0';
  return sound ? Got::kPacket : Got::kHungUp;
}

void ShmSocket::HangUp() const {
  if (getpid() == owner_) shutdown(fd_.get(), SHUT_RDWR);
}

absl::StatusOr<uid_t> PeerUser(int fd) {
  ucred peer = {};
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return absl::UnavailableError(absl::StrCat("shared memory: cannot tell the peer's user: ", std::strerror(errno)));
  }
  return peer.uid;
}

absl::StatusOr<UniqueFd> PeerProcess(int fd) {
  ucred peer = {};
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return absl::UnavailableError(
        absl::StrCat("shared memory: cannot tell the peer's process: ", std::strerror(errno)));
  }
  if (peer.pid <= 0) {
    return absl::FailedPreconditionError("the peer's process is in another namespace of process ids");
  }
  // A number that stands for another process by now only means that more is waited for.
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0)));
  if (process.get() >= 0) return process;
  return absl::UnavailableError(
      absl::StrCat("the end of the peer's process ", peer.pid, " cannot be watched: ", std::strerror(errno)));
}

absl::StatusOr<UniqueFd> ListenShm(absl::string_view ip, uint16_t port) {
  auto fd = OpenSocket();
  if (!fd.ok()) return fd.status();
  const Address address = AddressOf(ip, port);
  if (bind(fd->get(), reinterpret_cast<const sockaddr*>(&address.name), address.size) != 0 ||
      listen(fd->get(), 1024) != 0) {
    const int error = errno;
    const std::string text =
        absl::StrCat("shared memory: cannot listen as ", JoinHostPort(ip, port), ": ", std::strerror(error));
    return error == EADDRINUSE ? absl::AlreadyExistsError(text) : absl::UnavailableError(text);
  }
  return fd;
}

absl::StatusOr<UniqueFd> ConnectShm(absl::string_view ip, uint16_t port) {
  auto fd = OpenSocket();
  if (!fd.ok()) return fd.status();
  const Address address = AddressOf(ip, port);
  if (connect(fd->get(), reinterpret_cast<const sockaddr*>(&address.name), address.size) != 0) {
    if (errno == ECONNREFUSED) return absl::NotFoundError("connection refused");
    return absl::UnavailableError(absl::StrCat("cannot connect: ", std::strerror(errno)));
  }
  // A stranger may have taken the name: it would read what is pushed.
  const absl::StatusOr<uid_t> user = PeerUser(fd->get());
  if (!user.ok()) return user.status();
  if (*user != geteuid()) {
    return absl::PermissionDeniedError(
        absl::StrCat("it runs as user ", *user, ", and this process as user ", geteuid()));
  }
  return fd;
}

UniqueFd AcceptShm(int listening) {
  return UniqueFd(accept4(listening, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

}  // namespace basin::wire
