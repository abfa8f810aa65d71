#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <unordered_map>
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

constexpr uint64_t kListeningKey = 0;  // PeerIds have kShmPeerBit
// A peer that had nothing this often in a row is no longer looked at: it wakes the lane with its next message.
constexpr int kEmptyLooks = 256;
// Sockets (new peers, sleeping ones, hang-ups) are looked at this often while messages keep coming.
constexpr int kReceivesPerWatch = 64;
// Connections taken in one look, so that a flood of them does not hold the lane.
constexpr int kAcceptsAtOnce = 64;

class Lane final : public ShmListener {
 public:
  Lane(const TransportOptions& options, UniqueFd listening, std::string address)
      : options_(options),
        address_(std::move(address)),
        listening_(std::move(listening)),
        spin_(options.spin, UsableCoresForSpinning()) {
    BASIN_CHECK(epoll_.Add(listening_.get(), kListeningKey));
    Reserve();
  }

  std::string address() const override { return address_; }
  int fd() const override { return epoll_.fd(); }

  std::unique_ptr<Received> Receive(absl::Time deadline) override {
    while (!wake_.Take() && !closed_) {
      std::unique_ptr<Received> received = TryReceive();
      if (received == nullptr && absl::Now() >= deadline) {
        Watch();
        received = TryReceive();
        if (received == nullptr) return nullptr;
      }
      if (received == nullptr) received = SpinReceive();
      if (received != nullptr) return received;
      if (!Arm()) continue;
      pollfd items[] = {{.fd = wake_.fd(), .events = POLLIN, .revents = 0},
                        {.fd = fd(), .events = POLLIN, .revents = 0}};
      poll(items, 2, PollTimeout(deadline));
      Disarm();
      if (items[0].revents != 0) {
        wake_.Drain();
        return nullptr;
      }
    }
    return nullptr;
  }

  std::unique_ptr<Received> TryReceive() override {
    if (++receives_since_watch_ >= kReceivesPerWatch) Watch();
    for (size_t looked = 0, most = active_.size(); looked < most && !active_.empty(); ++looked) {
      if (next_ >= active_.size()) next_ = 0;
      Peer& peer = *active_[next_];
      peer.link->Pump();
      if (std::unique_ptr<Message> message = peer.link->Receive()) {
        peer.empty_looks = 0;
        ++next_;
        spin_.OnTraffic();
        bytes_in_.fetch_add(message->bytes(), std::memory_order_relaxed);
        return std::make_unique<Received>(Received{peer.id, std::move(*message)});
      }
      if (peer.link->cut()) {
        Forget(peer);
      } else if (++peer.empty_looks >= kEmptyLooks && !peer.link->has_backlog() && PutToSleep(peer)) {
        Deactivate(next_);
      } else {
        ++next_;
      }
    }
    return nullptr;
  }

  std::unique_ptr<Received> SpinReceive() override {
    const int64_t start = SteadyNanos();
    const int64_t allowed = spin_.Allowed(start);
    if (allowed == 0) return nullptr;
    int64_t now = start;
    for (; now - start < allowed && !wake_.IsSet(); now = SteadyNanos()) {
      for (int i = 0; i < 16; ++i) {
        for (const Peer* peer : active_) {
          if (!peer->link->HasWork()) continue;
          // Room for what waits is work too, but no message.
          if (std::unique_ptr<Received> received = TryReceive()) return received;
          break;
        }
        SpinPause();
      }
    }
    spin_.OnVain(now - start);
    return nullptr;
  }

  bool Arm() override {
    for (Peer* peer : active_) peer->link->Sleep();
    for (const Peer* peer : active_) {
      if (!peer->link->HasWork()) continue;
      WakeActive();
      return false;
    }
    return true;
  }

  void Disarm() override {
    WakeActive();
    Watch();
  }

