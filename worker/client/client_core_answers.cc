// ClientCore, fourth part: what answers mean.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "worker/client/client_core.h"
#include "worker/client/client_core_state.h"

namespace basin {
namespace {

constexpr absl::Duration kPullAgainAfter = absl::Milliseconds(20);

wire::Kind AnswerTo(wire::Kind request) {
  switch (request) {
    case wire::Kind::kUpdate:
      return wire::Kind::kUpdated;
    case wire::Kind::kDeclare:
      return wire::Kind::kDeclared;
    case wire::Kind::kInstall:
      return wire::Kind::kInstalled;
    case wire::Kind::kNextInput:
      return wire::Kind::kInputPiece;
    case wire::Kind::kStats:
      return wire::Kind::kStatsText;
    case wire::Kind::kEvicted:
      return wire::Kind::kEvictedKeys;
    case wire::Kind::kDeviceBlock:
      return wire::Kind::kDeviceBlockLent;
    default:
      return wire::Kind::kRunState;
  }
}

}  // namespace

absl::Status ClientCore::CheckApplied(const Channel& channel, const wire::v1::Welcome& welcome) const {
  std::map<uint32_t, uint64_t> applied;  // shards that the lane does not list: none
  for (const auto& shard : welcome.applied()) applied[shard.shard()] = shard.sequence();
  const auto check = [&](ShardId id, const ShardState& shard) -> absl::Status {
    if (shard.channel != channel.id) return absl::OkStatus();
    const auto at = applied.find(id.value());
    if (at == applied.end() && welcome.applied_is_cut()) return absl::OkStatus();
    const uint64_t has = at == applied.end() ? 0 : at->second;
    if (has < shard.acknowledged.value()) {
      return absl::DataLossError(absl::StrCat(PsName(channel), " has applied pushes to ", Describe(id), " up to ", has,
                                              ", and had acknowledged ", shard.acknowledged.value(),
                                              "; start the job again"));
    }
    if (has > shard.last.value()) {
      return absl::InternalError(absl::StrCat(PsName(channel), " has applied push ", has, " to ", Describe(id),
                                              ", this client made only ", shard.last.value()));
    }
    return absl::OkStatus();
  };
  for (uint32_t id = 0; id < shards_.size(); ++id) BASIN_RETURN_IF_ERROR(check(ShardId(id), shards_[id]));
  for (uint32_t table = 0; table < tables_.size(); ++table) {
    const std::vector<ShardState>& buckets = tables_[table]->buckets;
    for (uint32_t i = 0; i < buckets.size(); ++i) BASIN_RETURN_IF_ERROR(check(BucketShard(table, i), buckets[i]));
  }
  return absl::OkStatus();
}

// Unchanged and in order, but for writes of an old numbering: a push before them was refused, so the lane has refused
// them too, or would have. Their numbers belong to others by now, and sent again they could pass for repeats of those.
void ClientCore::SendAgain(Channel& channel) {
  const auto is_old = [this](const UpdateEntry& entry) {
    return entry.sequence.value() != 0 && entry.epoch != StateOf(entry.shard).epoch;
  };
  std::vector<CallId> emptied;
  for (auto at = channel.pending.begin(); at != channel.pending.end();) {
    Pending& pending = at->second;
    if (std::any_of(pending.entries.begin(), pending.entries.end(), is_old)) {
      const absl::Status refused = absl::OutOfRangeError(
          absl::StrCat(PsName(channel), ": a push before this one was refused, so this one was too; push it again"));
      std::vector<bool> keep;
      std::vector<UpdateEntry> kept;
      for (const UpdateEntry& entry : pending.entries) {
        keep.push_back(!is_old(entry));
        if (keep.back()) {
          kept.push_back(entry);
          continue;
        }
        if (Call* call = FindCall(entry.call); call != nullptr) call->result.status.Update(refused);
        FreePlaces(entry);
      }
      for (const CallId call : CallsOf(pending.entries)) {
        const auto is_of_call = [call](const UpdateEntry& entry) { return entry.call == call; };
        if (std::none_of(kept.begin(), kept.end(), is_of_call)) emptied.push_back(call);
      }
      if (kept.empty()) {
        bytes_in_flight_ -= std::min(bytes_in_flight_, pending.bytes);
        --channel.updates_pending;
        at = channel.pending.erase(at);
        continue;
      }
      absl::StatusOr<wire::Parsed> parsed = wire::Parse(std::move(pending.message));
      BASIN_CHECK(parsed.ok());
      pending.message = wire::WithEntries(*parsed, keep);
      pending.entries = std::move(kept);
    }
    SendPending(channel, pending);
    ++at;
  }
  for (const CallId call : emptied) PartDone(call, absl::OkStatus());
}

std::vector<CallId> ClientCore::CallsOf(const std::vector<UpdateEntry>& entries) {
  std::vector<CallId> calls;
  for (const UpdateEntry& entry : entries) {
    if (calls.empty() || calls.back() != entry.call) calls.push_back(entry.call);
  }
  return calls;
}

void ClientCore::OnUpdated(Channel& channel, Pending& pending, const wire::Parsed& parsed, absl::Time now) {
  bytes_in_flight_ -= std::min(bytes_in_flight_, pending.bytes);
  if (parsed.entries.size() != pending.entries.size()) {
    const absl::Status status = absl::InternalError(
        absl::StrCat(PsName(channel), " answered ", parsed.entries.size(), " entries of ", pending.entries.size()));
    for (const UpdateEntry& entry : pending.entries) FreePlaces(entry);
    for (const CallId call : CallsOf(pending.entries)) PartDone(call, status);
    return;
  }
  // Each run of entries is one call's.
  for (size_t begin = 0, end; begin < pending.entries.size(); begin = end) {
    const CallId id = pending.entries[begin].call;
    end = begin;
    while (end < pending.entries.size() && pending.entries[end].call == id) ++end;
    Call* call = FindCall(id);
    if (call == nullptr) continue;
    absl::Status status;
    LaterPull later{.at = now + kPullAgainAfter, .channel = channel.id, .call = id};
    for (size_t i = begin; i < end; ++i) {
      UpdateEntry& asked = pending.entries[i];
      const size_t before = later.entries.size();
      const absl::Status one = OnEntry(channel, *call, asked, parsed.entries[i], parsed.payloads[i], later);
      if (later.entries.size() == before) FreePlaces(asked, one.ok() && (asked.flags & wire::kPull) != 0);
      status.Update(one);
    }
    if (!later.entries.empty()) {
      ++call->parts;  // holds the call until the second pull is sent
      Wake(later.at);
      later_pulls_.push_back(std::move(later));
    }
    PartDone(id, status);
  }
}

absl::Status ClientCore::OnEntry(Channel& channel, Call& call, UpdateEntry& asked, const wire::Entry& answer,
                                 absl::Span<const char> payload, LaterPull& later) {
  if (answer.shard != asked.shard) {
    return absl::InternalError(absl::StrCat(PsName(channel), " answered for another shard than asked"));
  }
  ShardState& shard = StateOf(asked.shard);
  const bool wrote = asked.sequence.value() != 0;
  const bool is_bucket = IsBucket(asked.shard);
  if (answer.code == static_cast<int32_t>(absl::StatusCode::kUnavailable) && !is_bucket &&
      (asked.pull != nullptr || (asked.is_placed() && (asked.flags & wire::kPull)))) {
    // The shard waits for its first values: a push or assignment of this entry, if any, went through.
    asked.flags &= wire::kPull | wire::kPlaced;
    asked.sequence = Sequence(0);
    asked.dtype = static_cast<uint8_t>(DTypeOf(asked.shard));  // that of a gradient may have been another
    later.entries.push_back(asked);
    return absl::OkStatus();
  }
  if (answer.code != 0) {
    NumberOnFrom(asked);
    const absl::StatusCode code = RefusalCode(answer.code);
    return absl::Status(code, absl::StrCat(wrote ? "push to " : "pull of ", Describe(asked.shard), " refused by ",
                                           PsName(channel), ": ", absl::StatusCodeToString(code), "; it is unchanged"));
  }
  if (wrote) shard.acknowledged = std::max(shard.acknowledged, asked.sequence);
  if ((asked.flags & wire::kPush) && !(answer.flags & wire::kRepeat)) {
    const uint64_t before = answer.version.value() - 1;
    const uint64_t staleness = before > asked.pulled.value() ? before - asked.pulled.value() : 0;
    call.staleness_sum += static_cast<double>(staleness);
    ++call.staleness_count;
    call.result.staleness_max = std::max(call.result.staleness_max, staleness);
    staleness_sum_ += static_cast<double>(staleness);
    ++staleness_count_;
    staleness_max_ = std::max(staleness_max_, staleness);
  }
  if (asked.flags & wire::kPull) {
    if (asked.is_placed() != ((answer.flags & wire::kPlaced) != 0)) {
      return absl::InternalError(
          absl::StrCat(PsName(channel), " answered for another place than asked, for ", Describe(asked.shard)));
    }
    if (payload.size() != (asked.is_placed() ? 0 : asked.pull_bytes)) {
      return absl::InternalError(absl::StrCat(PsName(channel), " answered ", payload.size(), " bytes for ",
                                              Describe(asked.shard), ", expected ",
                                              asked.is_placed() ? 0 : asked.pull_bytes));
    }
    const bool to_places = is_bucket && asked.piece == 0;
    if (to_places) BASIN_RETURN_IF_ERROR(OnRows(channel, call, asked, payload));
    if (!to_places && !payload.empty()) std::memcpy(asked.pull, payload.data(), payload.size());
    if (asked.piece != 0 && !asked.is_placed()) landed_.push_back({call.id, asked.piece - 1});
    shard.pulled = answer.version;
  }
  return absl::OkStatus();
}

ClientCore::ShardState& ClientCore::StateOf(ShardId shard) {
  return IsBucket(shard) ? tables_[TableOf(shard)]->buckets[BucketIn(shard)] : shards_[shard.value()];
}

std::string ClientCore::Describe(ShardId shard) const {
  if (IsBucket(shard)) {
    return absl::StrCat("bucket ", BucketIn(shard), " of table \"",
                        spec_->model().tables(static_cast<int>(TableOf(shard))).name(), "\"");
  }
  return absl::StrCat("\"", VariableOf(shard), "\" elements [", shards_[shard.value()].begin, ", ",
                      shards_[shard.value()].end, ")");
}

// A lane does not use the sequence of a refused write up, and refuses the ones behind it: number on from there.
void ClientCore::NumberOnFrom(const UpdateEntry& refused) {
  ShardState& shard = StateOf(refused.shard);
  if (refused.sequence.value() == 0 || refused.epoch != shard.epoch) return;
  shard.last = Sequence(refused.sequence.value() - 1);
  ++shard.epoch;
}

DType ClientCore::DTypeOf(ShardId shard) const {
  return variables_[placement_->shards()[shard.value()].variable.value()].dtype;
}

const std::string& ClientCore::VariableOf(ShardId shard) const {
  return NameOf(placement_->shards()[shard.value()].variable);
}

// Pulls of shards that had no values yet.
void ClientCore::PullAgain(absl::Time now) {
  while (!later_pulls_.empty() && later_pulls_.front().at <= now) {
    LaterPull pull = std::move(later_pulls_.front());
    later_pulls_.pop_front();
    if (run_state_.finished()) {
      for (const UpdateEntry& entry : pull.entries) FreePlaces(entry);
      PartDone(pull.call, absl::FailedPreconditionError(absl::StrCat(
                              "the run has ended", run_state_.failure().empty() ? "" : ": ", run_state_.failure(),
                              "; \"", VariableOf(pull.entries[0].shard), "\" never got its first values")));
      continue;
    }
    if (FindCall(pull.call) == nullptr) continue;
    // In a message of its own: a call stands in a message in one place.
    FlushChannel(*channels_[pull.channel]);
    for (const UpdateEntry& entry : pull.entries) {
      AddEntry(*channels_[pull.channel], entry,
               entry.is_placed() ? wire::WritePlaces(entry.flags, {.pulled = entry.pulled_at}) : wire::Frame(), now);
    }
    FlushChannel(*channels_[pull.channel]);
    PartDone(pull.call, absl::OkStatus());
  }
  if (!later_pulls_.empty()) Wake(later_pulls_.front().at);
}

void ClientCore::OnRunState(absl::string_view body) {
  wire::v1::RunState state;
  if (!state.ParseFromArray(body.data(), static_cast<int>(body.size()))) return;
  if (state.view() >= run_state_.view() || state.finished()) run_state_ = std::move(state);
}

// A request that changed nothing.
void ClientCore::OnRefused(const Pending& pending, const absl::Status& status) {
  // A fence or a lost ps ends this client; a lost lease, the one kind of ABORTED that does not, ends its call.
  const bool fenced = status.code() == absl::StatusCode::kAborted && pending.kind != wire::Kind::kInputDone;
  if (fenced || status.code() == absl::StatusCode::kDataLoss) return Fail(status);
  // What was numbered did not count: the next ones take its place.
  const auto number_on = [&](auto request, std::map<std::string, uint64_t>& numbers) {
    if (!request.ParseFromString(pending.body)) return;
    uint64_t& last = numbers[request.name()];
    last = std::min(last, request.number() - 1);
  };
  if (pending.kind == wire::Kind::kNextInput) number_on(wire::v1::NextInput(), input_number_);
  if (pending.kind == wire::Kind::kBarrier) number_on(wire::v1::Barrier(), barrier_number_);
  if (pending.kind == wire::Kind::kUpdate) {
    bytes_in_flight_ -= std::min(bytes_in_flight_, pending.bytes);
    for (const UpdateEntry& entry : pending.entries) {
      NumberOnFrom(entry);
      FreePlaces(entry);
    }
    for (const CallId call : CallsOf(pending.entries)) PartDone(call, status);
  }
  if (pending.call != 0) PartDone(pending.call, status);
}

void ClientCore::OnAnswer(Channel& channel, Pending pending, const wire::Parsed& parsed, absl::Time now) {
  const wire::Kind kind = parsed.header.kind;
  absl::Status refused;
  if (kind == wire::Kind::kError) {
    wire::v1::Refusal refusal;
    refused = absl::InternalError("a parameter server sent a refusal that cannot be read");
    if (refusal.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()))) {
      refused = absl::Status(RefusalCode(refusal.code()), absl::StrCat(PsName(channel), ": ", refusal.message()));
    }
    if (refused.code() == absl::StatusCode::kFailedPrecondition && parsed.header.worker == 0) {
      // The lane has closed this channel's session (it holds a bounded number of them): Hello, then all of it again.
      if (pending.kind == wire::Kind::kUpdate) ++channel.updates_pending;
      channel.pending.emplace(pending.request, std::move(pending));
      actions_.push_back({.kind = ClientAction::Kind::kClose, .channel = channel.id});
      OnCut(channel.id, refused, now);
      channel.redial_at = now + options_.redial_first;
      return Wake(channel.redial_at);
    }
  }
  if (pending.request == channel.heartbeat_request) {
    channel.heartbeat_request = 0;
    Wake(channel.heartbeat_at);
  }
  if (kind != AnswerTo(pending.kind) && refused.ok()) {
    refused = absl::InternalError(
        absl::StrCat(PsName(channel), " answered ", wire::Name(pending.kind), " with ", wire::Name(kind)));
  }
  if (!refused.ok()) return OnRefused(pending, refused);
  if (kind == wire::Kind::kRunState && channel.id == 0) OnRunState(parsed.body);
  if (pending.kind == wire::Kind::kUpdate) return OnUpdated(channel, pending, parsed, now);
  if (pending.kind == wire::Kind::kEvicted) refused = OnEvictedKeys(channel, pending, parsed.body);
  Call* found = FindCall(pending.call);
  if (found == nullptr) return;
  Call& call = *found;
  switch (pending.kind) {
    case wire::Kind::kDeclare:
      return OnDeclared(call, parsed.body, now);
    case wire::Kind::kInstall: {
      wire::v1::Installed installed;
      if (installed.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()))) {
        channel.spec_hash = installed.spec_hash();
        channel.tables_on_device = {installed.tables_on_device().begin(), installed.tables_on_device().end()};
      }
      return PartDone(call.id, absl::OkStatus());
    }
    case wire::Kind::kDeviceBlock: {
      wire::v1::DeviceBlockLent lent;
      if (!lent.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()))) {
        return PartDone(call.id, absl::InternalError("a parameter server sent a device block that cannot be read"));
      }
      call.result.blocks.push_back({channel.id, lent.handle(), lent.bytes()});
      return PartDone(call.id, absl::OkStatus());
    }
    case wire::Kind::kNextInput: {
      wire::v1::InputPiece piece;
      if (!piece.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()))) {
        return PartDone(call.id, absl::InternalError("ps 0 sent an input piece that cannot be read"));
      }
      call.result.piece = {piece.end(), piece.piece(), piece.epoch(), piece.begin(), piece.end_item()};
      return PartDone(call.id, piece.error().empty() ? absl::OkStatus() : absl::DataLossError(piece.error()));
    }
    case wire::Kind::kStats: {
      wire::v1::StatsText text;
      if (!text.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size()))) {
        return PartDone(call.id, absl::InternalError("a parameter server sent stats that cannot be read"));
      }
      call.stats[channel.ps.value()] = text.json();
      return PartDone(call.id, absl::OkStatus());
    }
    case wire::Kind::kEvicted:
      return PartDone(call.id, refused);
    case wire::Kind::kGoodbye:
      channel.state = Channel::State::kClosed;
      return PartDone(call.id, absl::OkStatus());
    default:
      return PartDone(call.id, absl::OkStatus());
  }
}

}  // namespace basin
