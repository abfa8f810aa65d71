#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/wire/epoll.h"
#include "common/wire/poll_timeout.h"
#include "common/wire/resolve.h"
#include "common/wire/shm_link.h"
#include "common/wire/shm_transport.h"
#include "common/wire/spin.h"
#include "common/wire/wake_fd.h"

namespace basin::wire {
namespace {

// A lane answers between two messages; one that does not within this is stopped, or stuck.
constexpr absl::Duration kAnswerWithin = absl::Seconds(5);

class Client;

// What the channels share with their dialer, and outlives both. Of the dialer's thread, but for `wake`.
struct ShmShared {
  explicit ShmShared(const TransportOptions& given) : options(given), spin(given.spin, UsableCoresForSpinning()) {}
  const TransportOptions options;
  const pid_t owner = getpid();
  WakeFd wake;
  Epoll epoll;
  SpinBudget spin;
  std::vector<Client*> channels;
};

// connecting --welcome--> open --hang-up, all read--> cut
//     '--refused, too late--> cut
class Client final : public ShmChannel {
 public:
  Client(std::shared_ptr<ShmShared> shared, std::string address)
      : shared_(std::move(shared)), address_(std::move(address)) {
    shared_->channels.push_back(this);
  }
  ~Client() override {
    auto& channels = shared_->channels;
    channels.erase(std::remove(channels.begin(), channels.end(), this), channels.end());
    DropSocket();
  }

  void Fail(absl::Status why) {
    failure_ = std::move(why);
    state_ = Progress::kFailed;
    DropSocket();
  }

  void Connect(const std::vector<std::string>& ips, uint16_t port) {
    for (const std::string& ip : ips) {
      // The lane's socket bears the address that it has bound, which may be all interfaces.
      for (const std::string& name : {ip, std::string(IsIpv6(ip) ? "::" : "0.0.0.0"), std::string("::")}) {
        absl::StatusOr<UniqueFd> fd = ConnectShm(name, port);
        if (absl::IsNotFound(fd.status())) continue;
        if (!fd.ok()) return Fail(fd.status());
        socket_ = std::make_shared<ShmSocket>(*std::move(fd));
        if (!shared_->epoll.Add(socket_->fd(), 0)) return Fail(absl::UnavailableError("cannot watch a socket"));
        give_up_ = absl::Now() + kAnswerWithin;
        return OnSocket();
      }
    }
    Fail(absl::NotFoundError("connection refused"));
  }

  absl::Status Send(Message message) override {
    BASIN_RETURN_IF_ERROR(CheckLimits(message));
    if (link_ != nullptr) {
      const absl::Status sent = link_->Send(std::move(message));
      return absl::IsUnavailable(sent) ? Unavailable() : sent;
    }
    if (state_ == Progress::kFailed) return Unavailable();
    const size_t bytes = message.bytes();
    if (queued_bytes_ > 0 && queued_bytes_ + bytes > shared_->options.max_bytes_in_flight) {
      return absl::ResourceExhaustedError(absl::StrCat(address_, " has not answered: ", queued_bytes_,
                                                       " bytes wait for it, ", bytes, " more are past ",
                                                       shared_->options.max_bytes_in_flight));
    }
    queued_bytes_ += bytes;
    queue_.push_back(std::move(message));
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Message>> Receive() override {
    if (link_ != nullptr) {
      link_->Pump();
      std::unique_ptr<Message> message = link_->Receive();
      if (message != nullptr) {
        shared_->spin.OnTraffic();
        return message;
      }
      if (link_->cut()) {
        told_ = true;
        DropSocket();
        return Unavailable();
      }
      return std::unique_ptr<Message>();
    }
    if (progress() != Progress::kFailed) return std::unique_ptr<Message>();
    told_ = true;
    return Unavailable();
  }

  Progress progress() override {
    if (state_ == Progress::kConnecting) OnSocket();
    if (state_ == Progress::kConnecting && absl::Now() >= give_up_) {
      Fail(absl::DeadlineExceededError(absl::StrCat("no answer within ", absl::FormatDuration(kAnswerWithin))));
    }
    return state_;
  }
  const absl::Status& failure() const override { return failure_; }
  std::deque<Message> TakeQueued() override {
    queued_bytes_ = 0;
    return std::exchange(queue_, {});
  }

  // Sends what is queued. True: Receive has something.
  bool Ready() {
    if (link_ == nullptr) return progress() != Progress::kConnecting && !told_;
    // Before Pump, which takes what was let go of.
    const bool ready = HasSomething();
    link_->Pump();
    return ready || HasSomething();
  }
  bool HasSomething() const { return link_ != nullptr && !told_ && link_->HasWork(); }
  ShmLink* link() { return link_.get(); }
  absl::Time give_up() const { return state_ == Progress::kConnecting ? give_up_ : absl::InfiniteFuture(); }

  void OnSocket() {
    if (socket_ == nullptr) return;
    if (link_ != nullptr) return link_->OnSocket();
    ShmPacket packet;
    UniqueFd fd;
    switch (socket_->Receive(packet, fd)) {
      case ShmSocket::Got::kNothing:
        return;
      case ShmSocket::Got::kHungUp:
        return Fail(absl::UnavailableError("closed by the peer within the handshake"));
      case ShmSocket::Got::kPacket:
        break;
    }
    if (packet.kind == ShmPacket::kRefused) {
      const bool full = packet.number == static_cast<uint32_t>(absl::StatusCode::kResourceExhausted);
      return Fail(full ? absl::ResourceExhaustedError(packet.text) : absl::PermissionDeniedError(packet.text));
    }
    if (packet.kind != ShmPacket::kWelcome || packet.value != kShmChannelBytes) {
      return Fail(absl::UnavailableError("its memory has another layout"));
    }
    auto memory = ShmMemory::Map(std::move(fd), kShmChannelBytes, ShmMemory::Access::kReadWrite);
    if (!memory.ok()) return Fail(memory.status());
    (*memory)->CloseFd();
    link_ = std::make_unique<ShmLink>(socket_, *std::move(memory), ShmLink::Side::kClient, shared_->options);
    state_ = Progress::kOpen;
    link_->Adopt(TakeQueued());
  }

 private:
  absl::Status Unavailable() const {
    if (link_ != nullptr) return absl::UnavailableError(absl::StrCat(address_, ": ", link_->reason()));
    return absl::Status(resolved_ ? absl::StatusCode::kUnavailable : absl::StatusCode::kNotFound,
                        absl::StrCat(address_, ": ", failure_.message()));
  }

  void DropSocket() {
    if (socket_ == nullptr) return;
    // A forked child has the same epoll set as its parent.
    if (getpid() == shared_->owner) shared_->epoll.Remove(socket_->fd());
    // The link hangs up by itself, but not while nobody has told what it still holds.
    if (link_ == nullptr) socket_->HangUp();
    socket_.reset();
  }

  friend class SharedMemoryDialer;
  const std::shared_ptr<ShmShared> shared_;
  const std::string address_;
  Progress state_ = Progress::kConnecting;
  absl::Status failure_;
  absl::Time give_up_ = absl::InfiniteFuture();
  bool resolved_ = true;
  bool told_ = false;  // Receive has returned the cut
  std::shared_ptr<ShmSocket> socket_;
  std::unique_ptr<ShmLink> link_;
  std::deque<Message> queue_;
  size_t queued_bytes_ = 0;
};

class SharedMemoryDialer final : public ShmDialer {
 public:
  explicit SharedMemoryDialer(const TransportOptions& options) : shared_(std::make_shared<ShmShared>(options)) {}

