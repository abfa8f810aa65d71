#include "ps/lane_core.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "ps/block.h"
#include "ps/coordinator.h"
#include "ps/lane_rows.h"
#include "ps/mutants.h"
#include "ps/presence.h"
#include "ps/run_spec.h"
#include "ps/shard.h"

namespace basin {
namespace {

// Notes that nobody takes do not pile up.
constexpr size_t kMaxNotes = 1000;

}  // namespace

LaneCore::LaneCore(LaneCoreOptions options)
    : options_(std::move(options)),
      pool_(options_.pool ? options_.pool : BlockPool::Make(options_.memory_limit_bytes)),
      counters_(options_.counters ? options_.counters : std::make_shared<LaneCounters>()),
      run_id_(options_.run_id),
      run_hash_(run_id_.empty() ? 0 : wire::RunHash(run_id_)),
      ps_count_(options_.ps_count),
      blocks_(options_.device, options_.peer_process) {
  BASIN_CHECK(options_.ps_incarnation != 0 && options_.lanes > options_.lane.value());
  if (options_.chief) {
    chief_ = wire::WorkerKey(options_.chief->role == Role::kChief ? wire::v1::ROLE_CHIEF : wire::v1::ROLE_WORKER,
                             options_.chief->index);
  }
  if (options_.lane.value() == 0) presence_ = std::make_unique<Presence>(options_.dead_after);
  if (options_.lane.value() == 0 && options_.ordinal.value() == 0) {
    BASIN_CHECK(!run_id_.empty());
    coordinator_ = std::make_unique<Coordinator>(
        CoordinatorOptions{
            .run_id = run_id_, .trainers = options_.trainers, .ps_count = std::max<uint32_t>(1, ps_count_)},
        *presence_);
  }
  rows_ = std::make_unique<LaneRows>(LaneRowsOptions{.ordinal = options_.ordinal,
                                                     .lane = options_.lane,
                                                     .lanes = options_.lanes,
                                                     .pool = pool_,
                                                     .device = options_.device,
                                                     .counters = counters_});
  UpdateGauges();
}

LaneCore::~LaneCore() = default;

const Shard* LaneCore::shard(ShardId id) const {
  return id.value() < shards_.size() ? shards_[id.value()].get() : nullptr;
}

std::string LaneCore::Me() const {
  return absl::StrCat("ps ", options_.ordinal.value(),
                      options_.lane.value() == 0 ? "" : absl::StrCat(" lane ", options_.lane.value()));
}

std::vector<TaskId> LaneCore::missing() const {
  std::vector<TaskId> out;
  for (const TaskId& task : options_.trainers) {
    if (!seen_.contains(
            wire::WorkerKey(task.role == Role::kChief ? wire::v1::ROLE_CHIEF : wire::v1::ROLE_WORKER, task.index)))
      out.push_back(task);
  }
  return out;
}

// ---- Sending ----

wire::Header LaneCore::HeaderFor(wire::PeerId peer, wire::Kind kind, uint64_t request) {
  wire::Header header;
  header.kind = kind;
  header.request = request;
  header.run = run_hash_;
  header.ps_incarnation = options_.ps_incarnation;
  if (coordinator_) header.view = coordinator_->view();
  if (const Session* session = sessions_.Find(peer)) {
    header.incarnation = session->incarnation;
    header.worker = session->worker();
  }
  return header;
}

void LaneCore::SendMessage(wire::PeerId peer, wire::Message message) {
  counters_->bytes_out.Add(message.bytes());
  replies_.push_back({peer, std::move(message)});
}

void LaneCore::Send(wire::PeerId peer, uint64_t request, wire::Kind kind, absl::string_view body) {
  SendMessage(peer, wire::MakeControl(HeaderFor(peer, kind, request), body));
}

void LaneCore::Refuse(wire::PeerId peer, uint64_t request, const absl::Status& status) {
  counters_->refused_messages.Add();
  const Answer answer = RefusalAnswer(peer, request, status);
  Send(peer, request, answer.kind, answer.body);
}

void LaneCore::Forward() {
  if (!coordinator_) return;
  for (const Answer& answer : coordinator_->TakeAnswers()) {
    if (answer.kind == wire::Kind::kError) counters_->refused_messages.Add();
    Send(answer.peer, answer.request, answer.kind, answer.body);
  }
  for (std::string& note : coordinator_->TakeNotes()) Note(std::move(note));
}

void LaneCore::Note(std::string line) {
  if (notes_.size() < kMaxNotes) notes_.push_back(std::move(line));
}

wire::v1::RunState LaneCore::State() const {
  if (coordinator_) return coordinator_->run_state();
  wire::v1::RunState state;
  state.set_finished(run_over());
  state.set_stop(run_over());
  return state;
}

void LaneCore::UpdateGauges() {
  counters_->sessions.Set(sessions_.size());
  if (presence_) counters_->clients_alive.Set(presence_->count_alive());
  if (coordinator_) {
    counters_->global_step.Set(coordinator_->global_step());
    counters_->min_clock.Set(coordinator_->min_clock());
    counters_->view.Set(coordinator_->view().value());
  }
}

// ---- Events ----

std::vector<Reply> LaneCore::OnMessage(wire::PeerId peer, wire::Message message, absl::Time now) {
  counters_->bytes_in.Add(message.bytes());
  absl::StatusOr<wire::Parsed> parsed = wire::Parse(std::move(message));
  if (!parsed.ok()) {
    counters_->malformed.Add();
    Refuse(peer, 0, parsed.status());
    return std::exchange(replies_, {});
  }
  if (parsed->header.kind == wire::Kind::kHello) {
    OnHello(peer, *parsed, now);
    UpdateGauges();
    return std::exchange(replies_, {});
  }
  const wire::Header& header = parsed->header;
  Session* session = sessions_.Find(peer);
  if (session == nullptr) {
    const auto fence = fences_.find(header.worker);
    const bool replaced = header.run == run_hash_ && header.ps_incarnation == options_.ps_incarnation &&
                          fence != fences_.end() && header.incarnation < fence->second.incarnation;
    Refuse(peer, header.request,
           replaced
               ? Replaced(fence->second)
               : absl::FailedPreconditionError(absl::StrCat(Me(), " does not know this channel; say Hello first")));
  } else if (absl::Status status = CheckHeader(*session, header); !status.ok()) {
    if (header.kind == wire::Kind::kGoodbye && status.code() == absl::StatusCode::kAborted) {
      // It leaves, and its successor was only quicker: nothing to complain about.
      Send(peer, header.request, wire::Kind::kRunState, State().SerializeAsString());
      sessions_.Close(peer);
    } else {
      Refuse(peer, header.request, status);
    }
  } else if (header.kind == wire::Kind::kUpdate) {
    session->last_heard = now;
    if (presence_) Heard(*session, now);
    OnUpdate(*session, *parsed, now);
  } else {
    session->last_heard = now;
    Heard(*session, now);
    OnControl(*session, *parsed, now);
  }
  if (header.kind != wire::Kind::kUpdate) UpdateGauges();
  Forward();
  return std::exchange(replies_, {});
}

absl::Status LaneCore::Replaced(const Fence& fence) const {
  return absl::AbortedError(absl::StrCat("this process was replaced by pid ", fence.pid, " on ", fence.host,
                                         " and is no longer part of the run"));
}

absl::Status LaneCore::CheckHeader(const Session& session, const wire::Header& header) const {
  if (header.run != run_hash_) {
    return absl::FailedPreconditionError(
        absl::StrCat(Me(), " serves run \"", run_id_, "\", the message belongs to another run"));
  }
  if (header.ps_incarnation != options_.ps_incarnation) {
    return absl::DataLossError(absl::StrCat(Me(), " was restarted and has lost its shards; start the job again"));
  }
  if (header.worker != session.worker()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the message names worker key ", header.worker, ", this channel's Hello ", session.worker()));
  }
  if (BASIN_MUTANT(kSkipFence)) return absl::OkStatus();
  if (const auto fence = fences_.find(header.worker);
      fence != fences_.end() && header.incarnation < fence->second.incarnation) {
    return Replaced(fence->second);
  }
  if (header.incarnation != session.incarnation) {
    return absl::InvalidArgumentError(absl::StrCat("the message names incarnation ", header.incarnation.value(),
                                                   ", this channel's Hello ", session.incarnation.value()));
  }
  return absl::OkStatus();
}

void LaneCore::Heard(const Session& session, absl::Time now) {
  if (!presence_) return;
  const ClientKey key = session.key();
  if (presence_->Heard(key, now) && coordinator_) coordinator_->OnRevived(*presence_->Find(key), now);
}

void LaneCore::OnControl(Session& session, const wire::Parsed& parsed, absl::Time now) {
  const wire::Header& header = parsed.header;
  const wire::PeerId peer = session.peer;
  const auto unreadable = [&] {
    counters_->malformed.Add();
    Refuse(peer, header.request,
           absl::InvalidArgumentError(
               absl::StrCat("malformed message: the body of ", wire::Name(header.kind), " cannot be read")));
  };
  const auto read = [&](auto& proto) {
    return proto.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()));
  };
  switch (header.kind) {
    case wire::Kind::kInstall: {
      wire::v1::Install install;
      if (!read(install)) return unreadable();
      absl::Status status =
          session.knows_all_ps
              ? Install(install)
              : absl::FailedPreconditionError("this client does not know every ps; give it all their addresses");
      if (!status.ok()) return Refuse(peer, header.request, status);
      wire::v1::Installed installed;
      installed.set_spec_hash(model_->hash());
      for (const uint32_t table : rows_->tables_on_device()) installed.add_tables_on_device(table);
      return Send(peer, header.request, wire::Kind::kInstalled, installed.SerializeAsString());
    }
    case wire::Kind::kHeartbeat: {
      wire::v1::Heartbeat heartbeat;
      if (!read(heartbeat)) return unreadable();
      if (presence_) presence_->SetWaitingFor(session.key(), heartbeat.waiting_for().substr(0, kMaxNameBytes));
      if (heartbeat.run_finished() && !coordinator_) RunOver(now);
      return Send(peer, header.request, wire::Kind::kRunState, State().SerializeAsString());
    }
    case wire::Kind::kGoodbye: {
      wire::v1::Goodbye goodbye;
      if (!read(goodbye)) return unreadable();
      if (goodbye.device_block_closed()) blocks_.Closed(session);
      return OnGoodbye(session, header, goodbye.run_finished(), now);
    }
    case wire::Kind::kDeviceBlock: {
      wire::v1::DeviceBlock asked;
      if (!read(asked)) return unreadable();
      const absl::StatusOr<wire::v1::DeviceBlockLent> lent = blocks_.Lend(session, asked);
      const auto note = [&](absl::string_view what) {
        Note(absl::StrCat("device memory of ", Sentence(session.role, session.index), " (pid ", session.pid, ") ",
                          what));
      };
      if (!lent.ok()) {
        note(absl::StrCat("comes through the host: ", lent.status().message()));
        return Refuse(peer, header.request, lent.status());
      }
      note(absl::StrCat("comes through CUDA IPC: ", lent->bytes(), " bytes of ", options_.device->name(), " are lent"));
      return Send(peer, header.request, wire::Kind::kDeviceBlockLent, lent->SerializeAsString());
    }
    case wire::Kind::kEvicted: {
      wire::v1::Evicted evicted;
      if (!read(evicted)) return unreadable();
      const absl::StatusOr<wire::v1::EvictedKeys> keys = rows_->Evicted(evicted);
      if (!keys.ok()) return Refuse(peer, header.request, keys.status());
      return Send(peer, header.request, wire::Kind::kEvictedKeys, keys->SerializeAsString());
    }
    case wire::Kind::kStats: {
      if (!presence_) break;
      wire::v1::StatsText text;
      text.set_json(StatsJson(now));
      return Send(peer, header.request, wire::Kind::kStatsText, text.SerializeAsString());
    }
    case wire::Kind::kDeclare:
    case wire::Kind::kStep:
    case wire::Kind::kNextInput:
    case wire::Kind::kInputDone:
    case wire::Kind::kBarrier:
    case wire::Kind::kFinish:
      if (!coordinator_) break;
      if (header.kind == wire::Kind::kDeclare && !session.knows_all_ps) {
        return Refuse(peer, header.request,
                      absl::FailedPreconditionError("this client does not know every ps; give it all their addresses"));
      }
      if (!coordinator_->OnRequest(session, header.kind, header.request, parsed.body, now)) counters_->malformed.Add();
      if (coordinator_->finished()) RunOver(now);
      return;
    default:
      return Refuse(peer, header.request,
                    absl::InvalidArgumentError(absl::StrCat("a ps does not take ", wire::Name(header.kind))));
  }
  Refuse(peer, header.request,
         absl::InvalidArgumentError(absl::StrCat(
             Me(), " does not take ", wire::Name(header.kind), "; ",
             header.kind == wire::Kind::kStats ? "lane 0 of each ps does" : "the coordinator, lane 0 of ps 0, does")));
}

