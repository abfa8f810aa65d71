#include <atomic>
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

// Clients over TCP are looked at this often while messages keep coming through shared memory.
constexpr int kShmReceivesPerTcp = 16;

class Both final : public HostListener {
 public:
  Both(std::unique_ptr<ZmqListener> tcp, std::unique_ptr<ShmListener> shm, std::string note)
      : tcp_(std::move(tcp)), shm_(std::move(shm)), note_(std::move(note)) {
    if (shm_ != nullptr) tcp_->AlsoWatch(shm_->fd());
  }

  std::string address() const override { return tcp_->address(); }

  std::unique_ptr<Received> Receive(absl::Time deadline) override {
    if (shm_ == nullptr) return tcp_->Receive(deadline);
    while (!woken_.exchange(false)) {
      if (++receives_since_tcp_ < kShmReceivesPerTcp) {
        if (std::unique_ptr<Received> received = shm_->TryReceive()) return received;
      }
      receives_since_tcp_ = 0;
      if (std::unique_ptr<Received> received = tcp_->Receive(absl::InfinitePast())) return received;
      // Sleeping peers too.
      if (std::unique_ptr<Received> received = shm_->Receive(absl::InfinitePast())) return received;
      if (absl::Now() >= deadline) return nullptr;
      if (std::unique_ptr<Received> received = shm_->SpinReceive()) return received;
      // The looks above have taken the wakes of either; one from here on ends the wait below.
      if (woken_.load() || !shm_->Arm()) continue;
      std::unique_ptr<Received> received = tcp_->Receive(deadline);
      shm_->Disarm();
      if (received != nullptr) return received;
    }
    return nullptr;
  }

  absl::Status Send(PeerId peer, Message message) override {
    if ((peer & kShmPeerBit) == 0) return tcp_->Send(peer, std::move(message));
    if (shm_ == nullptr) return absl::UnavailableError("the peer is gone");
    return shm_->Send(peer, std::move(message));
  }

  size_t inline_below(PeerId peer) const override {
    return (peer & kShmPeerBit) != 0 ? kRingPlacedBytes : kInlinePayloadBytes;
  }

  absl::StatusOr<UniqueFd> PeerProcess(PeerId peer) override {
    if ((peer & kShmPeerBit) == 0 || shm_ == nullptr) return tcp_->PeerProcess(peer);
    return shm_->PeerProcess(peer);
  }

  void Close(absl::Time deadline) override {
    if (shm_ != nullptr) shm_->Close(deadline);
    tcp_->Close(deadline);
  }

  void Wake() override {
    woken_.store(true);
    if (shm_ != nullptr) shm_->Wake();
    tcp_->Wake();
  }

  TransportCounts counts() const override {
    TransportCounts counts{.tcp_connections = tcp_->counters().connections};
    if (shm_ != nullptr) {
      const ListenerCounters shm = shm_->counters();
      counts.shm_connections = shm.connections;
      counts.shm_bytes_in = shm.bytes_in;
      counts.shm_bytes_out = shm.bytes_out;
    }
    return counts;
  }
  const std::string& note() const override { return note_; }

 private:
  const std::unique_ptr<ZmqListener> tcp_;
  const std::unique_ptr<ShmListener> shm_;
  const std::string note_;
  std::atomic<bool> woken_{false};
  int receives_since_tcp_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HostListener>> HostListen(const BindAddress& address, TransportKind kind,
                                                         const TransportOptions& options,
                                                         std::shared_ptr<ZmqContext> context) {
  if (kind == TransportKind::kShm) {
    return absl::InvalidArgumentError("a parameter server always listens on TCP; its transport is auto or tcp");
  }
  absl::StatusOr<std::unique_ptr<ShmListener>> shm = absl::UnavailableError("");
  // Before TCP where that can be: a client that found TCP alone would stay with it.
  const bool port_is_known = address.port != 0;
  if (kind == TransportKind::kAuto && port_is_known) shm = ShmListen(address, options);
  BASIN_ASSIGN_OR_RETURN(std::unique_ptr<ZmqListener> tcp, ZmqListen(address, options, std::move(context)));
  if (kind == TransportKind::kAuto && !port_is_known) {
    BASIN_ASSIGN_OR_RETURN(const HostPort bound, SplitHostPort(tcp->address()));
    BindAddress own = address;
    own.port = bound.port;
    shm = ShmListen(own, options);
  }
  std::string note;
  if (kind == TransportKind::kAuto && !shm.ok()) {
    note = absl::StrCat(shm.status().message(), ": clients on this host use TCP");
  }
  return std::make_unique<Both>(std::move(tcp), shm.ok() ? *std::move(shm) : nullptr, std::move(note));
}

}  // namespace basin::wire