  std::unique_ptr<Channel> Dial(const std::string& address) override {
    auto channel = std::make_unique<Client>(shared_, address);
    const absl::StatusOr<HostPort> target = SplitHostPort(address);
    if (!target.ok()) {
      channel->Fail(target.status());
      return channel;
    }
    const absl::StatusOr<std::vector<std::string>> ips = Resolve(target->host);
    if (!ips.ok()) {
      channel->resolved_ = false;
      channel->Fail(ips.status());
      return channel;
    }
    channel->Connect(*ips, target->port);
    return channel;
  }
  std::unique_ptr<ShmChannel> DialShm(const std::string& address, const std::vector<std::string>& ips,
                                      uint16_t port) override {
    auto channel = std::make_unique<Client>(shared_, address);
    channel->Connect(ips, port);
    return channel;
  }

  bool Ready() override {
    bool ready = false;
    for (Client* channel : shared_->channels) ready |= channel->Ready();
    return ready;
  }

  bool Spin() override {
    const int64_t start = SteadyNanos();
    const int64_t allowed = shared_->spin.Allowed(start);
    if (allowed == 0) return false;
    int64_t now = start;
    for (; now - start < allowed && !shared_->wake.IsSet(); now = SteadyNanos()) {
      for (int i = 0; i < 16; ++i) {
        for (const Client* channel : shared_->channels) {
          if (channel->HasSomething()) return true;
        }
        SpinPause();
      }
    }
    shared_->spin.OnVain(now - start);
    return false;
  }

  bool Arm() override {
    for (Client* channel : shared_->channels) {
      if (channel->link() != nullptr) channel->link()->Sleep();
    }
    for (const Client* channel : shared_->channels) {
      if (!channel->HasSomething()) continue;
      Disarm();
      return false;
    }
    return true;
  }

  void Disarm() override {
    for (Client* channel : shared_->channels) {
      if (channel->link() != nullptr) channel->link()->WakeUp();
    }
    uint64_t keys[1];
    if (shared_->epoll.Readable(absl::MakeSpan(keys)).empty()) return;
    for (Client* channel : shared_->channels) channel->OnSocket();
  }

  bool TakeWake() override { return shared_->wake.Take(); }
  int fd() const override { return shared_->epoll.fd(); }
  absl::Time next_deadline() const override {
    absl::Time next = absl::InfiniteFuture();
    for (const Client* channel : shared_->channels) next = std::min(next, channel->give_up());
    return next;
  }

  void Wait(absl::Time deadline) override {
    while (!shared_->wake.Take()) {
      if (Ready() || Spin()) return;
      if (!Arm()) return;
      pollfd items[] = {{.fd = shared_->wake.fd(), .events = POLLIN, .revents = 0},
                        {.fd = fd(), .events = POLLIN, .revents = 0}};
      poll(items, 2, PollTimeout(std::min(deadline, next_deadline())));
      Disarm();
      if (items[0].revents != 0) return shared_->wake.Drain();
      if (Ready() || absl::Now() >= deadline) return;
    }
  }
  void Wake() override { shared_->wake.Wake(); }

 private:
  const std::shared_ptr<ShmShared> shared_;
};

}  // namespace

std::unique_ptr<ShmDialer> MakeShmDialer(const TransportOptions& options) {
  return std::make_unique<SharedMemoryDialer>(options);
}

}  // namespace basin::wire
