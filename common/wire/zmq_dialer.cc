#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/wire/resolve.h"
#include "common/wire/wake_fd.h"
#include "common/wire/zmq_message.h"
#include "common/wire/zmq_socket.h"
#include "common/wire/zmq_transport.h"

namespace basin::wire {
namespace {

constexpr int kConnectMs = 10'000;
constexpr absl::Duration kProbe = absl::Seconds(2);
// Reconnecting must not happen, so it is put off for a day; the channel closes its socket at the first cut. Not -1:
// libzmq 4.3.4 then throws away what it has received and the channel has not read yet. ZMQ_IMMEDIATE does the same, and
// is not needed: nothing is handed to libzmq before the handshake has succeeded.
constexpr int kReconnectMs = 24 * 3600 * 1000;
// Large frames are counted in bytes; this bounds the small ones that libzmq copies. The rest waits in the channel's
// queue.
constexpr int kDialerSendMark = 1024;

// libzmq does not tell why a connection could not be made. So the same is tried once more by hand, without blocking.
class ConnectProbe final {
 public:
  ConnectProbe(const std::string& ip, uint16_t port) : deadline_(absl::Now() + kProbe) {
    sockaddr_storage storage = {};
    socklen_t size = sizeof(sockaddr_in);
    auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
    if (IsIpv6(ip)) {
      size = sizeof(sockaddr_in6);
      v6->sin6_family = AF_INET6;
      v6->sin6_port = htons(port);
      inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr);
    } else {
      v4->sin_family = AF_INET;
      v4->sin_port = htons(port);
      inet_pton(AF_INET, ip.c_str(), &v4->sin_addr);
    }
    fd_ = socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0) {
      error_ = errno;
    } else if (connect(fd_, reinterpret_cast<sockaddr*>(&storage), size) != 0) {
      error_ = errno;
    }
  }
  ~ConnectProbe() {
    if (fd_ >= 0) close(fd_);
  }
  ConnectProbe(const ConnectProbe&) = delete;
  ConnectProbe& operator=(const ConnectProbe&) = delete;

  int fd() const { return fd_; }
  absl::Time deadline() const { return deadline_; }
  // Empty while it is not known.
  std::string Reason() {
    if (error_ == EINPROGRESS) {
      zmq_pollitem_t item = {nullptr, fd_, ZMQ_POLLOUT, 0};
      if (zmq_poll(&item, 1, 0) > 0) {
        socklen_t size = sizeof error_;
        getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error_, &size);
      } else if (absl::Now() < deadline_) {
        return "";
      }
    }
    switch (error_) {
      case 0:
        return "the connection failed, though the port answers now";
      case ECONNREFUSED:
        return "connection refused";
      case EINPROGRESS:
      case ETIMEDOUT:
        return "connection timed out";
      case EHOSTUNREACH:
        return "no route to host";
      case ENETUNREACH:
        return "network is unreachable";
      default:
        return std::strerror(error_);
    }
  }

 private:
  const absl::Time deadline_;
  int fd_ = -1;
  int error_ = 0;
};

class Dealer;

// What the channels share with their dialer, and outlives both. Of the dialer's thread, but for `wake`.
struct ZmqShared {
  TransportOptions options;
  std::shared_ptr<ZmqContext> context;
  WakeFd wake;
  std::vector<Dealer*> channels;
};

// connecting --handshake--> open --disconnect--> draining --all read--> cut
//     |--failed, another address--> connecting
//     '--failed, the last address--> probing --reason known--> cut
class Dealer final : public Channel {
 public:
  Dealer(std::shared_ptr<ZmqShared> shared, std::string address)
      : shared_(std::move(shared)), address_(std::move(address)) {
    shared_->channels.push_back(this);
    if (absl::Status status = Look(); !status.ok()) {
      Cut(status.message());
    } else {
      Connect();
    }
  }
  ~Dealer() override {
    auto& channels = shared_->channels;
    channels.erase(std::remove(channels.begin(), channels.end(), this), channels.end());
  }

