// ClientCore, second part: the model, pushes and pulls.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/codec/half.h"
#include "common/rules/apply.h"
#include "worker/client/client_core.h"
#include "worker/client/client_core_state.h"

namespace basin {
namespace {

// An open message that has gathered this much leaves, even while others are under way: long enough that what a message
// costs by itself is small beside it.
constexpr size_t kGatherBytes = size_t{128} << 10;
constexpr size_t kGatherEntries = 2048;
// Small updates wait at most this long for others.
constexpr absl::Duration kGatherMost = absl::Milliseconds(1);
// Of handles that were not freed; below what a call's id can number.
constexpr size_t kMaxUpdateCalls = (size_t{1} << 20) - 1024;

absl::Status WrongSize(absl::string_view name, absl::string_view what, size_t bytes, uint64_t expected) {
  return absl::InvalidArgumentError(absl::StrCat(what, " of \"", name, "\": the buffer has ", bytes,
                                                 " bytes, the variable ", expected, "; fix the tensor's shape"));
}

absl::Status NotFinite(absl::string_view name, absl::string_view what, DType type, absl::Span<const char> values) {
  const auto at = [&](size_t i) {
    float value;
    if (IsHalf(type)) {
      Widen(type, values.data() + i * SizeOf(type), 1, &value);
    } else {
      std::memcpy(&value, values.data() + i * sizeof(value), sizeof(value));
    }
    return value;
  };
  size_t i = 0;
  while (std::isfinite(at(i))) ++i;
  return absl::InvalidArgumentError(absl::StrCat(what, " of \"", name, "\" has ", std::isnan(at(i)) ? "NaN" : "Inf",
                                                 " at element ", i, "; nothing of this call was sent"));
}

bool AllFinite(DType type, absl::Span<const char> values) {
  if (IsHalf(type)) return HalvesAreFinite(type, values.data(), values.size() / SizeOf(type));
  return type != DType::kF32 || basin::AllFinite(values.data(), values.size() / sizeof(float));
}

// What is there already must stay where it is.
bool Extends(const Placement& longer, const Placement& shorter) {
  const auto starts_with = [](const auto& all, const auto& part) {
    return all.size() >= part.size() && std::equal(part.begin(), part.end(), all.begin());
  };
  return starts_with(longer.variables(), shorter.variables()) && starts_with(longer.shards(), shorter.shards());
}

}  // namespace

// ---- The model ----

CallId ClientCore::Declare(const wire::v1::Model& model, absl::Time now) {
  Call& call = NewCall("declare the model", now);
  if (call.done) return call.id;
  call.parts = 1;
  wire::v1::Declare declare;
  *declare.mutable_model() = model;
  declare.set_is_chief(options_.is_chief);
  SendControl(*channels_[0], wire::Kind::kDeclare, declare.SerializeAsString(), call.id, now);
  return call.id;
}

void ClientCore::OnDeclared(Call& call, absl::string_view body, absl::Time now) {
  wire::v1::Declared declared;
  absl::Status status = absl::InternalError("ps 0 sent a RunSpec that cannot be read");
  if (declared.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    if (spec_ && (declared.spec() == spec_bytes_ || spec_bytes_.size() > declared.spec().size())) {
      status = absl::OkStatus();  // an older generation of what this client has already
    } else {
      status = TakeSpec(declared.spec());
      if (status.ok()) spec_hash_ = declared.spec_hash();
    }
  }
  if (!status.ok()) return PartDone(call.id, status);
  call.installs = true;
  for (auto& channel : channels_) {
    if (channel->spec_hash == spec_hash_) continue;
    ++call.parts;
    SendInstall(*channel, call.id, now);
  }
  PartDone(call.id, absl::OkStatus());
}

absl::Status ClientCore::TakeSpec(absl::string_view bytes) {
  wire::v1::RunSpec spec;
  if (!spec.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InternalError("ps 0 sent a RunSpec that cannot be read");
  }
  Placement placement = Placement::Make(static_cast<int>(options_.ps_addresses.size()));
  uint32_t begin = 0;
  for (const uint32_t end : spec.generations()) {
    std::vector<PlacedVariable> added;
    for (; begin < end && begin < static_cast<uint32_t>(spec.model().variables_size()); ++begin) {
      const wire::v1::Variable& variable = spec.model().variables(static_cast<int>(begin));
      added.push_back({variable.name(), static_cast<DType>(variable.dtype()),
                       std::vector<int64_t>(variable.shape().begin(), variable.shape().end())});
    }
    BASIN_ASSIGN_OR_RETURN(placement, placement.Extend(added));
  }
  if (begin != static_cast<uint32_t>(spec.model().variables_size())) {
    return absl::InternalError(absl::StrCat("ps 0 sent a RunSpec whose generations have ", begin, " of its ",
                                            spec.model().variables_size(), " variables"));
  }
  if (placement_ && !Extends(placement, *placement_)) {
    return absl::InternalError("ps 0 sent a RunSpec that does not extend the one it sent before");
  }
  // Shards that exist keep their ids, sequences and versions.
  const size_t before = shards_.size();
  shards_.resize(placement.shards().size());
  for (size_t i = before; i < shards_.size(); ++i) {
    const ShardPlace& place = placement.shards()[i];
    const LaneIndex lane = placement.lane_of(ShardId(static_cast<uint32_t>(i)), lanes_of_ps_[place.ps.value()]);
    shards_[i].begin = place.begin;
    shards_[i].end = place.end;
    shards_[i].channel = channel_of_.at({place.ps.value(), lane.value()});
  }
  variables_.resize(placement.variables().size());
  for (uint32_t i = 0; i < variables_.size(); ++i) {
    const PlacedVariable& variable = placement.variables()[i];
    const auto [first, end] = placement.shards_of(VariableId(i));
    variables_[i] = {.dtype = variable.dtype, .bytes = variable.bytes(), .first_shard = first, .end_shard = end};
  }
  placement_ = std::move(placement);
  spec_ = std::move(spec);
  TakeTables();
  spec_bytes_ = std::string(bytes);
  return absl::OkStatus();
}

void ClientCore::SendInstall(Channel& channel, CallId call, absl::Time now) {
  wire::v1::Install install;
  install.set_spec(spec_bytes_);
  install.set_spec_hash(spec_hash_);
  for (const uint32_t lanes : lanes_of_ps_) install.add_lanes(lanes);
  SendControl(channel, wire::Kind::kInstall, install.SerializeAsString(), call, now);
}

// ---- Updates ----

absl::Status ClientCore::CheckUpdate(absl::Span<const UpdateItem> items) {
  const uint64_t number = ++update_number_;
  for (const UpdateItem& item : items) {
    if (item.variable.value() >= variables_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("variable ", item.variable.value(), " does not exist; the model has ", variables_.size()));
    }
    VariableState& state = variables_[item.variable.value()];
    const auto name = [&]() -> const std::string& { return NameOf(item.variable); };
    if (state.named_by == number) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", name(), "\" stands twice in one call; sum its gradients first"));
    }
    state.named_by = number;
    const bool pushes = item.push.data() != nullptr, assigns = item.assign.data() != nullptr;
    if ((pushes || assigns) && options_.role != wire::v1::ROLE_CHIEF && options_.role != wire::v1::ROLE_WORKER) {
      return absl::FailedPreconditionError(
          absl::StrCat("\"", name(), "\": an ", options_.role == wire::v1::ROLE_EVALUATOR ? "evaluator" : "observer",
                       " only reads"));
    }
    if (pushes && assigns) {
      return absl::InvalidArgumentError(absl::StrCat("\"", name(), "\": push and assign in one call; choose one"));
    }
    if (pushes || assigns) {
      const absl::Span<const char> written = pushes ? item.push : item.assign;
      const absl::string_view what = pushes ? "gradient" : "value";
      const DType type = pushes ? item.push_dtype : state.dtype;
      if (type != state.dtype && !(IsHalf(type) && state.dtype == DType::kF32)) {
        return absl::InvalidArgumentError(absl::StrCat(what, " of \"", name(), "\": elements are ", Name(type),
                                                       ", expected ", Name(state.dtype),
                                                       state.dtype == DType::kF32 ? ", f16 or bf16" : ""));
      }
      const uint64_t expected = state.bytes / SizeOf(state.dtype) * SizeOf(type);
      if (written.size() != expected) return WrongSize(name(), what, written.size(), expected);
      if (!item.writes_by_pieces && !AllFinite(type, written)) return NotFinite(name(), what, type, written);
    }
    if (item.pull.data() != nullptr && item.pull.size() != state.bytes) {
      return WrongSize(name(), "pull", item.pull.size(), state.bytes);
    }
  }
  return absl::OkStatus();
}