  absl::Status Send(PeerId id, Message message) override {
    BASIN_RETURN_IF_ERROR(CheckLimits(message));
    if (closed_) return absl::UnavailableError("this listener is closed");
    const auto at = peers_.find(id);
    if (at == peers_.end()) return absl::UnavailableError("the peer is gone");
    Peer& peer = *at->second;
    const size_t bytes = message.bytes();
    // Before the peer can have it.
    bytes_out_.fetch_add(bytes, std::memory_order_relaxed);
    const absl::Status sent = peer.link->Send(std::move(message));
    if (!sent.ok()) bytes_out_.fetch_sub(bytes, std::memory_order_relaxed);
    // What waits is sent while the peer is looked at, and a cut is seen.
    if (!sent.ok() || peer.link->has_backlog()) Activate(peer);
    return absl::IsUnavailable(sent) ? absl::UnavailableError("the peer is gone") : sent;
  }

  absl::StatusOr<UniqueFd> PeerProcess(PeerId id) override {
    const auto at = peers_.find(id);
    if (at == peers_.end()) return absl::UnavailableError("the peer is gone");
    return basin::wire::PeerProcess(at->second->link->fd());
  }

  void Close(absl::Time deadline) override {
    if (closed_) return;
    closed_ = true;
    // What is in a ring stays there for the peer; only what found no room is waited for.
    while (true) {
      bool waiting = false;
      for (auto& [id, peer] : peers_) {
        peer->link->Sleep();
        peer->link->PumpAll();
        waiting |= peer->link->has_backlog();
      }
      if (!waiting || absl::Now() >= deadline) break;
      pollfd item = {.fd = fd(), .events = POLLIN, .revents = 0};
      poll(&item, 1, PollTimeout(deadline));
      std::array<uint64_t, 64> keys;
      for (const uint64_t key : epoll_.Readable(absl::MakeSpan(keys))) {
        if (key == kListeningKey) {
          epoll_.Remove(listening_.get());
        } else if (const auto at = peers_.find(key); at != peers_.end()) {
          at->second->link->OnSocket();
          if (at->second->link->HasWork() && !at->second->link->has_backlog()) epoll_.Remove(at->second->link->fd());
        }
      }
    }
    active_.clear();
    peers_.clear();
    listening_.Close();
    connections_.store(0, std::memory_order_relaxed);
  }

  void Wake() override { wake_.Wake(); }

  ListenerCounters counters() const override {
    return {.bytes_in = bytes_in_.load(std::memory_order_relaxed),
            .bytes_out = bytes_out_.load(std::memory_order_relaxed),
            .dropped_messages = broken_.load(std::memory_order_relaxed),
            .refused_connections = refused_.load(std::memory_order_relaxed),
            .failed_handshakes = failed_.load(std::memory_order_relaxed),
            .connections = connections_.load(std::memory_order_relaxed)};
  }

 private:
  struct Peer {
    PeerId id = 0;
    std::unique_ptr<ShmLink> link;
    bool active = false;
    int empty_looks = 0;
  };

  // A descriptor in reserve: where the process has no other left, a connection can still be taken and closed, so that
  // the peer uses another transport and the socket does not stay readable.
  void Reserve() { reserve_ = UniqueFd(dup(listening_.get())); }

  // Looks at the sockets: new peers, sleeping ones that have something, hang-ups.
  void Watch() {
    receives_since_watch_ = 0;
    std::array<uint64_t, 64> keys;
    for (const uint64_t key : epoll_.Readable(absl::MakeSpan(keys))) {
      if (key == kListeningKey) {
        Accept();
      } else if (const auto at = peers_.find(key); at != peers_.end()) {
        at->second->link->OnSocket();
        Activate(*at->second);
      }
    }
  }

  void Accept() {
    for (int i = 0; i < kAcceptsAtOnce; ++i) {
      UniqueFd fd = AcceptShm(listening_.get());
      if (fd.get() < 0) {
        if (errno == EMFILE || errno == ENFILE) {
          reserve_.Close();
          fd = AcceptShm(listening_.get());
          fd.Close();
          Reserve();
          failed_.fetch_add(1, std::memory_order_relaxed);
        }
        return;
      }
      auto socket = std::make_shared<ShmSocket>(std::move(fd));
      if (absl::Status status = Welcome(socket); !status.ok()) {
        ShmPacket refusal = {.kind = ShmPacket::kRefused, .number = static_cast<uint32_t>(status.code())};
        std::snprintf(refusal.text, sizeof refusal.text, "%s", std::string(status.message()).c_str());
        socket->Send(refusal);
      }
    }
  }

