// ClientCore: rows whose keys and gradients are reduced in a device's memory, and come by pieces. The writes of one
// table keep the order in which their calls were started, so what is started for a table whose rows are not there waits
// behind them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
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

std::vector<RowsPiece> ClientCore::CutRows(CallId id, absl::Span<const absl::Span<const uint32_t>> begins,
                                           absl::Time now) {
  std::vector<RowsPiece> pieces;
  Call* const call = FindCall(id);
  if (call == nullptr || call->done || !call->rows) return pieces;
  std::vector<uint32_t> tables;
  size_t next = 0;
  for (size_t i = 0; i < call->rows->parts.size(); ++i) {
    RowsCall::Part& part = call->rows->parts[i];
    tables.push_back(part.table);
    if (part.batch) continue;
    const size_t of = next++;
    const absl::Span<const uint32_t> begin = begins[of];
    const uint32_t dim = tables_[part.table]->dim, most = MostKeysOfEntry(dim);
    const size_t row_bytes = dim * sizeof(float);
    const size_t sum_bytes = part.push != nullptr ? dim * SizeOf(options_.gradient_dtype) : 0;
    RowsPiece* piece = nullptr;
    for (uint32_t bucket = 0; bucket + 1 < begin.size(); ++bucket) {
      for (uint32_t first = begin[bucket]; first < begin[bucket + 1];
           first += std::min(most, begin[bucket + 1] - first)) {
        const uint32_t keys = std::min(most, begin[bucket + 1] - first);
        if (piece == nullptr || (piece->keys + keys) * (sizeof(uint64_t) + row_bytes) > kMaxRowsBytes) {
          piece = &pieces.emplace_back();
          *piece = {.item = i,
                    .part = of,
                    .number = static_cast<uint32_t>(pieces.size() - 1),
                    .first = first,
                    .first_entry = part.entries.size()};
          ++part.pieces_left;
        }
        part.entries.push_back({bucket, first, keys});
        piece->keys += keys;
        ++piece->entries;
        piece->written_bytes += keys * (sizeof(uint64_t) + sum_bytes);
        if (part.pull != nullptr) piece->pulled_bytes += keys * row_bytes;
      }
    }
  }
  call->rows->held = false;
  for (const uint32_t table : tables) SendRows(table, now);
  return pieces;
}

void ClientCore::OnRowsPiece(CallId id, const RowsPiece& piece, const wire::Frame& written, char* pull_to,
                             absl::Time now) {
  Call* const call = FindCall(id);
  if (call == nullptr || call->done || !call->rows) return;
  RowsCall::Part& part = call->rows->parts[piece.item];
  part.given.push_back({piece, written, pull_to});
  SendRows(part.table, now);
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
    RowsCall::Part& part = rows.parts[item];
    if (rows.held) break;
    if (part.batch) {
      AddRows(id, rows, item, /*late=*/true, now);
    } else {
      for (; !part.given.empty(); part.given.pop_front(), --part.pieces_left) {
        const RowsCall::Given& given = part.given.front();
        AddRowsPiece(call, item, given.piece, given.written, given.pull_to, now);
      }
      if (part.pieces_left > 0) break;
    }
    waiting.pop_front();
    PartDone(id, absl::OkStatus());
  }
  for (const uint32_t channel : touched_) FlushIfDue(*channels_[channel], now);
}

void ClientCore::AddRowsPiece(Call& call, size_t item, const RowsPiece& piece, const wire::Frame& written,
                              char* pull_to, absl::Time now) {
  const RowsCall::Part& part = call.rows->parts[item];
  TableState& table = *tables_[part.table];
  const size_t row_bytes = table.dim * sizeof(float);
  const bool pushes = part.push != nullptr;
  const DType gradient = pushes ? options_.gradient_dtype : DType::kF32;
  const char* from = written.data();
  for (size_t i = piece.first_entry; i < piece.first_entry + piece.entries; ++i) {
    const RowsCall::Entry& of = part.entries[i];
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
      pull_to += entry.pull_bytes;
    }
    const size_t bytes = of.keys * (sizeof(uint64_t) + (pushes ? table.dim * SizeOf(gradient) : 0));
    KeepTogether(channel, call.id);
    AddEntry(channel, entry, wire::Frame(from, bytes, written.owner()), now);
    from += bytes;
  }
}

}  // namespace basin