bool ClientCore::Has(VariableId variable) const { return variable.value() < variables_.size(); }

bool ClientCore::TrainsFloats(VariableId variable) const {
  if (!Has(variable)) return false;
  const wire::v1::Variable& declared = spec_->model().variables(static_cast<int>(variable.value()));
  return variables_[variable.value()].dtype == DType::kF32 && declared.statistic() == wire::v1::STATISTIC_UNSPECIFIED;
}

absl::Status ClientCore::CheckCalls() const {
  if (calls() < kMaxUpdateCalls) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(kMaxUpdateCalls, " calls were started and their handles not freed; free those that are done"));
}

absl::StatusOr<CallId> ClientCore::StartUpdate(absl::Span<const UpdateItem> items,
                                               const std::shared_ptr<const void>& lender, absl::Time now,
                                               std::vector<UpdatePiece>* pieces) {
  last_now_ = now;
  if (!failure_.ok()) return failure_;
  if (!spec_) return absl::FailedPreconditionError("declare the model before pushing or pulling");
  BASIN_RETURN_IF_ERROR(CheckCalls());
  BASIN_RETURN_IF_ERROR(CheckUpdate(items));
  Call& call = NewCall("update", now);
  call.is_update = true;
  ++unfinished_updates_;
  call.parts = 1;  // held until everything is queued
  touched_.clear();
  for (size_t i = 0; i < items.size(); ++i) {
    const UpdateItem& item = items[i];
    const VariableState& variable = variables_[item.variable.value()];
    const size_t element = SizeOf(variable.dtype);
    const bool pushes = item.push.data() != nullptr;
    const absl::Span<const char> written = pushes ? item.push : item.assign;
    const bool writes = written.data() != nullptr, pulls = item.pull.data() != nullptr;
    if (!writes && !pulls) continue;
    UpdatePiece* piece = nullptr;
    for (ShardId id = variable.first_shard; id < variable.end_shard; id = id.next()) {
      ShardState& shard = StateOf(id);
      const uint64_t elements = shard.end - shard.begin;
      // What its gradient was computed from at best, though it may be sent later.
      UpdateEntry entry{.shard = id, .pulled = shard.pulled, .call = call.id};
      entry.dtype = static_cast<uint8_t>(variable.dtype);
      if (pulls) {
        entry.flags |= wire::kPull;
        if (!item.pulls_by_pieces) entry.pull = item.pull.data() + shard.begin * element;
        entry.pull_bytes = elements * element;
      }
      wire::Frame payload;
      if (writes) {
        const DType type = pushes ? item.push_dtype : variable.dtype;
        const size_t bytes = elements * SizeOf(type);
        entry.flags |= pushes ? wire::kPush : wire::kAssign;
        entry.dtype = static_cast<uint8_t>(type);
        if (!item.writes_by_pieces) {
          payload = wire::Frame(written.data() + shard.begin * SizeOf(type), bytes,
                                bytes >= kLeastFrameBytes ? lender : nullptr);
        }
      }
      if (item.by_pieces()) {
        const size_t written_size = item.writes_by_pieces ? SizeOf(static_cast<DType>(entry.dtype)) : 0;
        const size_t pulled_size = item.pulls_by_pieces ? element : 0;
        const bool uses_block = channels_[shard.channel]->uses_block;
        if (piece == nullptr || (piece->elements + elements) * std::max(written_size, pulled_size) > kMaxShardBytes ||
            uses_block || channels_[piece->channel]->uses_block) {
          piece = &pieces->emplace_back(
              UpdatePiece{.item = i,
                          .first = id,
                          .begin = shard.begin,
                          .written_size = written_size,
                          .pulled_size = pulled_size,
                          .channel = shard.channel,
                          .whole = writes == item.writes_by_pieces && pulls == item.pulls_by_pieces});
        }
        piece->end = id.next();
        piece->elements += elements;
        if (item.pulls_by_pieces) entry.piece = static_cast<uint32_t>(pieces->size());
      }
      if (item.by_pieces() || IsWaitedFor(id)) {
        ++call.parts;
        // What a message would copy at once is copied now: nobody holds it for as long as it waits.
        if (!payload.empty() && payload.owner() == nullptr) payload = wire::Frame::Copy(payload.view());
        waiting_[id.value()].push_back({entry, std::move(payload), !item.by_pieces()});
        continue;
      }
      AddEntry(*channels_[shard.channel], entry, std::move(payload), now);
    }
  }
  for (const uint32_t channel : touched_) FlushIfDue(*channels_[channel], now);
  PartDone(call.id, absl::OkStatus());
  return call.id;
}