  absl::Status Welcome(const std::shared_ptr<ShmSocket>& socket) {
    BASIN_ASSIGN_OR_RETURN(const uid_t user, PeerUser(socket->fd()));
    if (user != geteuid()) {
      refused_.fetch_add(1, std::memory_order_relaxed);
      return absl::PermissionDeniedError(
          absl::StrCat("it runs as user ", geteuid(), ", and this process as user ", user));
    }
    if (peers_.size() >= options_.max_connections) {
      refused_.fetch_add(1, std::memory_order_relaxed);
      return absl::ResourceExhaustedError(absl::StrCat("it has ", peers_.size(), " connections, the most it takes"));
    }
    failed_.fetch_add(1, std::memory_order_relaxed);  // until it has worked
    BASIN_ASSIGN_OR_RETURN(std::shared_ptr<ShmMemory> memory, ShmMemory::Make("basin-channel", kShmChannelBytes));
    const PeerId id = kShmPeerBit | ++last_peer_;
    if (!epoll_.Add(socket->fd(), id)) return absl::UnavailableError("it cannot watch more sockets");
    if (!socket->Send({.kind = ShmPacket::kWelcome, .value = kShmChannelBytes}, memory->fd())) {
      epoll_.Remove(socket->fd());
      return absl::UnavailableError("it could not send the memory");
    }
    memory->CloseFd();
    failed_.fetch_sub(1, std::memory_order_relaxed);
    auto peer = std::make_unique<Peer>();
    peer->id = id;
    peer->link = std::make_unique<ShmLink>(socket, std::move(memory), ShmLink::Side::kLane, options_);
    Activate(*peer);
    peers_.emplace(id, std::move(peer));
    connections_.store(peers_.size(), std::memory_order_relaxed);
    return absl::OkStatus();
  }

  void Activate(Peer& peer) {
    peer.empty_looks = 0;
    if (peer.active) return;
    peer.active = true;
    peer.link->WakeUp();
    active_.push_back(&peer);
  }

  void Deactivate(size_t index) {
    active_[index]->active = false;
    active_[index] = active_.back();
    active_.pop_back();
  }

  // False: something came just now.
  bool PutToSleep(Peer& peer) {
    peer.link->Sleep();
    if (!peer.link->HasWork()) return true;
    peer.link->WakeUp();
    return false;
  }

  void WakeActive() {
    for (Peer* peer : active_) peer->link->WakeUp();
  }

  // REQUIRES: `peer` is active_[next_].
  void Forget(Peer& peer) {
    if (peer.link->reason() != "closed by the peer") broken_.fetch_add(1, std::memory_order_relaxed);
    epoll_.Remove(peer.link->fd());
    Deactivate(next_);
    peers_.erase(peer.id);
    connections_.store(peers_.size(), std::memory_order_relaxed);
  }

  const TransportOptions options_;
  const std::string address_;
  WakeFd wake_;
  std::atomic<uint64_t> bytes_in_{0}, bytes_out_{0}, broken_{0}, refused_{0}, failed_{0}, connections_{0};

  // Of the listener's thread.
  UniqueFd listening_;
  UniqueFd reserve_;
  Epoll epoll_;
  SpinBudget spin_;
  std::unordered_map<PeerId, std::unique_ptr<Peer>> peers_;
  std::vector<Peer*> active_;  // looked at without being asked
  size_t next_ = 0;            // of active_, in turn
  int receives_since_watch_ = 0;
  PeerId last_peer_ = 0;
  bool closed_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ShmListener>> ShmListen(const BindAddress& address, const TransportOptions& options) {
  uint16_t port = address.port;
  absl::StatusOr<UniqueFd> fd = ListenShm(address.ip, port == 0 ? 1 : port);
  // These ports are names alone, so any will do.
  for (port = port == 0 ? 1 : port; absl::IsAlreadyExists(fd.status()) && address.port == 0 && port < 65'535;) {
    fd = ListenShm(address.ip, ++port);
  }
  if (!fd.ok()) return fd.status();
  return std::make_unique<Lane>(options, *std::move(fd),
                                JoinHostPort(address.host.empty() ? address.ip : address.host, port));
}

}  // namespace basin::wire
