// ClientCore, second part: the model, pushes and pulls.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "worker/client/client_core.h"
#include "worker/client/client_core_state.h"

namespace basin {
namespace {

uint64_t ElementsOf(const wire::v1::Variable& variable) {
  uint64_t elements = 1;
  for (const int64_t dim : variable.shape()) elements *= static_cast<uint64_t>(dim);
  return elements;
}

// The first element that is NaN or Inf; npos: none. Exponents that are all ones, eight at a time.
size_t FirstNotFinite(absl::Span<const char> bytes) {
  const size_t count = bytes.size() / sizeof(float);
  constexpr size_t kBlock = 256;
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t n = std::min(kBlock, count - begin);
    uint32_t bits[kBlock];
    std::memcpy(bits, bytes.data() + begin * sizeof(float), n * sizeof(float));
    uint32_t found = 0;
    for (size_t i = 0; i < n; ++i) found |= static_cast<uint32_t>((bits[i] & 0x7f800000u) == 0x7f800000u);
    if (found == 0) continue;
    for (size_t i = 0; i < n; ++i) {
      if ((bits[i] & 0x7f800000u) == 0x7f800000u) return begin + i;
    }
  }
  return std::string::npos;
}

absl::Status CheckSize(const wire::v1::Variable& variable, absl::string_view what, size_t bytes, uint64_t expected) {
  if (bytes == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " of \"", variable.name(), "\": the buffer has ", bytes,
                                                 " bytes, the variable ", expected, "; fix the tensor's shape"));
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
  placement_ = std::move(placement);
  spec_ = std::move(spec);
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

absl::StatusOr<CallId> ClientCore::StartUpdate(absl::Span<const UpdateItem> items, absl::Time now) {
  if (!failure_.ok()) return failure_;
  if (!spec_) return absl::FailedPreconditionError("declare the model before pushing or pulling");
  std::set<VariableId> seen;
  for (const UpdateItem& item : items) {
    if (item.variable.value() >= static_cast<uint32_t>(spec_->model().variables_size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "variable ", item.variable.value(), " does not exist; the model has ", spec_->model().variables_size()));
    }
    const wire::v1::Variable& variable = spec_->model().variables(static_cast<int>(item.variable.value()));
    if (!seen.insert(item.variable).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", variable.name(), "\" stands twice in one call; sum its gradients first"));
    }
    const auto dtype = static_cast<DType>(variable.dtype());
    const uint64_t bytes = ElementsOf(variable) * SizeOf(dtype);
    const bool writes = item.push.data() != nullptr || item.assign.data() != nullptr;
    if (writes && options_.role != wire::v1::ROLE_CHIEF && options_.role != wire::v1::ROLE_WORKER) {
      return absl::FailedPreconditionError(
          absl::StrCat("\"", variable.name(), "\": an ",
                       options_.role == wire::v1::ROLE_EVALUATOR ? "evaluator" : "observer", " only reads"));
    }
    if (item.push.data() != nullptr && item.assign.data() != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", variable.name(), "\": push and assign in one call; choose one"));
    }
    for (const auto& [what, buffer] : {std::pair("gradient", item.push), std::pair("value", item.assign)}) {
      if (buffer.data() == nullptr) continue;
      BASIN_RETURN_IF_ERROR(CheckSize(variable, what, buffer.size(), bytes));
      if (dtype != DType::kF32) continue;
      if (const size_t at = FirstNotFinite(buffer); at != std::string::npos) {
        float found;
        std::memcpy(&found, buffer.data() + at * sizeof(float), sizeof(float));
        return absl::InvalidArgumentError(absl::StrCat(what, " of \"", variable.name(), "\" has ",
                                                       std::isnan(found) ? "NaN" : "Inf", " at element ", at,
                                                       "; nothing of this call was sent"));
      }
    }
    if (item.pull.data() != nullptr) BASIN_RETURN_IF_ERROR(CheckSize(variable, "pull", item.pull.size(), bytes));
  }

  // All that is copied first: where memory does not suffice for it, nothing was numbered yet.
  std::map<uint32_t, std::vector<UpdateEntry>> by_channel;
  for (const UpdateItem& item : items) {
    const wire::v1::Variable& variable = spec_->model().variables(static_cast<int>(item.variable.value()));
    const size_t element = SizeOf(static_cast<DType>(variable.dtype()));
    const absl::Span<const char> written = item.push.data() != nullptr ? item.push : item.assign;
    if (written.data() == nullptr && item.pull.data() == nullptr) continue;
    const auto [first, last] = placement_->shards_of(item.variable);
    for (ShardId id = first; id < last; id = id.next()) {
      const ShardState& shard = shards_[id.value()];
      const uint64_t offset = shard.begin * element, bytes = (shard.end - shard.begin) * element;
      UpdateEntry entry;
      entry.shard = id;
      entry.entry.shard = id;
      entry.entry.dtype = static_cast<uint8_t>(variable.dtype());
      entry.entry.version = shard.pulled;
      if (written.data() != nullptr) {
        entry.entry.flags |= item.push.data() != nullptr ? wire::kPush : wire::kAssign;
        entry.payload = wire::Frame::Copy(absl::string_view(written.data() + offset, bytes));
      }
      if (item.pull.data() != nullptr) {
        entry.entry.flags |= wire::kPull;
        entry.pull = item.pull.data() + offset;
        entry.pull_bytes = bytes;
      }
      by_channel[shard.channel].push_back(std::move(entry));
    }
  }
  Call& call = NewCall("update", now);
  call.is_update = true;
  unfinished_updates_.insert(call.id);
  call.parts = 1;  // held until everything is queued
  for (auto& [channel, entries] : by_channel) {
    for (UpdateEntry& entry : entries) {
      if ((entry.entry.flags & (wire::kPush | wire::kAssign)) == 0) continue;
      ShardState& shard = shards_[entry.shard.value()];
      shard.last = shard.last.next();
      entry.epoch = shard.epoch;
      entry.entry.sequence = shard.last;
    }
    SendUpdate(*channels_[channel], call.id, std::move(entries), now);
  }
  PartDone(call.id, absl::OkStatus());
  return call.id;
}

