#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/wire/host_transport.h"
#include "common/wire/resolve.h"
#include "common/wire/shm_layout.h"
#include "common/wire/shm_transport.h"

namespace basin::wire {
namespace {

class HostChannel;

// What the channels share with their dialer, and outlives both.
struct HostShared {
  HostDialerOptions options;
  std::unique_ptr<ShmDialer> shm;
  std::unique_ptr<ZmqDialer> tcp;
  std::vector<HostChannel*> channels;
  bool told_refused = false, told_absent = false;

  void Tell(bool& told, const std::string& line) {
    if (!std::exchange(told, true) && options.tell) options.tell(line);
  }
};

// shared memory, connecting --welcome--> shared memory
//     '--it failed, kAuto--> TCP --first message, and nobody had offered shared memory--> tried once more
//
// Once more, since a listener that was given an open socket is connected to before it is there: the connection waits in
// the socket's queue. When it speaks it has been offering shared memory for as long.
class HostChannel final : public Channel {
 public:
  HostChannel(std::shared_ptr<HostShared> shared, std::string address)
      : shared_(std::move(shared)), address_(std::move(address)) {
    shared_->channels.push_back(this);
    const TransportKind kind = shared_->options.kind;
    if (kind != TransportKind::kTcp && TryShm()) return;
    if (shm_ == nullptr && failure_.ok()) UseTcp();
  }
  ~HostChannel() override {
    auto& channels = shared_->channels;
    channels.erase(std::remove(channels.begin(), channels.end(), this), channels.end());
  }

  absl::Status Send(Message message) override {
    Advance();
    if (tcp_ != nullptr) {
      if (shm_ != nullptr) KeepTcp();  // no more than one message is sent again
      if (absent_ && unanswered_.size() < 2) unanswered_.push_back(message);
      return tcp_->Send(std::move(message));
    }
    if (shm_ != nullptr) return shm_->Send(std::move(message));
    BASIN_RETURN_IF_ERROR(CheckLimits(message));
    return failure_;
  }

  absl::StatusOr<std::unique_ptr<Message>> Receive() override {
    Advance();
    if (shm_ != nullptr && tcp_ == nullptr) return shm_->Receive();
    if (shm_ != nullptr) return nullptr;  // it is tried once more
    if (first_ != nullptr) return std::move(first_);
    if (tcp_ == nullptr) {
      told_ = true;
      return failure_;
    }
    absl::StatusOr<std::unique_ptr<Message>> got = tcp_->Receive();
    if (!absent_ || !got.ok() || *got == nullptr) return got;
    absent_ = false;
    // One message can be sent again, being all that the peer has heard: it begins anew.
    if (unanswered_.size() == 1) {
      first_ = *std::move(got);
      TryShm();
      return Receive();
    }
    KeepTcp();
    TellAbsent();
    return got;
  }

  size_t inline_below() const override { return open_ && shm_ != nullptr ? kRingPlacedBytes : kInlinePayloadBytes; }

  // Goes over to TCP where shared memory has failed. True: Receive has a failure to tell.
  bool Advance() {
    if (shm_ != nullptr && !open_) {
      switch (shm_->progress()) {
        case ShmChannel::Progress::kConnecting:
          return false;
        case ShmChannel::Progress::kOpen:
          open_ = true;
          if (tcp_ != nullptr) LeaveTcp();
          return false;
        case ShmChannel::Progress::kFailed:
          if (tcp_ == nullptr) {
            GiveUpShm(shm_->failure());
          } else {
            KeepTcp();
            TellAbsent();
          }
      }
    }
    return first_ != nullptr || (!failure_.ok() && !told_);
  }

 private:
  // True: it is being tried.
  bool TryShm() {
    const absl::StatusOr<HostPort> target = SplitHostPort(address_);
    if (!target.ok()) return Fail(absl::StatusCode::kUnavailable, target.status().message());
    const absl::StatusOr<std::vector<std::string>> ips = Resolve(target->host);
    if (!ips.ok()) return Fail(absl::StatusCode::kNotFound, ips.status().message());
    std::vector<std::string> own;
    const absl::StatusOr<std::vector<LocalAddress>> local = ListLocalAddresses();
    for (const std::string& ip : *ips) {
      if (IsLoopback(ip) || (local.ok() && std::any_of(local->begin(), local->end(),
                                                       [&](const LocalAddress& entry) { return entry.ip == ip; }))) {
        own.push_back(ip);
      }
    }
    if (own.empty()) {
      if (shared_->options.kind == TransportKind::kAuto) return false;
      return Fail(absl::StatusCode::kUnavailable,
                  "no address of this host (or of this network namespace), so shared memory does not reach it; use the "
                  "transport auto or tcp");
    }
    shm_ = shared_->shm->DialShm(address_, own, target->port);
    Advance();
    return true;
  }

