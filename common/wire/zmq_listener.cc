#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <zmq.h>

#include <algorithm>
#include <atomic>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/wire/port_owner.h"
#include "common/wire/resolve.h"
#include "common/wire/wake_fd.h"
#include "common/wire/zmq_message.h"
#include "common/wire/zmq_socket.h"
#include "common/wire/zmq_transport.h"

namespace basin::wire {
namespace {

// libzmq's marks count messages. Incoming: what one peer can make this process hold before the lane reads it, at 32 MiB
// a message (half of the largest that a client sends).
int ReceiveMark(const TransportOptions& options) {
  return static_cast<int>(std::clamp<size_t>(options.max_bytes_in_flight / (32 << 20), 2, 1000));
}
// Outgoing: large frames are counted in bytes here; this bounds the small ones, which libzmq copies.
constexpr int kListenerSendMark = 1024;

class Counter {
 public:
  void Add(uint64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  void Set(uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  uint64_t Get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Router final : public ZmqListener {
 public:
  Router(const TransportOptions& options, ZmqSocket socket, ZmqMonitor monitor, std::string host, uint16_t port)
      : options_(options),
        address_(JoinHostPort(host, port)),
        port_(port),
        monitor_(std::move(monitor)),
        socket_(std::move(socket)) {}

  std::string address() const override { return address_; }
  void AlsoWatch(int fd) override { also_watched_ = fd; }

  std::unique_ptr<Received> Receive(absl::Time deadline) override {
    auto received = std::make_unique<Received>();
    while (!wake_.Take() && socket_.handle() != nullptr) {
      if (++receives_since_watch_ >= kReceivesPerWatch) Watch();
      switch (ReceiveParts(socket_.handle(), &received->peer, received->message)) {
        case Got::kMessage:
          bytes_in_.Add(received->message.bytes());
          return received;
        case Got::kTooManyFrames:
        case Got::kForeign:
          dropped_messages_.Add(1);
          // A flood of these must not hold the lane past its deadline.
          if (absl::Now() >= deadline) return nullptr;
          continue;
        case Got::kClosed:
          return nullptr;
        case Got::kNothing:
          break;
      }
      Watch();
      if (absl::Now() >= deadline) return nullptr;
      zmq_pollitem_t items[] = {{socket_.handle(), 0, ZMQ_POLLIN, 0},
                                {monitor_.handle(), 0, ZMQ_POLLIN, 0},
                                {nullptr, wake_.fd(), ZMQ_POLLIN, 0},
                                {nullptr, also_watched_, ZMQ_POLLIN, 0}};
      const int watched = also_watched_ >= 0 ? 4 : 3;
      if (zmq_poll(items, watched, PollMilliseconds(deadline)) <= 0) continue;
      if (items[2].revents != 0) {
        wake_.Drain();
        return nullptr;
      }
      if (items[3].revents != 0) return nullptr;
    }
    return nullptr;
  }

  absl::Status Send(PeerId peer, Message message) override {
    BASIN_RETURN_IF_ERROR(CheckLimits(message));
    if (socket_.handle() == nullptr) return absl::UnavailableError("this listener is closed");
    const BytesInFlight& in_flight = InFlight(peer);
    const size_t bytes = message.bytes();
    const size_t waiting = in_flight->load(std::memory_order_acquire);
    // A message alone may be larger than the bound: refusing it would refuse it for ever.
    if (waiting > 0 && waiting + bytes > options_.max_bytes_in_flight) {
      return absl::ResourceExhaustedError(absl::StrCat("the peer does not read: ", waiting, " bytes wait for it, ",
                                                       bytes, " more are past ", options_.max_bytes_in_flight));
    }
    char id[kRoutingIdBytes];
    PutRoutingId(peer, id);
    switch (SendParts(socket_.handle(), absl::string_view(id, sizeof id), message, in_flight)) {
      case Sent::kSent:
        bytes_out_.Add(bytes);
        return absl::OkStatus();
      case Sent::kFull:
        return absl::ResourceExhaustedError(
            absl::StrCat("the peer does not read: ", kListenerSendMark, " messages wait for it"));
      case Sent::kGone:
        break;
    }
    in_flight_.erase(peer);
    return absl::UnavailableError("the peer is gone");
  }

  void Close(absl::Time deadline) override {
    if (socket_.handle() == nullptr) return;
    const long linger = PollMilliseconds(deadline);
    socket_.Set(ZMQ_LINGER, static_cast<int>(linger < 0 ? 3'600'000 : linger));
    socket_.Close();
    // libzmq sends the rest from its own threads; the monitor stops when the socket is really gone.
    for (bool open = true; open;) {
      while (std::optional<MonitorEvent> event = monitor_.Next()) {
        if (event->event == ZMQ_EVENT_MONITOR_STOPPED) open = false;
      }
      if (!open || absl::Now() >= deadline) break;
      zmq_pollitem_t item = {monitor_.handle(), 0, ZMQ_POLLIN, 0};
      zmq_poll(&item, 1, PollMilliseconds(deadline));
    }
    monitor_.Close();
    connections_.Set(0);
  }

  void Wake() override { wake_.Wake(); }

  ListenerCounters counters() const override {
    return {.bytes_in = bytes_in_.Get(),
            .bytes_out = bytes_out_.Get(),
            .dropped_messages = dropped_messages_.Get(),
            .refused_connections = refused_connections_.Get(),
            .failed_handshakes = failed_handshakes_.Get(),
            .connections = connections_.Get()};
  }

 private:
  static constexpr int kReceivesPerWatch = 64;

  // Follows connections coming and going, and closes those past the limit.
  void Watch() {
    receives_since_watch_ = 0;
    std::vector<int> excess;
    while (std::optional<MonitorEvent> event = monitor_.Next()) {
      const int fd = static_cast<int>(event->value);
      switch (event->event) {
        case ZMQ_EVENT_ACCEPTED:
          if (++open_ > options_.max_connections) excess.push_back(fd);
          break;
        case ZMQ_EVENT_DISCONNECTED:
          if (open_ > 0) --open_;
          excess.erase(std::remove(excess.begin(), excess.end(), fd), excess.end());
          break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
          failed_handshakes_.Add(1);
          break;
        default:
          break;
      }
    }
    for (const int fd : excess) Refuse(fd);
    connections_.Set(open_);
  }

  // libzmq has no limit on connections, so the descriptor is shut down under it, which it takes for a peer that hung
  // up. If libzmq has closed the descriptor in this very moment and it was taken again for another connection, that one
  // is cut instead; its client dials again.
  void Refuse(int fd) {
    sockaddr_storage local = {};
    socklen_t size = sizeof local;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) != 0) return;
    const uint16_t port = local.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&local)->sin6_port
                                                      : reinterpret_cast<sockaddr_in*>(&local)->sin_port;
    if (ntohs(port) != port_) return;
    shutdown(fd, SHUT_RDWR);
    refused_connections_.Add(1);
  }

