#include "worker/client/client_core.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "worker/client/client_core_state.h"

namespace basin {
namespace {

// A bound on the connections that a ps can make a client open; basin-ps has at most one lane a core.
constexpr size_t kMaxLanes = 1024;

absl::Status Unreadable(absl::string_view what) {
  return absl::InternalError(absl::StrCat("a parameter server sent a ", what, " that cannot be read"));
}

}  // namespace

ClientCore::ClientCore(ClientCoreOptions options) : options_(std::move(options)) {
  BASIN_CHECK(!options_.ps_addresses.empty());
  lanes_of_ps_.assign(options_.ps_addresses.size(), 0);
}
ClientCore::~ClientCore() = default;

std::string ClientCore::PsName(const Channel& channel) const {
  std::string name = absl::StrCat("ps ", channel.ps.value());
  if (channel.lane.value() > 0) absl::StrAppend(&name, " lane ", channel.lane.value());
  return absl::StrCat(name, " at ", channel.address);
}

// ---- Connections ----

ClientCore::Channel& ClientCore::AddChannel(PsOrdinal ps, LaneIndex lane, std::string address) {
  auto channel = std::make_unique<Channel>();
  channel->id = static_cast<uint32_t>(channels_.size());
  channel->ps = ps;
  channel->lane = lane;
  channel->address = std::move(address);
  channel->down_since = last_now_;
  channel_of_[{ps.value(), lane.value()}] = channel->id;
  channels_.push_back(std::move(channel));
  return *channels_.back();
}

CallId ClientCore::Connect(absl::Time now) {
  last_now_ = now;
  Call& call = NewCall("connect", now);
  call.parts = 1;
  connect_call_ = call.id;
  for (uint32_t ps = 0; ps < options_.ps_addresses.size(); ++ps) {
    AddChannel(PsOrdinal(ps), LaneIndex(0), options_.ps_addresses[ps]);
  }
  Dial(*channels_[0], now);
  return call.id;
}

void ClientCore::Dial(Channel& channel, absl::Time now) {
  if (channel.state == Channel::State::kIdle) channel.down_since = now;
  channel.state = Channel::State::kGreeting;
  channel.last_heard = now;
  actions_.push_back({.kind = ClientAction::Kind::kDial, .channel = channel.id, .address = channel.address});
  SendHello(channel);
  Wake(now + dead_after_);
}

void ClientCore::SendHello(Channel& channel) {
  wire::v1::Hello hello;
  hello.set_protocol_version(wire::kProtocolVersion);
  hello.set_run_id(options_.run_id);
  hello.set_role(options_.role);
  hello.set_index(options_.index);
  hello.set_client_id(options_.client_id);
  hello.set_incarnation(incarnation_.value());
  hello.set_ps_incarnation(channel.ps_incarnation);
  hello.set_token(options_.token);
  hello.set_host(options_.host);
  hello.set_pid(options_.pid);
  hello.set_ps_ordinal(channel.ps.value());
  hello.set_ps_count(static_cast<uint32_t>(options_.ps_addresses.size()));
  hello.set_lane(channel.lane.value());
  hello.set_ps0_address(options_.ps_addresses[0]);
  hello.set_is_chief(options_.is_chief);
  actions_.push_back(
      {.kind = ClientAction::Kind::kSend,
       .channel = channel.id,
       .message = wire::MakeControl(HeaderFor(channel, wire::Kind::kHello, 0), hello.SerializeAsString())});
}

void ClientCore::OnCut(uint32_t id, const absl::Status& reason, absl::Time now) {
  last_now_ = now;
  Channel& channel = *channels_[id];
  if (channel.state == Channel::State::kClosed || channel.state == Channel::State::kIdle) return;
  if (channel.state == Channel::State::kReady) {
    channel.down_since = now;
    channel.redial_delay = absl::ZeroDuration();
    notes_.push_back(absl::StrCat("lost ", PsName(channel), ": ", reason.message(), "; dialling again"));
  }
  channel.state = Channel::State::kDown;
  channel.last_reason = reason;
  channel.redial_at = now + channel.redial_delay;
  channel.redial_delay = std::clamp(channel.redial_delay * 2, options_.redial_first, options_.redial_most);
  if (channel.heartbeat_request != 0) {
    channel.pending.erase(channel.heartbeat_request);
    channel.heartbeat_request = 0;
  }
  Wake(channel.redial_at);
}

void ClientCore::OnHelloAnswer(Channel& channel, const wire::Parsed& parsed, absl::Time now) {
  if (parsed.header.kind == wire::Kind::kError) {
    wire::v1::Refusal refusal;
    if (!refusal.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()))) {
      return Fail(Unreadable("refusal"));
    }
    return OnHelloRefused(channel, absl::Status(RefusalCode(refusal.code()), refusal.message()), now);
  }
  if (parsed.header.kind != wire::Kind::kWelcome) return;  // an answer of the connection before
  wire::v1::Welcome welcome;
  if (!welcome.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()))) {
    return Fail(Unreadable("welcome"));
  }
  OnWelcome(channel, welcome, now);
}

