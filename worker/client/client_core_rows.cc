// ClientCore, fifth part: rows of tables.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/codec/half.h"
#include "worker/client/client_core.h"
#include "worker/client/client_core_state.h"

namespace basin {
namespace {

// Batches that are kept for the next calls: as many as a caller may have under way without asking for fresh memory.
constexpr size_t kSpareBatches = 8;
constexpr size_t kSpareBatchBytes = size_t{32} << 20;

}  // namespace

void ClientCore::TakeTables() {
  for (int i = static_cast<int>(tables_.size()); i < spec_->model().tables_size(); ++i) {
    tables_.push_back(std::make_unique<TableState>());
    tables_.back()->dim = spec_->model().tables(i).dim();
  }
}

std::unique_ptr<RowBatch> ClientCore::NewBatch() {
  if (spare_batches_.empty()) return std::make_unique<RowBatch>();
  std::unique_ptr<RowBatch> batch = std::move(spare_batches_.back());
  spare_batches_.pop_back();
  return batch;
}

void ClientCore::KeepBatch(std::unique_ptr<RowBatch> batch) {
  if (spare_batches_.size() < kSpareBatches && batch->memory_bytes() <= kSpareBatchBytes)
    spare_batches_.push_back(std::move(batch));
}

absl::Status ClientCore::CheckRows(absl::Span<const RowsItem> items) {
  const uint64_t number = ++update_number_;
  for (const RowsItem& item : items) {
    if (item.table >= tables_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("table ", item.table, " does not exist; the model has ", tables_.size()));
    }
    const std::string where =
        absl::StrCat("table \"", spec_->model().tables(static_cast<int>(item.table)).name(), "\": ");
    TableState& table = *tables_[item.table];
    if (table.named_by == number)
      return absl::InvalidArgumentError(absl::StrCat(where, "it stands twice in one call; put its keys together"));
    table.named_by = number;
    if (item.push != nullptr && options_.role != wire::v1::ROLE_CHIEF && options_.role != wire::v1::ROLE_WORKER) {
      return absl::FailedPreconditionError(absl::StrCat(
          where, "an ", options_.role == wire::v1::ROLE_EVALUATOR ? "evaluator" : "observer", " only reads"));
    }
    if (item.keys.size() > RowBatch::kMaxKeys) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, item.keys.size(), " keys, at most ", RowBatch::kMaxKeys, " in one call"));
    }
    if (item.bags.offsets.data() != nullptr && !item.by_pieces) {
      const absl::Status bags = CheckBags(item.bags.offsets, item.keys.size());
      if (!bags.ok()) return absl::InvalidArgumentError(absl::StrCat(where, bags.message()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<CallId> ClientCore::StartRows(absl::Span<const RowsItem> items, absl::Time now) {
  last_now_ = now;
  if (!failure_.ok()) return failure_;
  if (!spec_) return absl::FailedPreconditionError("declare the model before pushing or pulling");
  BASIN_RETURN_IF_ERROR(CheckCalls());
  BASIN_RETURN_IF_ERROR(CheckRows(items));
  // All is sorted, checked and allocated before anything is numbered.
  const TablePlacement placement = TablePlacement::Make(static_cast<int>(options_.ps_addresses.size()));
  auto rows = std::make_unique<RowsCall>();
  const auto give_up = [&] {
    for (RowsPart& part : rows->parts) {
      if (part.batch) KeepBatch(std::move(part.batch));
    }
  };
  for (const RowsItem& item : items) {
    TableState& table = *tables_[item.table];
    RowsPart& part = rows->parts.emplace_back();
    part.table = item.table;
    part.push = item.push;
    part.pull = item.pull;
    rows->held = rows->held || item.by_pieces;
    if (item.by_pieces) continue;
    part.batch = NewBatch();
    part.batch->Fill(placement, table.dim, item.keys, item.bags);
    std::string not_finite;
    if (item.push != nullptr)
      not_finite = part.batch->FindNotFinite(item.keys, item.bags, item.push, options_.gradient_dtype);
    if (item.pull != nullptr && part.batch->bagged())
      part.places = std::make_unique_for_overwrite<float[]>(part.batch->places() * table.dim);
    if (not_finite.empty()) continue;
    give_up();
    return absl::InvalidArgumentError(absl::StrCat("table \"",
                                                   spec_->model().tables(static_cast<int>(item.table)).name(),
                                                   "\": ", not_finite, "; nothing of this call was sent"));
  }
  Call& call = NewCall("rows", now);
  call.is_update = true;
  ++unfinished_updates_;
  call.parts = 1;  // held until everything is queued
  const CallId id = call.id;
  touched_.clear();
  bool keeps = false;  // something of the call's rows is needed later
  for (size_t i = 0; i < items.size(); ++i) {
    TableState& table = *tables_[items[i].table];
    if (table.buckets.empty()) {
      table.buckets.resize(placement.buckets());
      for (uint32_t bucket = 0; bucket < placement.buckets(); ++bucket) {
        const PsOrdinal ps = placement.PsOf(bucket);
        const LaneIndex lane = placement.LaneOf(bucket, lanes_of_ps_[ps.value()]);
        table.buckets[bucket].channel = channel_of_.at({ps.value(), lane.value()});
      }
      // From here on this client may have copies of rows: it is told which go.
      for (auto& channel : channels_) SendEvicted(*channel, items[i].table, 0, now);
    }
    RowsPart& part = rows->parts[i];
    const bool waits = rows->held || !table.waiting.empty();
    keeps = keeps || waits || part.pull != nullptr;
    if (waits) {
      ++call.parts;
      table.waiting.emplace_back(id, i);
      continue;
    }
    AddRows(id, *rows, i, /*late=*/false, now);
    if (part.pull == nullptr) KeepBatch(std::move(part.batch));
  }
  if (keeps) call.rows = std::move(rows);
  for (const uint32_t channel : touched_) FlushIfDue(*channels_[channel], now);
  PartDone(id, absl::OkStatus());
  return id;
}

void ClientCore::AddRows(CallId call, const RowsCall& rows, size_t item, bool late, absl::Time now) {
  const RowsPart& part = rows.parts[item];
  const float* const push = part.push;
  if (push == nullptr && part.pull == nullptr) return;
  TableState& table = *tables_[part.table];
  const size_t row_bytes = table.dim * sizeof(float);
  const DType gradient = push != nullptr ? options_.gradient_dtype : DType::kF32;
  const uint32_t most = MostKeysOfEntry(table.dim);
  for (const RowBatch::Bucket& bucket : part.batch->buckets()) {
    const ShardId id = BucketShard(part.table, bucket.bucket);
    Channel& channel = *channels_[table.buckets[bucket.bucket].channel];
    for (uint32_t first = 0; first < bucket.keys; first += most) {
      const uint32_t n = std::min(most, bucket.keys - first);
      UpdateEntry entry{
          .shard = id, .rows = n, .dtype = static_cast<uint8_t>(gradient), .pulled = StateOf(id).pulled, .call = call};
      entry.first_key = first;
      const size_t key_bytes = n * sizeof(uint64_t);
      const size_t bytes = key_bytes + (push != nullptr ? n * table.dim * SizeOf(gradient) : 0);
      if (push != nullptr) entry.flags |= wire::kPush;
      if (part.pull != nullptr) {
        entry.flags |= wire::kPull;
        entry.pull_bytes = n * row_bytes;
      }
      if (late) KeepTogether(channel, call);
      wire::DataBuilder& builder = MakeRoom(channel, entry, bytes, now);
      char* const out = builder.AddInline(WireEntry(channel.open.entries.back()), bytes);
      part.batch->WriteKeys(bucket, first, n, out);
      if (push == nullptr) continue;
      if (!IsHalf(gradient)) {
        part.batch->WriteGradients(bucket, first, n, push, out + key_bytes);
        continue;
      }
      // Repeated keys are summed in float32, and rounded once.
      summed_rows_.resize(n * table.dim);
      part.batch->WriteGradients(bucket, first, n, push, reinterpret_cast<char*>(summed_rows_.data()));
      Narrow(gradient, summed_rows_.data(), summed_rows_.size(), out + key_bytes);
    }
  }
}

absl::Status ClientCore::OnRows(const Channel& channel, Call& call, const UpdateEntry& asked,
                                absl::Span<const char> payload) {
  if (!call.rows) return absl::OkStatus();
  for (RowsPart& part : call.rows->parts) {
    if (part.table != TableOf(asked.shard) || !part.batch) continue;
    const absl::Span<const RowBatch::Bucket> buckets = part.batch->buckets();
    const auto at = std::lower_bound(buckets.begin(), buckets.end(), BucketIn(asked.shard),
                                     [](const RowBatch::Bucket& b, uint32_t bucket) { return b.bucket < bucket; });
    part.batch->Scatter(*at, asked.first_key, asked.rows, payload.data(), part.places ? part.places.get() : part.pull);
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat(PsName(channel), " answered with rows of ", Describe(asked.shard), ", which were not asked for"));
}

// Bags are pooled once all their rows are there, in the order of their keys: the same rows give the same sums, whatever
// order the answers came in.
void ClientCore::RowsDone(Call& call) {
  for (RowsPart& part : call.rows->parts) {
    if (!part.batch) continue;
    if (part.places && call.result.status.ok()) part.batch->Pool(part.places.get(), part.pull);
    KeepBatch(std::move(part.batch));
  }
  call.rows.reset();
}

// ---- Evicted keys ----

void ClientCore::SendEvicted(Channel& channel, uint32_t table, CallId call, absl::Time now) {
  TableState& state = *tables_[table];
  state.evicted_next.resize(channels_.size(), TableState::kFromNow);
  state.evicted_more.resize(channels_.size(), false);
  wire::v1::Evicted request;
  request.set_table(table);
  request.set_since(state.evicted_next[channel.id]);
  SendControl(channel, wire::Kind::kEvicted, request.SerializeAsString(), call, now);
}

absl::StatusOr<CallId> ClientCore::AskEvicted(uint32_t table, absl::Time now) {
  if (!failure_.ok()) return failure_;
  if (!spec_ || table >= tables_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("table ", table, " does not exist; the model has ", spec_ ? tables_.size() : 0));
  }
  BASIN_RETURN_IF_ERROR(CheckCalls());
  Call& call = NewCall("evicted keys", now);
  call.parts = static_cast<int>(channels_.size());
  for (auto& channel : channels_) SendEvicted(*channel, table, call.id, now);
  return call.id;
}

absl::Status ClientCore::OnEvictedKeys(const Channel& channel, const Pending& pending, absl::string_view body) {
  wire::v1::Evicted request;
  wire::v1::EvictedKeys answer;
  if (!request.ParseFromString(pending.body) || request.table() >= tables_.size()) return absl::OkStatus();
  if (!answer.ParseFromArray(body.data(), static_cast<int>(body.size())))
    return absl::InternalError(absl::StrCat(PsName(channel), " sent evicted keys that cannot be read"));
  TableState& state = *tables_[request.table()];
  // Two calls at a time may have asked for the same.
  if (request.since() != state.evicted_next[channel.id]) return absl::OkStatus();
  state.evicted_next[channel.id] = answer.next();
  state.evicted_more[channel.id] = answer.more();
  state.missed = state.missed || answer.missed();
  state.evicted.insert(state.evicted.end(), answer.keys().begin(), answer.keys().end());
  return absl::OkStatus();
}

ClientCore::EvictedRows ClientCore::TakeEvicted(uint32_t table, uint64_t* keys, size_t capacity) {
  TableState& state = *tables_[table];
  EvictedRows taken;
  taken.count = std::min(capacity, state.evicted.size() - state.evicted_taken);
  std::copy_n(state.evicted.begin() + static_cast<int64_t>(state.evicted_taken), taken.count, keys);
  state.evicted_taken += taken.count;
  if (state.evicted_taken == state.evicted.size()) {
    state.evicted.clear();
    state.evicted_taken = 0;
  }
  taken.waiting = state.evicted.size() - state.evicted_taken;
  taken.more = std::find(state.evicted_more.begin(), state.evicted_more.end(), true) != state.evicted_more.end();
  taken.missed = capacity > 0 && std::exchange(state.missed, false);
  return taken;
}

}  // namespace basin