  const BytesInFlight& InFlight(PeerId peer) {
    BytesInFlight& found = in_flight_[peer];
    if (found != nullptr) return found;
    found = std::make_shared<std::atomic<size_t>>(0);
    if (in_flight_.size() < sweep_at_) return found;
    // Peers that went away leave an entry behind until now. (References into an unordered_map survive this.)
    for (auto at = in_flight_.begin(); at != in_flight_.end();) {
      const bool idle = at->first != peer && at->second->load(std::memory_order_acquire) == 0;
      at = idle ? in_flight_.erase(at) : std::next(at);
    }
    sweep_at_ = std::max<size_t>(kFirstSweep, 2 * in_flight_.size());
    return found;
  }

  static constexpr size_t kFirstSweep = 1024;

  const TransportOptions options_;
  const std::string address_;
  const uint16_t port_;

  WakeFd wake_;
  Counter bytes_in_, bytes_out_, dropped_messages_, refused_connections_, failed_handshakes_, connections_;

  // Of the listener's thread.
  ZmqMonitor monitor_;
  ZmqSocket socket_;
  size_t open_ = 0;
  int also_watched_ = -1;
  int receives_since_watch_ = 0;
  std::unordered_map<PeerId, BytesInFlight> in_flight_;
  size_t sweep_at_ = kFirstSweep;
};

absl::Status BindError(const BindAddress& address, int error) {
  const std::string what =
      absl::StrCat("cannot bind ", JoinHostPort(address.host, address.port), " (", address.ip, "): ");
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(absl::StrCat(what, "in use by ", DescribePortOwner(address.port),
                                                 "; stop that process, or give this task another port in TF_CONFIG"));
  }
  if (error == EACCES) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, "ports below 1024 are root's; give this task another port in TF_CONFIG"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, zmq_strerror(error), "; check this task's address in TF_CONFIG and --interface"));
}

