// Pushes, pulls and assignments.
#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/wire/device_places.h"
#include "ps/gradient_view.h"
#include "ps/lane_core.h"
#include "ps/lane_rows.h"
#include "ps/run_spec.h"
#include "ps/shard.h"
#include "ps/shard_device.h"

namespace basin {
namespace {

wire::Entry AnswerTo(const wire::Entry& entry) {
  return {.shard = entry.shard, .dtype = entry.dtype, .sequence = entry.sequence};
}

LaneRows::Request RowsRequest(const Session& session, const wire::Header& header, const wire::Entry& entry,
                              absl::Span<const char> payload) {
  return {.entry = &entry,
          .payload = payload,
          .worker = session.worker(),
          .incarnation = header.incarnation,
          .learning_rate = header.learning_rate,
          .may_write = session.trains()};
}

}  // namespace

Shard* LaneCore::FindShard(ShardId id) { return id.value() < shards_.size() ? shards_[id.value()].get() : nullptr; }

size_t LaneCore::InlineBelow(wire::PeerId peer) const {
  return options_.inline_below ? options_.inline_below(peer) : kInlinePayloadBytes;
}

// What would make the whole message unanswerable; afterwards each entry stands for itself.
absl::Status LaneCore::CheckUpdate(wire::PeerId peer, const wire::Parsed& parsed) {
  const size_t inline_below = InlineBelow(peer);
  size_t frames = 0, inlined = 0;
  for (const wire::Entry& entry : parsed.entries) {
    if (!(entry.flags & wire::kPull) || (entry.flags & wire::kPlaced)) continue;
    if (IsBucket(entry.shard)) {
      inlined += rows_->AnswerBytes(entry);
      continue;
    }
    const Shard* shard = FindShard(entry.shard);
    if (shard == nullptr) continue;
    if (shard->bytes() >= inline_below) {
      ++frames;
    } else {
      inlined += shard->bytes();
    }
  }
  if (frames > kMaxPayloadFrames || inlined > kMessageBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the answer would have ", frames, " payload frames and ", inlined,
                                                   " inline bytes, at most ", kMaxPayloadFrames, " and ", kMessageBytes,
                                                   " fit one message; ask for fewer shards at once"));
  }
  return absl::OkStatus();
}

absl::Status LaneCore::CheckBlock() const {
  if (block_ != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(Me(), " has lent no device block to this client, or not on its newest channel"));
}

absl::StatusOr<LaneCore::Placed> LaneCore::FindPlaces(const wire::Entry& entry, absl::Span<const char> payload,
                                                      const Shard& shard) const {
  BASIN_RETURN_IF_ERROR(CheckBlock());
  const size_t written = shard.elements() * SizeOf(static_cast<DType>(entry.dtype));
  BASIN_ASSIGN_OR_RETURN(const wire::DevicePlaces places,
                         wire::ReadPlaces(entry.flags, payload, written, shard.bytes(), block_->bytes()));
  return Placed{.written = {block_->data() + places.written, written}, .pulled = block_->data() + places.pulled};
}

absl::Status LaneCore::Carry(const Session& session, const wire::Header& header, const wire::Entry& entry,
                             absl::Span<const char> payload, Carried& carried) {
  carried.answer = AnswerTo(entry);
  Shard* const shard = FindShard(entry.shard);
  if (shard == nullptr) return absl::InvalidArgumentError(absl::StrCat(Me(), " has no shard ", entry.shard.value()));
  carried.answer.version = shard->version();
  const uint16_t wanted = entry.flags & (wire::kPush | wire::kPull | wire::kAssign);
  const bool writes = (wanted & (wire::kPush | wire::kAssign)) != 0;
  if (wanted == 0 || entry.flags != (wanted | (entry.flags & (wire::kInline | wire::kJoined | wire::kPlaced))) ||
      (wanted & (wire::kPush | wire::kAssign)) == (wire::kPush | wire::kAssign)) {
    return absl::InvalidArgumentError(absl::StrCat("flags ", entry.flags, " make no request"));
  }
  // A gradient may come in 16 bits; what is pulled has the variable's type, whatever the payload's.
  const std::optional<DType> gradient = (wanted & wire::kPush) ? GradientType(entry.dtype) : std::nullopt;
  if (!gradient && entry.dtype != shard->variable().dtype()) {
    const absl::string_view expected =
        (wanted & wire::kPush) ? kGradientTypes : Name(static_cast<DType>(shard->variable().dtype()));
    return absl::InvalidArgumentError(absl::StrCat((wanted & wire::kPush)     ? "push to "
                                                   : (wanted & wire::kAssign) ? "assignment of "
                                                                              : "pull of ",
                                                   "\"", shard->variable().name(), "\": ", DTypeInWords(entry.dtype),
                                                   ", expected ", expected));
  }
  carried.answer.dtype = static_cast<uint8_t>(shard->variable().dtype());
  const bool is_placed = (entry.flags & wire::kPlaced) != 0;
  Placed placed{.written = payload};
  if (is_placed) {
    BASIN_ASSIGN_OR_RETURN(placed, FindPlaces(entry, payload, *shard));
  }
  if (!writes && (entry.sequence.value() != 0 || (!payload.empty() && !is_placed)))
    return absl::InvalidArgumentError("a pull has neither sequence nor payload");
  if (writes) {
    if (!session.trains())
      return absl::PermissionDeniedError(absl::StrCat(Sentence(session.role, session.index), " only reads"));
    BASIN_ASSIGN_OR_RETURN(carried.begun,
                           shard->Begin((wanted & wire::kPush) ? Shard::Change::kPush : Shard::Change::kAssign,
                                        {.worker = session.worker(),
                                         .incarnation = header.incarnation,
                                         .sequence = entry.sequence,
                                         .pulled = entry.version,
                                         .learning_rate = header.learning_rate,
                                         .dtype = gradient.value_or(DType::kF32),
                                         .payload = placed.written,
                                         .on_device = is_placed}));
    if (carried.begun && is_placed) counters_->ipc_bytes_in.Add(placed.written.size());
    if (!carried.begun) {
      carried.answer.flags |= wire::kRepeat;
      counters_->repeats.Add();
    } else if (!options_.device) {
      BASIN_RETURN_IF_ERROR(EndWrite(entry, *shard, carried));
    }
  }
  if (wanted & wire::kPull) {
    absl::StatusOr<wire::Frame> pulled = wire::Frame();
    if (is_placed) {
      if (absl::Status read = shard->ReadOnDevice(placed.pulled); !read.ok()) pulled = std::move(read);
    } else {
      pulled = shard->Read();
    }
    // The entry's write is not refused with its pull: the client counts on it, and pulls again.
    if (!pulled.ok() && writes) return absl::UnavailableError(pulled.status().message());
    if (!pulled.ok()) return pulled.status();
    carried.pulled = *std::move(pulled);
    carried.answer.flags |= static_cast<uint16_t>(wire::kPull | (entry.flags & wire::kPlaced));
    if (is_placed) counters_->ipc_bytes_out.Add(shard->bytes());
  }
  return absl::OkStatus();
}