  absl::Status Send(Message message) override {
    BASIN_RETURN_IF_ERROR(CheckLimits(message));
    Pump();
    if (state_ == State::kDraining || state_ == State::kCut || state_ == State::kProbing) return Unavailable();
    const size_t bytes = message.bytes();
    const size_t waiting = queued_bytes_ + in_flight_->load(std::memory_order_acquire);
    // A message alone may be larger than the bound: refusing it would refuse it for ever.
    if (waiting > 0 && waiting + bytes > shared_->options.max_bytes_in_flight) {
      return absl::ResourceExhaustedError(absl::StrCat(address_, " does not read: ", waiting, " bytes wait for it, ",
                                                       bytes, " more are past ", shared_->options.max_bytes_in_flight));
    }
    queued_bytes_ += bytes;
    queue_.push_back(std::move(message));
    Flush();
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Message>> Receive() override {
    Pump();
    if (state_ == State::kOpen || state_ == State::kDraining) {
      auto message = std::make_unique<Message>();
      switch (ReceiveParts(socket_.handle(), nullptr, *message)) {
        case Got::kMessage:
          return message;
        case Got::kTooManyFrames:
        case Got::kForeign:
          Cut("it sent a message past the limits");
          break;
        case Got::kClosed:
          Cut("closed");
          break;
        case Got::kNothing:
          if (state_ == State::kDraining) Cut(reason_);
          break;
      }
    }
    if (state_ != State::kCut) return std::unique_ptr<Message>();
    told_ = true;
    return Unavailable();
  }

  // Takes what the monitor and the probe know, and sends what is queued. True if Receive has a cut to tell.
  bool Pump() {
    while (std::optional<MonitorEvent> event = monitor_.Next()) {
      OnEvent(*event);
      if (state_ == State::kCut) break;
    }
    if (state_ == State::kProbing) {
      if (const std::string reason = probe_->Reason(); !reason.empty()) Cut(reason);
    }
    Flush();
    return state_ == State::kDraining || (state_ == State::kCut && !told_);
  }

  // Appends what to wait for, and returns the index of the item whose readiness means a message (or -1).
  int Items(std::vector<zmq_pollitem_t>& items, absl::Time& deadline) const {
    int readable = -1;
    if (state_ == State::kProbing) {
      items.push_back({nullptr, probe_->fd(), ZMQ_POLLOUT, 0});
      deadline = std::min(deadline, probe_->deadline());
    }
    if (socket_.handle() == nullptr) return readable;
    if (monitor_.handle() != nullptr) items.push_back({monitor_.handle(), 0, ZMQ_POLLIN, 0});
    if (state_ == State::kOpen) {
      readable = static_cast<int>(items.size());
      items.push_back({socket_.handle(), 0, static_cast<short>(ZMQ_POLLIN | (queue_.empty() ? 0 : ZMQ_POLLOUT)), 0});
    }
    return readable;
  }

 private:
  enum class State { kConnecting, kOpen, kDraining, kProbing, kCut };

  absl::Status Unavailable() const {
    return absl::Status(resolved_ ? absl::StatusCode::kUnavailable : absl::StatusCode::kNotFound,
                        absl::StrCat(address_, ": ", reason_));
  }

  absl::Status Look() {
    BASIN_ASSIGN_OR_RETURN(const HostPort target, SplitHostPort(address_));
    port_ = target.port;
    resolved_ = false;
    BASIN_ASSIGN_OR_RETURN(ips_, Resolve(target.host));
    resolved_ = true;
    return absl::OkStatus();
  }

  // Opens a socket for the next address.
  void Connect() {
    if (absl::Status status = Open(ips_[next_ip_++]); !status.ok()) Cut(status.message());
  }

  absl::Status Open(const std::string& ip) {
    monitor_.Close();
    BASIN_ASSIGN_OR_RETURN(socket_, ZmqSocket::Open(shared_->context, ZMQ_DEALER));
    SetConnectionOptions(socket_);
    socket_.Set(ZMQ_RECONNECT_IVL, kReconnectMs);
    socket_.Set(ZMQ_CONNECT_TIMEOUT, kConnectMs);
    socket_.Set(ZMQ_SNDHWM, kDialerSendMark);
    // Answers are bounded by the requests that this client has sent.
    socket_.Set(ZMQ_RCVHWM, 0);
    if (IsIpv6(ip)) socket_.Set(ZMQ_IPV6, 1);
    BASIN_ASSIGN_OR_RETURN(
        monitor_,
        ZmqMonitor::Attach(socket_, ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED |
                                        ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                                        ZMQ_EVENT_HANDSHAKE_FAILED_AUTH));
    const std::string endpoint = absl::StrCat("tcp://", JoinHostPort(ip, port_));
    if (zmq_connect(socket_.handle(), endpoint.c_str()) != 0) {
      return absl::UnavailableError(absl::StrCat("cannot connect to ", endpoint, ": ", zmq_strerror(zmq_errno())));
    }
    state_ = State::kConnecting;
    return absl::OkStatus();
  }

  void OnEvent(const MonitorEvent& event) {
    switch (event.event) {
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        if (state_ == State::kConnecting) state_ = State::kOpen;
        break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        reason_ = "closed by the peer within the handshake; is another program listening there?";
        break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        reason_ = "the peer does not speak ZeroMQ; is another program listening there?";
        break;
      case ZMQ_EVENT_DISCONNECTED:
        if (state_ == State::kConnecting)
          return Cut(reason_.empty() ? "closed by the peer within the handshake" : reason_);
        if (state_ != State::kOpen) break;
        // What arrived before the cut is in the socket by now, and is told first.
        state_ = State::kDraining;
        reason_ = "closed by the peer, or not heard from any more";
        DropQueue();
        break;
      case ZMQ_EVENT_CLOSED:
        if (state_ != State::kConnecting) break;
        if (next_ip_ < ips_.size()) return Connect();
        CloseSockets();
        state_ = State::kProbing;
        reason_ = "the connection failed";
        DropQueue();
        probe_ = std::make_unique<ConnectProbe>(ips_.back(), port_);
        break;
      default:
        break;
    }
  }

  void Flush() {
    while (state_ == State::kOpen && !queue_.empty()) {
      const Sent sent = SendParts(socket_.handle(), "", queue_.front(), in_flight_);
      if (sent == Sent::kFull) return;
      // kGone: the monitor is about to tell that the connection is cut; the rest of the queue goes then.
      if (sent == Sent::kGone) return;
      queued_bytes_ -= queue_.front().bytes();
      queue_.pop_front();
    }
  }

  void Cut(absl::string_view reason) {
    // A copy first: `reason` may point into reason_.
    std::string text(reason);
    reason_ = std::move(text);
    state_ = State::kCut;
    CloseSockets();
    DropQueue();
    probe_.reset();
  }

  void CloseSockets() {
    socket_.Close();
    monitor_.Close();
  }

  void DropQueue() {
    queue_.clear();
    queued_bytes_ = 0;
  }

  const std::shared_ptr<ZmqShared> shared_;
  const std::string address_;
  const BytesInFlight in_flight_ = std::make_shared<std::atomic<size_t>>(0);
  std::vector<std::string> ips_;
  uint16_t port_ = 0;
  size_t next_ip_ = 0;
  State state_ = State::kConnecting;
  std::string reason_;
  bool resolved_ = true;
  bool told_ = false;  // Receive has returned the cut
  ZmqMonitor monitor_;
  ZmqSocket socket_;
  std::unique_ptr<ConnectProbe> probe_;
  std::deque<Message> queue_;
  size_t queued_bytes_ = 0;
};

class DealerDialer final : public ZmqDialer {
 public:
  DealerDialer(const TransportOptions& options, std::shared_ptr<ZmqContext> context)
      : shared_(std::make_shared<ZmqShared>()) {
    shared_->options = options;
    shared_->context = context != nullptr ? std::move(context) : MakeZmqContext(options.io_threads);
  }

