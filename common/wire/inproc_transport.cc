#include "common/wire/inproc_transport.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/wire/resolve.h"

namespace basin::wire {
namespace {

// One direction of a channel.
struct Pipe {
  std::deque<Message> messages;
  size_t bytes = 0;

  void Push(Message message) {
    bytes += message.bytes();
    messages.push_back(std::move(message));
  }
  Message Pop() {
    Message message = std::move(messages.front());
    messages.pop_front();
    bytes -= message.bytes();
    return message;
  }
  void Clear() {
    messages.clear();
    bytes = 0;
  }
};

// What a thread waits on: a listener's, or a dialer's for all its channels.
struct Waiter {
  CondVar changed;
  bool woken = false;
};

struct Link {
  PeerId peer = 0;
  std::string address;
  Pipe to_lane;
  Pipe to_client;
  bool cut = false;
  std::string reason;
  bool resolved = true;
  bool told = false;  // the client has got the cut
  std::shared_ptr<Waiter> client;
  std::shared_ptr<Waiter> lane;  // null where nobody listens
};

absl::Status Room(const Pipe& pipe, const Message& message, const TransportOptions& options, absl::string_view whom) {
  if (pipe.bytes == 0 || pipe.bytes + message.bytes() <= options.max_bytes_in_flight) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(whom, " does not read: ", pipe.bytes, " bytes wait for it, ",
                                                   message.bytes(), " more are past ", options.max_bytes_in_flight));
}

}  // namespace

struct InprocNetwork::State {
  // A lane's end.
  struct Bound {
    std::shared_ptr<Waiter> waiter = std::make_shared<Waiter>();
    std::map<PeerId, std::shared_ptr<Link>> links;
    std::deque<std::shared_ptr<Link>> arrivals;  // one entry a message, in order of arrival over all peers
    PeerId next_peer = 1;
    size_t max_connections = 0;
  };

  Mutex mutex;
  std::map<std::string, std::shared_ptr<Bound>> listening ABSL_GUARDED_BY(mutex);
  std::set<std::string> hosts ABSL_GUARDED_BY(mutex);
  uint16_t next_port ABSL_GUARDED_BY(mutex) = 10'000;

  void CutLink(Link& link, absl::string_view reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (link.cut) return;
    link.cut = true;
    link.reason = std::string(reason);
    link.client->changed.NotifyAll();
  }

  class InprocListener;
  class InprocDialer;
  class InprocChannel;
};

class InprocNetwork::State::InprocListener final : public Listener {
 public:
  InprocListener(std::shared_ptr<State> state, std::string address, const TransportOptions& options,
                 std::shared_ptr<Bound> bound)
      : state_(std::move(state)), address_(std::move(address)), options_(options), bound_(std::move(bound)) {}
  ~InprocListener() override { Close(absl::InfinitePast()); }

  std::string address() const override { return address_; }

  std::unique_ptr<Received> Receive(absl::Time deadline) override {
    MutexLock lock(state_->mutex);
    while (true) {
      if (std::exchange(bound_->waiter->woken, false)) return nullptr;
      while (!bound_->arrivals.empty()) {
        const std::shared_ptr<Link> link = std::move(bound_->arrivals.front());
        bound_->arrivals.pop_front();
        // Empty when the network was cut with messages under way.
        if (link->to_lane.messages.empty()) continue;
        auto received = std::make_unique<Received>();
        received->peer = link->peer;
        received->message = link->to_lane.Pop();
        return received;
      }
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration() || closed_) return nullptr;
      bound_->waiter->changed.WaitFor(state_->mutex, std::min(left, absl::Hours(1)));
    }
  }

  absl::Status Send(PeerId peer, Message message) override {
    BASIN_RETURN_IF_ERROR(CheckLimits(message));
    MutexLock lock(state_->mutex);
    if (closed_) return absl::UnavailableError("this listener is closed");
    const auto found = bound_->links.find(peer);
    if (found == bound_->links.end() || found->second->cut) {
      bound_->links.erase(peer);
      return absl::UnavailableError("the peer is gone");
    }
    Link& link = *found->second;
    BASIN_RETURN_IF_ERROR(Room(link.to_client, message, options_, "the peer"));
    link.to_client.Push(std::move(message));
    link.client->changed.NotifyAll();
    return absl::OkStatus();
  }

  // This very one.
  absl::StatusOr<UniqueFd> PeerProcess(PeerId) override {
    UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
    if (process.get() < 0) return absl::UnavailableError(absl::StrCat("pidfd_open: ", std::strerror(errno)));
    return process;
  }

  void Close(absl::Time) override {
    MutexLock lock(state_->mutex);
    if (std::exchange(closed_, true)) return;
    // What was queued has arrived already: the client's end holds it.
    state_->listening.erase(address_);
    for (auto& [peer, link] : bound_->links) state_->CutLink(*link, "closed by the peer");
    bound_->links.clear();
  }

  void Wake() override {
    MutexLock lock(state_->mutex);
    bound_->waiter->woken = true;
    bound_->waiter->changed.NotifyAll();
  }

 private:
  const std::shared_ptr<State> state_;
  const std::string address_;
  const TransportOptions options_;
  const std::shared_ptr<Bound> bound_;
  bool closed_ = false;  // guarded by state_->mutex
};