// That the descriptor is what the caller takes it for: libzmq would find out only when the first client dials.
absl::Status CheckListening(const BindAddress& address) {
  const int fd = address.listening_fd;
  const std::string what =
      absl::StrCat("descriptor ", fd, " given to listen on ", JoinHostPort(address.host, address.port));
  int is_listening = 0;
  socklen_t size = sizeof is_listening;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size) != 0 || is_listening == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(what,
                     " is no listening socket; expected one that whoever starts this task has opened, "
                     "bound and listens on (basin submit does so); without "
                     "--listen-fd the task binds its address itself"));
  }
  sockaddr_storage bound = {};
  size = sizeof bound;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(what, " has no address (", std::strerror(errno),
                                                   "); expected a TCP socket; without --listen-fd the task binds its "
                                                   "address itself"));
  }
  const int port = bound.ss_family == AF_INET    ? ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port)
                   : bound.ss_family == AF_INET6 ? ntohs(reinterpret_cast<const sockaddr_in6&>(bound).sin6_port)
                                                 : 0;
  if (port == 0 || (address.port != 0 && port != address.port)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " listens on port ", port, "; the address in TF_CONFIG must be its"));
  }
  // libzmq accepts when its poller says so; a client that has hung up by then must not block its I/O thread.
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return absl::OkStatus();
}

}  // namespace

std::shared_ptr<ZmqContext> MakeZmqContext(int io_threads) { return std::make_shared<ZmqContext>(io_threads); }

absl::StatusOr<std::unique_ptr<ZmqListener>> ZmqListen(const BindAddress& address, const TransportOptions& options,
                                                       std::shared_ptr<ZmqContext> context) {
  if (context == nullptr) context = MakeZmqContext(options.io_threads);
  BASIN_ASSIGN_OR_RETURN(ZmqSocket socket, ZmqSocket::Open(std::move(context), ZMQ_ROUTER));
  SetConnectionOptions(socket);
  socket.Set(ZMQ_ROUTER_MANDATORY, 1);
  socket.Set(ZMQ_RCVHWM, ReceiveMark(options));
  socket.Set(ZMQ_SNDHWM, kListenerSendMark);
  socket.Set(ZMQ_BACKLOG, 1024);
  if (IsIpv6(address.ip)) socket.Set(ZMQ_IPV6, 1);
  if (address.listening_fd >= 0) {
    BASIN_RETURN_IF_ERROR(CheckListening(address));
    socket.Set(ZMQ_USE_FD, address.listening_fd);
  }
  BASIN_ASSIGN_OR_RETURN(
      ZmqMonitor monitor,
      ZmqMonitor::Attach(socket, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                                     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                                     ZMQ_EVENT_MONITOR_STOPPED));
  const std::string endpoint = absl::StrCat("tcp://", JoinHostPort(address.ip, address.port));
  if (zmq_bind(socket.handle(), endpoint.c_str()) != 0) return BindError(address, zmq_errno());
  char bound[256] = {};
  size_t size = sizeof bound;
  BASIN_CHECK(zmq_getsockopt(socket.handle(), ZMQ_LAST_ENDPOINT, bound, &size) == 0);
  // tcp://ip:port
  const std::string text = bound;
  BASIN_ASSIGN_OR_RETURN(const HostPort real, SplitHostPort(absl::string_view(text).substr(text.find("//") + 2)));
  return std::make_unique<Router>(options, std::move(socket), std::move(monitor),
                                  address.host.empty() ? real.host : address.host, real.port);
}

}  // namespace basin::wire
