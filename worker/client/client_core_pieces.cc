// ClientCore: items whose bytes come and go by pieces, since they lie in a device's memory, or whose call waits for
// what is found out there. The writes of one shard keep the order in which their calls were started, so what is started
// for a shard whose piece is not there waits behind it.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rules/apply.h"
#include "worker/client/client_core.h"
#include "worker/client/client_core_state.h"

namespace basin {

void ClientCore::ForWaiting(CallId call, const UpdatePiece& piece, absl::FunctionRef<void(Waiting&)> with,
                            absl::Time now) {
  last_now_ = now;
  ++update_number_;  // as an update: touched_ has its channels
  touched_.clear();
  for (ShardId shard = piece.first; shard < piece.end; shard = shard.next()) {
    const auto queue = waiting_.find(shard.value());
    if (queue == waiting_.end()) continue;
    const auto at = std::find_if(queue->second.begin(), queue->second.end(),
                                 [call](const Waiting& waiting) { return waiting.entry.call == call; });
    if (at == queue->second.end()) continue;
    with(*at);
    if (!at->ready) {
      queue->second.erase(at);
      PartDone(call, absl::OkStatus());
    }
    SendWaiting(shard, now);
  }
  for (const uint32_t channel : touched_) FlushIfDue(*channels_[channel], now);
}

void ClientCore::OnPiece(CallId call, const UpdatePiece& piece, const wire::Frame& written, char* pull_to,
                         absl::Time now) {
  const auto give = [&](Waiting& waiting) {
    UpdateEntry& entry = waiting.entry;
    const ShardState& shard = StateOf(entry.shard);
    const uint64_t at = shard.begin - piece.begin;
    if (entry.piece != 0) entry.pull = pull_to + at * piece.pulled_size;
    waiting.ready = true;
    if (written.data() == nullptr) return;
    waiting.payload = wire::Frame(written.data() + at * piece.written_size,
                                  (shard.end - shard.begin) * piece.written_size, written.owner());
    if (entry.dtype != static_cast<uint8_t>(DType::kF32)) return;
    const absl::Span<const float> values(reinterpret_cast<const float*>(waiting.payload.data()),
                                         waiting.payload.size() / sizeof(float));
    if (AllFinite(values)) return;
    const auto bad = std::find_if_not(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
    waiting.ready = false;
    AddError(call, absl::InvalidArgumentError(absl::StrCat(
                       (entry.flags & wire::kPush) != 0 ? "gradient" : "value", " of \"", VariableOf(entry.shard),
                       "\" has ", std::isnan(*bad) ? "NaN" : "Inf", " at element ",
                       shard.begin + static_cast<uint64_t>(bad - values.begin()), "; ", Describe(entry.shard),
                       " are unchanged, other parts of this call may have been applied")));
  };
  ForWaiting(call, piece, give, now);
}

void ClientCore::OnPlacedPiece(CallId call, const UpdatePiece& piece, uint32_t number, const wire::DevicePlaces& places,
                               absl::Time now) {
  BASIN_CHECK(piece.whole && piece.shards() == 1);
  const auto give = [&](Waiting& waiting) {
    UpdateEntry& entry = waiting.entry;
    entry.flags |= wire::kPlaced;
    entry.piece = number + 1;
    entry.pulled_at = places.pulled;
    waiting.payload = wire::WritePlaces(entry.flags, places);
    waiting.ready = true;
  };
  ForWaiting(call, piece, give, now);
}

void ClientCore::FreePlaces(const UpdateEntry& entry, bool pulled) {
  if (entry.is_placed()) landed_.push_back({entry.call, entry.piece - 1, pulled});
}

uint64_t ClientCore::PlacedBytes(const UpdateEntry& entry) const {
  if (!entry.is_placed() || !entry.writes()) return 0;
  if (IsBucket(entry.shard)) {
    return uint64_t{entry.rows} * tables_[TableOf(entry.shard)]->dim * SizeOf(static_cast<DType>(entry.dtype));
  }
  const ShardState& shard = shards_[entry.shard.value()];
  return (shard.end - shard.begin) * SizeOf(static_cast<DType>(entry.dtype));
}

void ClientCore::OnPieceFailed(CallId call, const UpdatePiece& piece, const absl::Status& status, absl::Time now) {
  AddError(call, status);
  ForWaiting(
      call, piece, [](Waiting& waiting) { waiting.ready = false; }, now);
}

void ClientCore::AddError(CallId id, const absl::Status& status) {
  if (Call* call = FindCall(id); call != nullptr) call->result.status.Update(status);
}

void ClientCore::KeepTogether(Channel& channel, CallId call) {
  const std::vector<UpdateEntry>& open = channel.open.entries;
  const auto is_its = [call](const UpdateEntry& entry) { return entry.call == call; };
  if (!open.empty() && !is_its(open.back()) && std::any_of(open.begin(), open.end(), is_its)) FlushChannel(channel);
}

// Hands on what nothing stands before any more.
void ClientCore::SendWaiting(ShardId shard, absl::Time now) {
  const auto queue = waiting_.find(shard.value());
  Channel& channel = *channels_[StateOf(shard).channel];
  while (!queue->second.empty() && queue->second.front().ready) {
    Waiting waiting = std::move(queue->second.front());
    queue->second.pop_front();
    KeepTogether(channel, waiting.entry.call);
    AddEntry(channel, waiting.entry, std::move(waiting.payload), now);
    PartDone(waiting.entry.call, absl::OkStatus());
  }
  if (queue->second.empty()) waiting_.erase(queue);
}

}  // namespace basin
