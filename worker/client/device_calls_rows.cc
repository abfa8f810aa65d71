// DeviceCalls: calls over rows of tables.
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/client/device_calls.h"
#include "worker/client/half_overflow.h"

namespace basin {
namespace {

// Of a sum that cannot be sent; as RowBatch::FindNotFinite says it, but for the place.
absl::Status CannotSend(const DeviceUpdate::Rows& rows, const DeviceRows::Unsendable& sum) {
  return absl::InvalidArgumentError(absl::StrCat("table \"", rows.table, "\": ",
                                                 std::isnan(sum.value)   ? "NaN"
                                                 : std::isinf(sum.value) ? "Inf"
                                                                         : TooLargeFor(rows.sent_as, sum.value),
                                                 " in the sum of the gradients of key ", sum.key, ", column ",
                                                 sum.column, "; nothing of this call was sent"));
}

}  // namespace

DeviceCalls::Outcome DeviceCalls::StartRowsWork(ClientCore& core, const Queued& queued, Call& call, absl::Time now) {
  if (queued.work == Work::kReduce) {
    call.update.rows[queued.number].there->Reduce(call.update.after, Begin(call, queued));
    return Outcome::kStarted;
  }
  if (queued.work == Work::kCut) {
    // What stands behind takes no staging before this call's pieces have theirs: else it could hold all of it and wait
    // for a stream that waits for this call.
    if (call.unreduced > 0) return Outcome::kNotReady;
    if (!call.refused) CutRows(core, queued.call, call, now);
    return Outcome::kStarted;
  }
  return call.refused || StartRowsPiece(queued, call) ? Outcome::kStarted : Outcome::kStarved;
}

void DeviceCalls::CutRows(ClientCore& core, CallId id, Call& call, absl::Time now) {
  std::vector<absl::Span<const uint32_t>> begins;
  for (const DeviceUpdate::Rows& rows : call.update.rows) begins.push_back(rows.there->bucket_begin());
  std::vector<Queued> pieces;
  const int device = call.update.device;
  const RowsCut cut = core.CutRows(
      id, begins, [&](uint32_t channel) { return BlockOf(channel, device) != nullptr; }, now);
  for (size_t i = 0; i < cut.spans.size(); ++i) {
    if (!cut.spans[i].empty()) call.update.rows[i].there->SetSpans(cut.spans[i]);
  }
  for (const RowsPiece& piece : cut.pieces) {
    ++call.parts[piece.part].left;
    pieces.push_back({id, Work::kRowsOut, piece.number});
    call.row_pieces.push_back({.of = piece});
  }
  // In this one's place, which is first.
  queue_.insert(queue_.begin() + 1, pieces.begin(), pieces.end());
  for (uint32_t i = 0; i < call.parts.size(); ++i) {
    if (call.parts[i].left == 0) Spread(id, call, i);
  }
}

bool DeviceCalls::StartRowsPiece(const Queued& queued, Call& call) {
  RowsOfPiece& piece = call.row_pieces[queued.number];
  const RowsPiece& of = piece.of;
  // All or none, as for variables.
  std::shared_ptr<Staging> block = of.is_placed ? BlockOf(of.channel, call.update.device) : nullptr;
  Staging& staging = block != nullptr ? *block : *staging_;
  std::shared_ptr<char> keys, out, in;
  if (of.is_placed && (keys = staging_->Take(of.key_bytes())) == nullptr) return false;
  const size_t out_bytes = of.sum_bytes + (of.is_placed ? 0 : of.key_bytes());
  if (out_bytes > 0 && (out = staging.Take(out_bytes)) == nullptr) return false;
  if (of.pulled_bytes > 0 && (in = staging.Take(of.pulled_bytes)) == nullptr) return false;
  piece.block = std::move(block);
  piece.keys = std::move(keys);
  piece.out = std::move(out);
  piece.in = std::move(in);
  DeviceRows& there = *call.update.rows[of.part].there;
  if (of.is_placed) {
    there.PlaceOut({of.first_entry, of.entries, of.keys}, piece.keys.get(), piece.out.get(), Begin(call, queued));
  } else {
    there.PackOut(of.first, of.keys, piece.out.get(), Begin(call, queued));
  }
  return true;
}

void DeviceCalls::Spread(CallId id, Call& call, uint32_t part) {
  if (call.update.rows[part].pulls) call.update.rows[part].there->Spread(Begin(call, {id, Work::kSpread, part}));
}

// ---- What has ended ----

void DeviceCalls::OnRowsWork(ClientCore& core, const Ended& ended, Call& call, absl::Time now) {
  const CallId id = ended.what.call;
  if (ended.what.work == Work::kReduce) return OnReduced(core, ended, call, now);
  if (ended.what.work == Work::kSpread) return core.AddError(id, ended.status);
  RowsOfPiece& piece = call.row_pieces[ended.what.number];
  if (ended.what.work == Work::kRowsIn) {
    piece.in.reset();
    if (!ended.status.ok()) return core.AddError(id, ended.status);
    if (--call.parts[piece.of.part].left == 0) Spread(id, call, static_cast<uint32_t>(piece.of.part));
    return;
  }
  if (!ended.status.ok() || call.refused) {
    piece.keys = piece.out = piece.in = nullptr;
    return RefuseRows(core, id, call, ended.status, now);
  }
  SendRows(core, id, piece, now);
}

void DeviceCalls::SendRows(ClientCore& core, CallId id, RowsOfPiece& piece, absl::Time now) {
  const RowsPiece& of = piece.of;
  if (of.is_placed) {
    const wire::DevicePlaces places{.written = piece.block->OffsetOf(piece.out.get()),
                                    .pulled = piece.block->OffsetOf(piece.in.get())};
    return core.OnPlacedRows(id, of, Lend(std::move(piece.keys), of.key_bytes()), places, now);
  }
  core.OnRowsPiece(id, of, Lend(std::move(piece.out), of.key_bytes() + of.sum_bytes), piece.in.get(), now);
}

void DeviceCalls::OnReduced(ClientCore& core, const Ended& ended, Call& call, absl::Time now) {
  --call.unreduced;
  call.passed = call.passed || ended.status.ok();
  const DeviceUpdate::Rows& rows = call.update.rows[ended.what.number];
  absl::Status status = ended.status;
  if (const auto* sum = status.ok() ? rows.there->unsendable() : nullptr; sum != nullptr)
    status = CannotSend(rows, *sum);
  if (!status.ok()) RefuseRows(core, ended.what.call, call, status, now);
}

void DeviceCalls::RefuseRows(ClientCore& core, CallId id, Call& call, const absl::Status& status, absl::Time now) {
  if (!std::exchange(call.refused, true)) core.OnRowsFailed(id, status, now);
}

void DeviceCalls::OnRowsLanded(CallId id, Call& call, const ClientCore::Landed& landed) {
  RowsOfPiece& piece = call.row_pieces[landed.piece];
  const RowsPiece& of = piece.of;
  piece.refused = piece.refused || !landed.pulled;
  if (++piece.landed < of.entries) return;
  if (of.is_placed) piece.out.reset();  // the host's are held by messages
  if (piece.in != nullptr && piece.refused) piece.in.reset();
  if (piece.in == nullptr) return;
  DeviceRows& there = *call.update.rows[of.part].there;
  const DeviceCopies::Done done = Begin(call, {id, Work::kRowsIn, landed.piece});
  if (of.is_placed) {
    there.PlacedIn({of.first_entry, of.entries, of.keys}, piece.in.get(), done);
  } else {
    there.RowsIn(of.first, of.keys, piece.in.get(), done);
  }
}

}  // namespace basin