void LaneCore::OnGoodbye(const Session& session, const wire::Header& header, bool run_finished, absl::Time now) {
  const ClientKey key = session.key();
  if (run_finished && !coordinator_) RunOver(now);
  std::optional<Client> gone;
  if (presence_) {
    if (const Client* client = presence_->Find(key)) gone = *client;
    if (!presence_->Leave(key)) gone.reset();
  }
  if (gone && coordinator_) coordinator_->OnGone(*gone, now);
  Send(session.peer, header.request, wire::Kind::kRunState, State().SerializeAsString());
  sessions_.CloseAll(key);
}

void LaneCore::RunOver(absl::Time now) {
  if (!run_over()) run_over_at_ = now;
}

std::vector<Reply> LaneCore::OnTime(absl::Time now) {
  if (presence_) {
    for (const Client& client : presence_->TakeDead(now)) {
      if (client.role == wire::v1::ROLE_OBSERVER) sessions_.CloseAll(client.key);
      if (coordinator_) {
        coordinator_->OnDead(client, now);
      } else if (client.role != wire::v1::ROLE_OBSERVER) {
        Note(absl::StrCat(Sentence(client.role, client.index), " (pid ", client.pid, " on ", client.host,
                          ") was not heard for ", absl::ToInt64Seconds(now - client.last_heard), " s"));
      }
    }
  }
  if (absl::Status status = rows_->OnTime(now); !status.ok()) failure_ = std::move(status);
  Forward();
  UpdateGauges();
  return std::exchange(replies_, {});
}

absl::Time LaneCore::next_wake() const {
  if (!presence_) return rows_->next_wake();
  absl::Time next = std::min(presence_->next_death(), rows_->next_wake());
  if (run_over() && next != absl::InfiniteFuture()) next = std::min(next, run_over_at_ + options_.finish_grace);
  return next;
}

bool LaneCore::finished(absl::Time now) const {
  if (!presence_) return sessions_.empty();
  return run_over() && (!presence_->any_alive() || now >= run_over_at_ + options_.finish_grace);
}

}  // namespace basin