class InprocNetwork::State::InprocChannel final : public Channel {
 public:
  InprocChannel(std::shared_ptr<State> state, std::shared_ptr<std::vector<std::shared_ptr<Link>>> siblings,
                const TransportOptions& options, std::shared_ptr<Link> link, std::shared_ptr<Bound> bound)
      : state_(std::move(state)),
        siblings_(std::move(siblings)),
        options_(options),
        link_(std::move(link)),
        bound_(std::move(bound)) {}
  ~InprocChannel() override {
    MutexLock lock(state_->mutex);
    state_->CutLink(*link_, "closed");
    siblings_->erase(std::remove(siblings_->begin(), siblings_->end(), link_), siblings_->end());
    if (bound_ != nullptr) bound_->links.erase(link_->peer);
  }

  absl::Status Send(Message message) override {
    BASIN_RETURN_IF_ERROR(CheckLimits(message));
    MutexLock lock(state_->mutex);
    if (link_->cut) return Unavailable();
    BASIN_RETURN_IF_ERROR(Room(link_->to_lane, message, options_, link_->address));
    link_->to_lane.Push(std::move(message));
    bound_->arrivals.push_back(link_);
    bound_->waiter->changed.NotifyAll();
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Message>> Receive() override {
    MutexLock lock(state_->mutex);
    if (!link_->to_client.messages.empty()) return std::make_unique<Message>(link_->to_client.Pop());
    if (!link_->cut) return std::unique_ptr<Message>();
    link_->told = true;
    return Unavailable();
  }

 private:
  absl::Status Unavailable() const {
    return absl::Status(link_->resolved ? absl::StatusCode::kUnavailable : absl::StatusCode::kNotFound,
                        absl::StrCat(link_->address, ": ", link_->reason));
  }

  const std::shared_ptr<State> state_;
  const std::shared_ptr<std::vector<std::shared_ptr<Link>>> siblings_;
  const TransportOptions options_;
  const std::shared_ptr<Link> link_;
  const std::shared_ptr<Bound> bound_;  // null where nobody listens: such a link is cut from the start
};

class InprocNetwork::State::InprocDialer final : public Dialer {
 public:
  InprocDialer(std::shared_ptr<State> state, const TransportOptions& options)
      : state_(std::move(state)), options_(options) {}

  std::unique_ptr<Channel> Dial(const std::string& address) override {
    MutexLock lock(state_->mutex);
    auto link = std::make_shared<Link>();
    link->address = address;
    link->client = waiter_;
    std::shared_ptr<Bound> bound;
    const absl::StatusOr<HostPort> target = SplitHostPort(address);
    const auto found = state_->listening.find(address);
    if (!target.ok()) {
      state_->CutLink(*link, target.status().message());
    } else if (state_->hosts.count(target->host) == 0) {
      link->resolved = false;
      state_->CutLink(*link, absl::StrCat("\"", target->host, "\": name does not resolve"));
    } else if (found == state_->listening.end()) {
      state_->CutLink(*link, "connection refused");
    } else if (found->second->links.size() >= found->second->max_connections) {
      state_->CutLink(*link, "closed by the peer");
    } else {
      bound = found->second;
      link->peer = bound->next_peer++;
      link->lane = bound->waiter;
      bound->links[link->peer] = link;
    }
    links_->push_back(link);
    return std::make_unique<InprocChannel>(state_, links_, options_, std::move(link), std::move(bound));
  }

  void Wait(absl::Time deadline) override {
    MutexLock lock(state_->mutex);
    while (true) {
      if (std::exchange(waiter_->woken, false)) return;
      for (const std::shared_ptr<Link>& link : *links_) {
        if (!link->to_client.messages.empty() || (link->cut && !link->told)) return;
      }
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return;
      waiter_->changed.WaitFor(state_->mutex, std::min(left, absl::Hours(1)));
    }
  }

  void Wake() override {
    MutexLock lock(state_->mutex);
    waiter_->woken = true;
    waiter_->changed.NotifyAll();
  }

 private:
  const std::shared_ptr<State> state_;
  const TransportOptions options_;
  const std::shared_ptr<Waiter> waiter_ = std::make_shared<Waiter>();
  const std::shared_ptr<std::vector<std::shared_ptr<Link>>> links_ =
      std::make_shared<std::vector<std::shared_ptr<Link>>>();
};

InprocNetwork::InprocNetwork() : state_(std::make_shared<State>()) {}
InprocNetwork::~InprocNetwork() = default;

absl::StatusOr<std::unique_ptr<Listener>> InprocNetwork::Listen(const std::string& address,
                                                                const TransportOptions& options) {
  BASIN_ASSIGN_OR_RETURN(HostPort target, SplitHostPort(address));
  MutexLock lock(state_->mutex);
  if (target.port == 0) target.port = state_->next_port++;
  const std::string real = JoinHostPort(target.host, target.port);
  if (state_->listening.count(real) != 0)
    return absl::AlreadyExistsError(absl::StrCat("cannot bind ", real, ": in use in this process"));
  auto bound = std::make_shared<State::Bound>();
  bound->max_connections = options.max_connections;
  state_->listening[real] = bound;
  state_->hosts.insert(target.host);
  return std::make_unique<State::InprocListener>(state_, real, options, std::move(bound));
}

std::unique_ptr<Dialer> InprocNetwork::MakeDialer(const TransportOptions& options) {
  return std::make_unique<State::InprocDialer>(state_, options);
}

void InprocNetwork::Cut(const std::string& address) {
  MutexLock lock(state_->mutex);
  const auto found = state_->listening.find(address);
  if (found == state_->listening.end()) return;
  for (auto& [peer, link] : found->second->links) {
    link->to_lane.Clear();
    link->to_client.Clear();
    state_->CutLink(*link, "cut");
  }
  found->second->links.clear();
}

}  // namespace basin::wire