absl::Status LaneCore::EndWrite(const wire::Entry& entry, Shard& shard, Carried& carried) {
  carried.begun = false;
  const absl::StatusOr<Shard::Written> written = shard.End();
  if (!written.ok()) return written.status();
  carried.answer.version = shard.version();
  counters_->applied.Add();
  if ((entry.flags & wire::kPush) && options_.on_staleness) options_.on_staleness(written->staleness);
  return absl::OkStatus();
}

std::vector<LaneCore::Carried> LaneCore::CarryOnDevice(const Session& session, const wire::Parsed& parsed,
                                                       absl::Time now) {
  options_.device->StartMessage();
  std::vector<Carried> all(parsed.entries.size());
  size_t ended = 0;  // of the entries
  const auto end = [&](const wire::Entry& entry, Carried& carried, const absl::Status& ran) {
    if (!carried.begun) return ran;
    if (!IsBucket(entry.shard)) return EndWrite(entry, *FindShard(entry.shard), carried);
    return ran.ok() ? EndRows(session, parsed.header, entry, now, carried) : ran;
  };
  const auto end_until = [&](size_t until) {
    const absl::Status ran = options_.device->Run();
    if (!ran.ok()) failure_ = ran;
    for (; ended < until; ++ended) {
      Carried& carried = all[ended];
      const bool begun = carried.begun;
      absl::Status status = end(parsed.entries[ended], carried, ran);
      // What became of the write counts for more than that its pull was refused.
      if (status.ok() || (!begun && !carried.status.ok())) continue;
      carried.status = std::move(status);
      carried.answer.flags &= static_cast<uint16_t>(~(wire::kPull | wire::kPlaced));
      carried.pulled = wire::Frame();
    }
    rows_->AllEnded();
  };
  for (size_t i = 0; i < all.size(); ++i) {
    const wire::Entry& entry = parsed.entries[i];
    const absl::Span<const char> payload = parsed.payloads[i];
    if (IsBucket(entry.shard)) {
      if (!rows_->OnDevice(entry.shard)) continue;
      if (rows_->HasBegun(entry.shard)) end_until(i);
      all[i].status = BeginRows(session, parsed.header, entry, payload, now, all[i]);
      continue;
    }
    // Where a shard stands again, the record must say what became of the first write.
    if (const Shard* shard = FindShard(entry.shard); shard != nullptr && shard->changing()) end_until(i);
    all[i].status = Carry(session, parsed.header, entry, payload, all[i]);
  }
  end_until(all.size());
  return all;
}

void LaneCore::CountWrite(bool repeat, bool applied, uint64_t staleness, wire::Entry& answer) {
  if (repeat) {
    answer.flags |= wire::kRepeat;
    counters_->repeats.Add();
  } else if (applied) {
    counters_->applied.Add();
    if (options_.on_staleness) options_.on_staleness(staleness);
  }
}