  std::unique_ptr<Channel> Dial(const std::string& address) override {
    return std::make_unique<Dealer>(shared_, address);
  }

  void Wait(absl::Time deadline) override {
    std::vector<zmq_pollitem_t> items;
    std::vector<int> readable;
    while (!shared_->wake.Take()) {
      bool ready = false;
      for (Dealer* channel : shared_->channels) ready |= channel->Pump();
      if (ready) return;
      items.assign({{nullptr, shared_->wake.fd(), ZMQ_POLLIN, 0}});
      if (also_watched_ >= 0) items.push_back({nullptr, also_watched_, ZMQ_POLLIN, 0});
      readable.clear();
      absl::Time until = deadline;
      for (const Dealer* channel : shared_->channels) {
        if (const int at = channel->Items(items, until); at >= 0) readable.push_back(at);
      }
      const int got = zmq_poll(items.data(), static_cast<int>(items.size()), PollMilliseconds(until));
      if (got > 0 && items[0].revents != 0) return shared_->wake.Drain();
      if (got > 0 && also_watched_ >= 0 && items[1].revents != 0) return;
      for (const int at : readable) {
        if (items[at].revents & ZMQ_POLLIN) return;
      }
      if (absl::Now() >= deadline) return;
    }
  }

  void Wake() override { shared_->wake.Wake(); }
  void AlsoWatch(int fd) override { also_watched_ = fd; }

 private:
  const std::shared_ptr<ZmqShared> shared_;
  int also_watched_ = -1;
};

}  // namespace

std::unique_ptr<ZmqDialer> MakeZmqDialer(const TransportOptions& options, std::shared_ptr<ZmqContext> context) {
  return std::make_unique<DealerDialer>(options, std::move(context));
}

}  // namespace basin::wire