void ClientCore::SendUpdate(Channel& channel, CallId call_id, std::vector<UpdateEntry> entries, absl::Time now) {
  last_now_ = now;
  size_t at = 0;
  while (at < entries.size()) {
    // One message: as many entries as both it and its answer may hold.
    wire::DataBuilder request;
    size_t answer_frames = 0, answer_inline = 0;
    Pending pending;
    for (; at < entries.size(); ++at) {
      UpdateEntry& entry = entries[at];
      const bool framed = entry.pull_bytes >= kInlinePayloadBytes;
      if (!request.Fits(entry.payload.size()) || answer_frames + framed > kMaxPayloadFrames ||
          answer_inline + (framed ? 0 : entry.pull_bytes) > kGatherBytes) {
        break;
      }
      request.Add(entry.entry, entry.payload);
      answer_frames += framed;
      answer_inline += framed ? 0 : entry.pull_bytes;
      pending.bytes += entry.payload.size();
      pending.entries.push_back(std::move(entry));
    }
    BASIN_CHECK(!pending.entries.empty());
    pending.request = channel.next_request++;
    pending.kind = wire::Kind::kUpdate;
    pending.call = call_id;
    pending.clock = clock_;
    bytes_in_flight_ += pending.bytes;
    ++calls_.at(call_id).parts;
    pending.learning_rate = learning_rate_;
    wire::Header header = HeaderFor(channel, wire::Kind::kUpdate, pending.request);
    header.learning_rate = learning_rate_;
    channel.pending.emplace(pending.request, std::move(pending));
    if (channel.state == Channel::State::kReady) {
      actions_.push_back(
          {.kind = ClientAction::Kind::kSend, .channel = channel.id, .message = std::move(request).Build(header)});
    }
  }
}

}  // namespace basin