void ClientCore::OnHelloRefused(Channel& channel, const absl::Status& status, absl::Time now) {
  const absl::Status named(status.code(), absl::StrCat(PsName(channel), ": ", status.message()));
  if (status.code() == absl::StatusCode::kAlreadyExists || status.code() == absl::StatusCode::kUnavailable) {
    // The task's old process may not be counted dead yet.
    if (channel.claim_since == absl::InfiniteFuture()) channel.claim_since = now;
    if (now - channel.claim_since < options_.claim_timeout) {
      actions_.push_back({.kind = ClientAction::Kind::kClose, .channel = channel.id});
      channel.redial_delay = options_.redial_most;
      OnCut(channel.id, named, now);
      return;
    }
  }
  Fail(named);
}

void ClientCore::OnWelcome(Channel& channel, const wire::v1::Welcome& welcome, absl::Time now) {
  if (!options_.run_id.empty() && welcome.run_id() != options_.run_id) {
    return Fail(absl::FailedPreconditionError(absl::StrCat(PsName(channel), " serves run ", welcome.run_id(),
                                                           ", this client belongs to run ", options_.run_id)));
  }
  if (static_cast<size_t>(welcome.lane_addresses_size()) > kMaxLanes) {
    return Fail(absl::InternalError(absl::StrCat(PsName(channel), " names ", welcome.lane_addresses_size(),
                                                 " lanes, at most ", kMaxLanes, " are expected")));
  }
  const bool again = channel.welcomed_once;
  channel.welcomed_once = true;
  channel.claim_since = absl::InfiniteFuture();
  options_.run_id = welcome.run_id();
  channel.ps_incarnation = welcome.ps_incarnation();
  channel.spec_hash = welcome.spec_hash();
  channel.device_id = welcome.device_id();
  channel.tables_on_device = {welcome.tables_on_device().begin(), welcome.tables_on_device().end()};
  channel.state = Channel::State::kReady;
  channel.last_heard = now;
  channel.redial_delay = absl::ZeroDuration();
  if (channel.id == 0) {
    incarnation_ = Incarnation(welcome.incarnation());
    heartbeat_ = absl::Milliseconds(std::max<uint32_t>(1, welcome.heartbeat_ms()));
    dead_after_ = absl::Milliseconds(std::max<uint32_t>(1, welcome.dead_after_ms()));
    run_state_ = welcome.state();
  }
  if (again)
    notes_.push_back(
        absl::StrCat("reconnected to ", PsName(channel), " after ", SecondsText(now - channel.down_since)));
  if (channel.lane.value() == 0 && lanes_of_ps_[channel.ps.value()] == 0) {
    lanes_of_ps_[channel.ps.value()] = static_cast<uint32_t>(std::max(1, welcome.lane_addresses_size()));
    // (AddChannel may move nothing: channels are held by pointer.)
    for (int lane = 1; lane < welcome.lane_addresses_size(); ++lane) {
      const std::string& address = welcome.lane_addresses(lane);  // empty: this very one
      Dial(AddChannel(channel.ps, LaneIndex(lane), address.empty() ? channel.address : address), now);
    }
  }
  if (channel.id == 0) {
    for (auto& other : channels_) {
      if (other->state == Channel::State::kIdle) Dial(*other, now);
    }
  }
  if (channel.lane.value() == 0) channel.heartbeat_at = now + heartbeat_;
  Wake(channel.heartbeat_at);
  if (absl::Status status = CheckApplied(channel, welcome); !status.ok()) return Fail(status);
  SendAgain(channel);
  CheckConnected(now);
}

void ClientCore::CheckConnected(absl::Time now) {
  if (!connect_call_) return;
  for (const auto& channel : channels_) {
    if (channel->state != Channel::State::kReady) return;
  }
  last_now_ = now;
  const CallId call = *connect_call_;
  connect_call_.reset();
  PartDone(call, absl::OkStatus());
}

// ---- Requests ----

wire::Header ClientCore::HeaderFor(const Channel& channel, wire::Kind kind, uint64_t request) const {
  wire::Header header;
  header.kind = kind;
  header.request = request;
  if (kind != wire::Kind::kHello) {
    header.run = wire::RunHash(options_.run_id);
    header.ps_incarnation = channel.ps_incarnation;
  }
  header.incarnation = incarnation_;
  header.view = View(run_state_.view());
  header.clock = clock_;
  header.worker = wire::WorkerKey(options_.role, options_.index);
  return header;
}

uint64_t ClientCore::SendControl(Channel& channel, wire::Kind kind, const std::string& body, CallId call,
                                 absl::Time now) {
  last_now_ = now;
  if (wire::kHeaderBytes + body.size() > kMaxFrameBytes) {
    // The transport would refuse it each time that it is sent.
    PartDone(call, absl::InvalidArgumentError(absl::StrCat(wire::Name(kind), " has ", body.size(), " bytes, at most ",
                                                           kMaxFrameBytes - wire::kHeaderBytes,
                                                           " fit a message; use fewer or shorter names")));
    return 0;
  }
  FlushChannel(channel);
  Pending pending;
  pending.request = channel.next_request++;
  pending.kind = kind;
  pending.call = call;
  pending.body = body;
  pending.clock = clock_;
  auto [at, added] = channel.pending.emplace(pending.request, std::move(pending));
  BASIN_CHECK(added);
  if (channel.state == Channel::State::kReady) SendPending(channel, at->second);
  return at->first;
}