  void GiveUpShm(const absl::Status& why) {
    if (shared_->options.kind == TransportKind::kShm) {
      const std::string reason(why.message());
      shm_.reset();
      Fail(absl::StatusCode::kUnavailable,
           absl::StrCat("no shared memory: ", reason,
                        "; basin-ps of the same user offers it, unless it was started with --transport tcp; the "
                        "transport auto falls back to TCP"));
      return;
    }
    if (absl::IsResourceExhausted(why)) {
      const std::string reason(why.message());
      shm_.reset();
      Fail(absl::StatusCode::kUnavailable, reason);
      return;
    }
    if (absl::IsNotFound(why)) {
      absent_ = true;
    } else {
      shared_->Tell(shared_->told_refused,
                    absl::StrCat("shared memory is refused by ", address_, ": ", why.message(), ": using TCP"));
    }
    std::deque<Message> queued = shm_->TakeQueued();
    shm_.reset();
    UseTcp();
    for (Message& message : queued) Send(std::move(message)).IgnoreError();
  }

  void UseTcp() { tcp_ = shared_->tcp->Dial(address_); }

  void LeaveTcp() {
    tcp_.reset();
    first_.reset();  // an answer to what is sent again now
    for (Message& message : std::exchange(unanswered_, {})) shm_->Send(std::move(message)).IgnoreError();
  }

  void KeepTcp() {
    shm_.reset();
    unanswered_.clear();
  }

  void TellAbsent() {
    shared_->Tell(shared_->told_absent,
                  absl::StrCat(address_, " is on this host and offers no shared memory: using TCP"));
  }

  // Always false.
  bool Fail(absl::StatusCode code, absl::string_view why) {
    failure_ = absl::Status(code, absl::StrCat(address_, ": ", why));
    return false;
  }

  const std::shared_ptr<HostShared> shared_;
  const std::string address_;
  std::unique_ptr<ShmChannel> shm_;
  std::unique_ptr<Channel> tcp_;
  absl::Status failure_;  // where neither is
  bool open_ = false;     // shm_ is, for good
  bool absent_ = false;   // nobody offered shared memory there, and TCP has brought nothing yet
  bool told_ = false;     // Receive has returned the failure
  std::vector<Message> unanswered_;  // the first that were sent while absent_, no more than two
  std::unique_ptr<Message> first_;   // of TCP; until shared memory is open, or has failed
};

class HostDialer final : public Dialer {
 public:
  HostDialer(const HostDialerOptions& options, std::shared_ptr<ZmqContext> context)
      : shared_(std::make_shared<HostShared>()) {
    shared_->options = options;
    shared_->shm = MakeShmDialer(options.transport);
    shared_->tcp = MakeZmqDialer(options.transport, std::move(context));
    shared_->tcp->AlsoWatch(shared_->shm->fd());
  }

  std::unique_ptr<Channel> Dial(const std::string& address) override {
    return std::make_unique<HostChannel>(shared_, address);
  }

  void Wait(absl::Time deadline) override {
    ShmDialer& shm = *shared_->shm;
    if (shm.TakeWake()) return;
    bool ready = shm.Ready();
    for (HostChannel* channel : shared_->channels) ready |= channel->Advance();
    if (ready || shm.Spin() || !shm.Arm()) return;
    shared_->tcp->Wait(std::min(deadline, shm.next_deadline()));
    shm.Disarm();
  }

  void Wake() override {
    shared_->shm->Wake();
    shared_->tcp->Wake();
  }

 private:
  const std::shared_ptr<HostShared> shared_;
};

}  // namespace

absl::StatusOr<TransportKind> TransportKindFromName(absl::string_view name) {
  if (name == "auto") return TransportKind::kAuto;
  if (name == "tcp") return TransportKind::kTcp;
  if (name == "shm") return TransportKind::kShm;
  return absl::InvalidArgumentError(absl::StrCat("transport \"", name, "\": expected auto, tcp or shm"));
}

std::unique_ptr<Dialer> MakeHostDialer(const HostDialerOptions& options, std::shared_ptr<ZmqContext> context) {
  return std::make_unique<HostDialer>(options, std::move(context));
}

}  // namespace basin::wire