wire::DataBuilder& ClientCore::MakeRoom(Channel& channel, const UpdateEntry& entry, size_t payload_bytes,
                                        absl::Time now) {
  Open* open = &channel.open;
  Call& call = *FindCall(entry.call);
  const auto rate_differs = [&] {  // NaN is the rule's own, and equals itself here
    return std::memcmp(&open->learning_rate, &call.learning_rate, sizeof(float)) != 0;
  };
  const uint64_t placed_bytes = PlacedBytes(entry);
  if (!open->entries.empty() &&
      (!open->builder.Fits(payload_bytes) || open->answer_bytes + entry.pull_bytes > kMessageBytes ||
       open->placed_bytes + placed_bytes > kMessageBytes || open->answer_frames >= kMaxPayloadFrames ||
       open->clock != call.clock || rate_differs())) {
    FlushChannel(channel);
  }
  if (open->entries.empty()) {
    open->Begin(channel.inline_below, channel.entries_last);
    open->clock = call.clock;
    open->learning_rate = call.learning_rate;
    open->since = now;
  }
  if (channel.touched_by != update_number_) {
    channel.touched_by = update_number_;
    touched_.push_back(channel.id);
  }
  // A message answers each of its calls once.
  if (open->entries.empty() || open->entries.back().call != entry.call) ++call.parts;
  open->answer_bytes += entry.pull_bytes;
  open->answer_frames += entry.pull_bytes >= channel.inline_below && !entry.is_placed();
  open->placed_bytes += placed_bytes;
  bytes_in_flight_ += payload_bytes;
  UpdateEntry& added = open->entries.emplace_back(entry);
  ShardState& shard = StateOf(entry.shard);
  if (entry.writes()) {
    shard.last = shard.last.next();
    added.epoch = shard.epoch;
    added.sequence = shard.last;
  }
  return open->builder;
}

