// ClientCore: rows whose keys and gradients are reduced in a device's memory, and come by pieces. The writes of one
// table keep the order in which their calls were started, so what is started for a table whose rows are not there waits
// behind them.
#include <algorithm>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/wire/device_places.h"
#include "worker/client/client_core.h"
#include "worker/client/client_core_state.h"

namespace basin {

std::optional<ClientCore::TableShape> ClientCore::ShapeOf(uint32_t table) const {
  if (table >= tables_.size()) return std::nullopt;
  const TablePlacement placement = TablePlacement::Make(static_cast<int>(options_.ps_addresses.size()));
  return TableShape{.name = spec_->model().tables(static_cast<int>(table)).name(),
                    .dim = tables_[table]->dim,
                    .bucket_bits = placement.bits()};
}

RowsCut ClientCore::CutRows(CallId id, absl::Span<const absl::Span<const uint32_t>> begins,
                            absl::FunctionRef<bool(uint32_t)> has_block, absl::Time now) {
  RowsCut cut;
  cut.spans.resize(begins.size());
  Call* const call = FindCall(id);
  if (call == nullptr || call->done || !call->rows) return cut;
  std::vector<uint32_t> tables;
  size_t next = 0;
  for (size_t i = 0; i < call->rows->parts.size(); ++i) {
    RowsPart& part = call->rows->parts[i];
    tables.push_back(part.table);
    if (part.batch) continue;
    CutPart(part, i, next, begins[next], has_block, cut);
    ++next;
  }
  call->rows->held = false;
  for (const uint32_t table : tables) SendRows(table, now);
  return cut;
}

void ClientCore::CutPart(RowsPart& part, size_t item, size_t of, absl::Span<const uint32_t> begin,
                         absl::FunctionRef<bool(uint32_t)> has_block, RowsCut& cut) {
  const TableState& table = *tables_[part.table];
  const uint32_t most = MostKeysOfEntry(table.dim);
  const size_t row_bytes = table.dim * sizeof(float);
  const size_t sum_bytes = part.push != nullptr ? table.dim * SizeOf(options_.gradient_dtype) : 0;
  RowsPiece* piece = nullptr;
  const auto begin_piece = [&](bool is_placed, uint32_t channel, uint32_t first) {
    piece = &cut.pieces.emplace_back();
    *piece = {.item = item,
              .part = of,
              .number = static_cast<uint32_t>(cut.pieces.size() - 1),
              .is_placed = is_placed,
              .channel = channel,
              .first = first,
              .first_entry = part.entries.size()};
    ++part.pieces_left;
  };
  const auto fits = [&](const RowsEntry& entry) {
    return (piece->keys + entry.keys) * (sizeof(uint64_t) + row_bytes) <= kMaxRowsBytes;
  };
  const auto add = [&](const RowsEntry& entry) {
    part.entries.push_back(entry);
    piece->keys += entry.keys;
    ++piece->entries;
    piece->sum_bytes += entry.keys * sum_bytes;
    if (part.pull != nullptr) piece->pulled_bytes += entry.keys * row_bytes;
  };
  // Of lanes with blocks, by channel.
  std::map<uint32_t, std::deque<RowsEntry>> placed;
  std::vector<RowsEntry> others;
  for (uint32_t bucket = 0; bucket + 1 < begin.size(); ++bucket) {
    const Channel& channel = *channels_[table.buckets[bucket].channel];
    const bool is_placed = channel.tables_on_device.contains(part.table) && has_block(channel.id);
    for (uint32_t first = begin[bucket]; first < begin[bucket + 1];
         first += std::min(most, begin[bucket + 1] - first)) {
      const RowsEntry entry = {bucket, first, std::min(most, begin[bucket + 1] - first)};
      if (is_placed) {
        placed[channel.id].push_back(entry);
      } else {
        others.push_back(entry);
      }
    }
  }
  // Each lane's in turn, so that all have something to do. Their entries come first: spans count as they do.
  while (!placed.empty()) {
    for (auto at = placed.begin(); at != placed.end();) {
      std::deque<RowsEntry>& left = at->second;
      begin_piece(/*is_placed=*/true, at->first, 0);
      for (bool first = true; !left.empty() && (first || fits(left.front())); left.pop_front(), first = false) {
        cut.spans[of].push_back({left.front().first, left.front().keys, piece->keys});
        add(left.front());
      }
      at = left.empty() ? placed.erase(at) : std::next(at);
    }
  }
  // Neighbours, so that they are copied as they stand.
  piece = nullptr;
  for (const RowsEntry& entry : others) {
    if (piece == nullptr || entry.first != piece->first + piece->keys || !fits(entry)) {
      begin_piece(/*is_placed=*/false, 0, entry.first);
    }
    add(entry);
  }
}

void ClientCore::GiveRows(CallId id, GivenRows given, absl::Time now) {
  Call* const call = FindCall(id);
  if (call == nullptr || call->done || !call->rows) return;
  RowsPart& part = call->rows->parts[given.piece.item];
  part.given.push_back(std::move(given));
  SendRows(part.table, now);
}

void ClientCore::OnRowsPiece(CallId id, const RowsPiece& piece, const wire::Frame& written, char* pull_to,
                             absl::Time now) {
  GiveRows(id, {.piece = piece, .written = written, .pull_to = pull_to}, now);
}

void ClientCore::OnPlacedRows(CallId id, const RowsPiece& piece, const wire::Frame& keys,
                              const wire::DevicePlaces& places, absl::Time now) {
  BASIN_CHECK(piece.is_placed);
  GiveRows(id, {.piece = piece, .written = keys, .places = places}, now);
}

void ClientCore::OnRowsFailed(CallId id, const absl::Status& status, absl::Time now) {
  AddError(id, status);
  for (uint32_t table = 0; table < tables_.size(); ++table) {
    auto& waiting = tables_[table]->waiting;
    const auto at = std::find_if(waiting.begin(), waiting.end(), [id](const auto& one) { return one.first == id; });
    if (at == waiting.end()) continue;
    waiting.erase(at);  // a table stands once in a call
    PartDone(id, absl::OkStatus());
    SendRows(table, now);
  }
}

// Hands on what nothing stands before any more.
void ClientCore::SendRows(uint32_t table, absl::Time now) {
  last_now_ = now;
  ++update_number_;  // as an update: touched_ has its channels
  touched_.clear();
  auto& waiting = tables_[table]->waiting;
  while (!waiting.empty()) {
    const auto [id, item] = waiting.front();
    Call& call = *FindCall(id);
    RowsCall& rows = *call.rows;
    RowsPart& part = rows.parts[item];
    if (rows.held) break;
    if (part.batch) {
      AddRows(id, rows, item, /*late=*/true, now);
    } else {
      for (; !part.given.empty(); part.given.pop_front(), --part.pieces_left) {
        AddRowsPiece(call, part, part.given.front(), now);
      }
      if (part.pieces_left > 0) break;
    }
    waiting.pop_front();
    PartDone(id, absl::OkStatus());
  }
  for (const uint32_t channel : touched_) FlushIfDue(*channels_[channel], now);
}

void ClientCore::AddRowsPiece(Call& call, const RowsPart& part, const GivenRows& given, absl::Time now) {
  TableState& table = *tables_[part.table];
  const RowsPiece& piece = given.piece;
  const size_t row_bytes = table.dim * sizeof(float);
  const bool pushes = part.push != nullptr;
  const DType gradient = pushes ? options_.gradient_dtype : DType::kF32;
  const size_t sum_bytes = pushes ? table.dim * SizeOf(gradient) : 0;
  const char* from = given.written.data();
  char* pull_to = given.pull_to;
  wire::DevicePlaces places = given.places;
  for (size_t i = piece.first_entry; i < piece.first_entry + piece.entries; ++i) {
    const RowsEntry& of = part.entries[i];
    const ShardId id = BucketShard(part.table, of.bucket);
    Channel& channel = *channels_[table.buckets[of.bucket].channel];
    UpdateEntry entry{.shard = id,
                      .rows = of.keys,
                      .dtype = static_cast<uint8_t>(gradient),
                      .pulled = StateOf(id).pulled,
                      .call = call.id};
    if (pushes) entry.flags |= wire::kPush;
    if (part.pull != nullptr) {
      entry.flags |= wire::kPull;
      entry.pull = pull_to;
      entry.pull_bytes = of.keys * row_bytes;
      entry.piece = piece.number + 1;
    }
    KeepTogether(channel, call.id);
    const size_t key_bytes = of.keys * sizeof(uint64_t);
    if (piece.is_placed) {
      entry.flags |= wire::kPlaced;
      entry.piece = piece.number + 1;
      const size_t bytes = key_bytes + wire::PlacesBytes(entry.flags);
      wire::DataBuilder& builder = MakeRoom(channel, entry, bytes, now);
      char* const out = builder.AddInline(WireEntry(channel.open.entries.back()), bytes);
      std::memcpy(out, from, key_bytes);
      wire::WritePlaces(entry.flags, places, out + key_bytes);
      from += key_bytes;
      places.written += of.keys * sum_bytes;
      places.pulled += entry.pull_bytes;
      continue;
    }
    const size_t bytes = key_bytes + of.keys * sum_bytes;
    AddEntry(channel, entry, wire::Frame(from, bytes, given.written.owner()), now);
    from += bytes;
    pull_to += entry.pull_bytes;
  }
}

}  // namespace basin