absl::Status LaneCore::CarryRows(const Session& session, const wire::Header& header, const wire::Entry& entry,
                                 absl::Span<const char> payload, absl::Time now, wire::Entry& answer) {
  BASIN_ASSIGN_OR_RETURN(const LaneRows::Written written,
                         rows_->Carry(RowsRequest(session, header, entry, payload), now, answer));
  CountWrite(written.repeat, written.applied, written.staleness, answer);
  if (entry.flags & wire::kPull) answer.flags |= wire::kPull;
  return absl::OkStatus();
}

absl::Status LaneCore::BeginRows(const Session& session, const wire::Header& header, const wire::Entry& entry,
                                 absl::Span<const char> payload, absl::Time now, Carried& carried) {
  carried.answer = AnswerTo(entry);
  if (entry.flags & wire::kPlaced) BASIN_RETURN_IF_ERROR(CheckBlock());
  LaneRows::Request request = RowsRequest(session, header, entry, payload);
  request.block = block_.get();
  BASIN_ASSIGN_OR_RETURN(const LaneRows::Begun begun, rows_->Begin(request, now, carried.answer));
  carried.begun = begun.writes;
  carried.rows = begun.rows;
  counters_->ipc_bytes_in.Add(begun.placed_in);
  counters_->ipc_bytes_out.Add(begun.placed_out);
  CountWrite(begun.repeat, /*applied=*/false, 0, carried.answer);
  if (entry.flags & wire::kPull) carried.answer.flags |= entry.flags & (wire::kPull | wire::kPlaced);
  return absl::OkStatus();
}

absl::Status LaneCore::EndRows(const Session& session, const wire::Header& header, const wire::Entry& entry,
                               absl::Time now, Carried& carried) {
  carried.begun = false;
  BASIN_ASSIGN_OR_RETURN(const LaneRows::Written written,
                         rows_->End(RowsRequest(session, header, entry, {}), now, carried.answer));
  CountWrite(written.repeat, written.applied, written.staleness, carried.answer);
  return absl::OkStatus();
}

void LaneCore::OnUpdate(const Session& session, const wire::Parsed& parsed, absl::Time now) {
  if (!session.knows_all_ps) {
    return Refuse(session.peer, parsed.header.request,
                  absl::FailedPreconditionError("this client does not know every ps; give it all their addresses"));
  }
  if (absl::Status status = CheckUpdate(session.peer, parsed); !status.ok())
    return Refuse(session.peer, parsed.header.request, status);
  // A message of an older channel was given up by its client, which may use the places for something else by now.
  const auto is_placed = [](const wire::Entry& entry) { return (entry.flags & wire::kPlaced) != 0; };
  if (std::any_of(parsed.entries.begin(), parsed.entries.end(), is_placed) && sessions_.IsNewest(session))
    block_ = blocks_.Of(session);
  wire::DataBuilder builder(InlineBelow(session.peer));
  builder.Reserve(parsed.entries.size());
  std::vector<Carried> on_device;
  if (options_.device) on_device = CarryOnDevice(session, parsed, now);
  for (size_t i = 0; i < parsed.entries.size(); ++i) {
    const wire::Entry& entry = parsed.entries[i];
    const absl::Span<const char> payload = parsed.payloads[i];
    if (i + 1 < parsed.entries.size() && IsBucket(parsed.entries[i + 1].shard))
      rows_->Prefetch(parsed.entries[i + 1], parsed.payloads[i + 1]);
    const bool is_bucket = IsBucket(entry.shard);
    Carried carried;
    if (is_bucket && !rows_->OnDevice(entry.shard)) {
      carried.answer = AnswerTo(entry);
      carried.status = CarryRows(session, parsed.header, entry, payload, now, carried.answer);
    } else if (options_.device) {
      carried = std::move(on_device[i]);
    } else {
      carried.status = Carry(session, parsed.header, entry, payload, carried);
    }
    const absl::Status& status = carried.status;
    carried.answer.code = static_cast<int32_t>(status.code());
    if (!status.ok() && status.code() != absl::StatusCode::kUnavailable) {
      counters_->refused.Add();
      if (refusals_noted_ < kMaxRefusalsNoted) {
        Note(absl::StrCat(
            "refused an update by ", Sentence(session.role, session.index), ": ", status.message(),
            ++refusals_noted_ == kMaxRefusalsNoted ? " (further refusals are counted and not shown)" : ""));
      }
    }
    const bool pulled = (carried.answer.flags & wire::kPull) != 0;
    if (pulled) counters_->pulled.Add();
    const bool is_placed = (carried.answer.flags & wire::kPlaced) != 0;
    if (carried.rows != nullptr && pulled) {
      const size_t bytes = rows_->AnswerBytes(entry);
      std::memcpy(builder.AddInline(carried.answer, bytes), carried.rows, bytes);
    } else if (is_bucket && pulled && !is_placed) {
      rows_->Read(entry, payload, builder.AddInline(carried.answer, rows_->AnswerBytes(entry)));
    } else {
      builder.Add(carried.answer, std::move(carried.pulled));
    }
  }
  block_.reset();
  rows_->Count();
  SendMessage(session.peer,
              std::move(builder).Build(HeaderFor(session.peer, wire::Kind::kUpdated, parsed.header.request)));
}

}  // namespace basin