void ClientCore::SendPending(Channel& channel, Pending& pending) {
  wire::Message message;
  if (pending.kind == wire::Kind::kUpdate) {
    message = pending.message;
  } else {
    wire::Header header = HeaderFor(channel, pending.kind, pending.request);
    header.clock = pending.clock;
    message = wire::MakeControl(header, pending.body);
  }
  actions_.push_back({.kind = ClientAction::Kind::kSend, .channel = channel.id, .message = std::move(message)});
}

void ClientCore::OnMessage(uint32_t id, wire::Message message, absl::Time now) {
  last_now_ = now;
  if (!failure_.ok()) return;
  Channel& channel = *channels_[id];
  absl::StatusOr<wire::Parsed> parsed = wire::Parse(std::move(message));
  if (!parsed.ok()) {
    return Fail(absl::Status(parsed.status().code(), absl::StrCat(PsName(channel), ": ", parsed.status().message())));
  }
  channel.last_heard = now;
  if (channel.state == Channel::State::kGreeting) return OnHelloAnswer(channel, *parsed, now);
  if (channel.state != Channel::State::kReady) return;
  const auto at = channel.pending.find(parsed->header.request);
  if (at == channel.pending.end()) return;  // answered before: a request that was sent again
  Pending pending = std::move(at->second);
  channel.pending.erase(at);
  if (pending.kind == wire::Kind::kUpdate) --channel.updates_pending;
  OnAnswer(channel, std::move(pending), *parsed, now);
  FlushIfDue(channel, now);
}

void ClientCore::OnTime(absl::Time now) {
  last_now_ = now;
  next_wake_ = absl::InfiniteFuture();
  if (!failure_.ok()) return;
  for (size_t i = 0; i < channels_.size(); ++i) {
    Channel& channel = *channels_[i];
    FlushIfDue(channel, now);
    if (channel.state == Channel::State::kReady) {
      if (channel.lane.value() == 0 && channel.heartbeat_at <= now && channel.heartbeat_request == 0) {
        wire::v1::Heartbeat heartbeat;
        heartbeat.set_run_finished(run_state_.finished());
        if (const CallId oldest = OldestWaiting(now - heartbeat_); oldest != 0) {
          heartbeat.set_waiting_for(WaitingFor(oldest, now));
        }
        channel.heartbeat_request = SendControl(channel, wire::Kind::kHeartbeat, heartbeat.SerializeAsString(), 0, now);
        channel.heartbeat_at = now + heartbeat_;
      }
      if (channel.lane.value() == 0) {
        if (channel.heartbeat_request != 0 && now - channel.last_heard >= dead_after_) {
          actions_.push_back({.kind = ClientAction::Kind::kClose, .channel = channel.id});
          OnCut(channel.id, absl::UnavailableError(absl::StrCat("no answer for ", SecondsText(dead_after_))), now);
        } else {
          Wake(channel.heartbeat_request != 0 ? channel.last_heard + dead_after_ : channel.heartbeat_at);
        }
      }
    } else if (channel.state == Channel::State::kGreeting) {
      if (now - channel.last_heard >= dead_after_) {
        actions_.push_back({.kind = ClientAction::Kind::kClose, .channel = channel.id});
        OnCut(channel.id,
              absl::UnavailableError(absl::StrCat("connected, but no welcome within ", SecondsText(dead_after_))), now);
      } else {
        Wake(channel.last_heard + dead_after_);
      }
    }
    if (channel.state == Channel::State::kDown) {
      const absl::Duration limit = channel.welcomed_once ? options_.unreachable_timeout : options_.start_timeout;
      if (now - channel.down_since >= limit) {
        // Wrong input of a task. A tool's user is told the same, and may look again.
        if (!channel.welcomed_once && options_.role != wire::v1::ROLE_OBSERVER &&
            channel.last_reason.code() == absl::StatusCode::kNotFound) {
          return Fail(absl::InvalidArgumentError(
              absl::StrCat(PsName(channel), " was not found within ", SecondsText(now - channel.down_since), ": ",
                           channel.last_reason.message(), "; correct it in TF_CONFIG or the name service")));
        }
        const absl::string_view verb =
            channel.welcomed_once ? " has been out of reach for " : " did not answer within ";
        return Fail(absl::UnavailableError(absl::StrCat(PsName(channel), verb, SecondsText(now - channel.down_since),
                                                        ": ", channel.last_reason.message(),
                                                        "; see that process and its log, then start the job again")));
      }
      if (channel.redial_at <= now) {
        Dial(channel, now);
      } else {
        Wake(std::min(channel.redial_at, channel.down_since + limit));
      }
    }
  }
  PullAgain(now);
}

}  // namespace basin