wire::Entry ClientCore::WireEntry(const UpdateEntry& entry) const {
  return {.shard = entry.shard,
          .dtype = entry.dtype,
          .flags = entry.flags,
          .sequence = entry.sequence,
          .version = entry.pulled,
          .rows = entry.rows};
}

void ClientCore::AddEntry(Channel& channel, const UpdateEntry& entry, wire::Frame payload, absl::Time now) {
  wire::DataBuilder& builder = MakeRoom(channel, entry, payload.size(), now);
  builder.Add(WireEntry(channel.open.entries.back()), std::move(payload));
}

void ClientCore::FlushChannel(Channel& channel) {
  if (channel.open.entries.empty()) return;
  Open open = std::exchange(channel.open, Open());
  Pending pending;
  pending.request = channel.next_request++;
  pending.kind = wire::Kind::kUpdate;
  pending.clock = open.clock;
  pending.bytes = open.builder.payload_bytes();
  pending.entries = std::move(open.entries);
  wire::Header header = HeaderFor(channel, wire::Kind::kUpdate, pending.request);
  header.clock = open.clock;
  header.learning_rate = open.learning_rate;
  pending.message = std::move(open.builder).Build(header);
  ++channel.updates_pending;
  channel.entries_last = pending.entries.size();
  if (channel.state == Channel::State::kReady) {
    actions_.push_back({.kind = ClientAction::Kind::kSend, .channel = channel.id, .message = pending.message});
  }
  channel.pending.emplace(pending.request, std::move(pending));
}

void ClientCore::FlushIfDue(Channel& channel, absl::Time now) {
  const Open& open = channel.open;
  if (open.entries.empty()) return;
  const bool large = open.builder.payload_bytes() + open.placed_bytes + open.answer_bytes >= kGatherBytes ||
                     open.builder.entries() >= kGatherEntries || now - open.since >= kGatherMost;
  // With nothing under way there is no answer to wait for.
  if (large || channel.updates_pending == 0) {
    FlushChannel(channel);
  } else {
    Wake(open.since + kGatherMost);
  }
}

void ClientCore::SetInlineBelow(uint32_t channel, size_t bytes) { channels_[channel]->inline_below = bytes; }

bool ClientCore::gathering() const {
  return std::any_of(channels_.begin(), channels_.end(),
                     [](const auto& channel) { return !channel->open.entries.empty(); });
}

void ClientCore::Flush(absl::Time now) {
  last_now_ = now;
  for (auto& channel : channels_) FlushChannel(*channel);
}

}  // namespace basin
