// Pushes, pulls and assignments.
#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "ps/lane_core.h"
#include "ps/lane_rows.h"
#include "ps/run_spec.h"
#include "ps/shard.h"

namespace basin {

Shard* LaneCore::FindShard(ShardId id) { return id.value() < shards_.size() ? shards_[id.value()].get() : nullptr; }

size_t LaneCore::InlineBelow(wire::PeerId peer) const {
  return options_.inline_below ? options_.inline_below(peer) : kInlinePayloadBytes;
}

// What would make the whole message unanswerable; afterwards each entry stands for itself.
absl::Status LaneCore::CheckUpdate(wire::PeerId peer, const wire::Parsed& parsed) {
  const size_t inline_below = InlineBelow(peer);
  size_t frames = 0, inlined = 0;
  for (const wire::Entry& entry : parsed.entries) {
    if (!(entry.flags & wire::kPull)) continue;
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

absl::Status LaneCore::Carry(const Session& session, const wire::Header& header, const wire::Entry& entry,
                             absl::Span<const char> payload, wire::Entry& answer, wire::Frame& pulled) {
  Shard* shard = FindShard(entry.shard);
  if (shard == nullptr) return absl::InvalidArgumentError(absl::StrCat(Me(), " has no shard ", entry.shard.value()));
  answer.version = shard->version();
  const uint16_t wanted = entry.flags & (wire::kPush | wire::kPull | wire::kAssign);
  const bool writes = (wanted & (wire::kPush | wire::kAssign)) != 0;
  if (wanted == 0 || entry.flags != (wanted | (entry.flags & (wire::kInline | wire::kJoined))) ||
      (wanted & (wire::kPush | wire::kAssign)) == (wire::kPush | wire::kAssign)) {
    return absl::InvalidArgumentError(absl::StrCat("flags ", entry.flags, " make no request"));
  }
  if (entry.dtype != shard->variable().dtype()) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype ", entry.dtype, ", the variable has ", shard->variable().dtype()));
  }
  if (!writes && (entry.sequence.value() != 0 || !payload.empty()))
    return absl::InvalidArgumentError("a pull has neither sequence nor payload");
  if (writes) {
    if (!session.trains())
      return absl::PermissionDeniedError(absl::StrCat(Sentence(session.role, session.index), " only reads"));
    const Shard::Write write{.worker = session.worker(),
                             .incarnation = header.incarnation,
                             .sequence = entry.sequence,
                             .pulled = entry.version,
                             .learning_rate = header.learning_rate,
                             .payload = payload};
    absl::StatusOr<Shard::Written> written = (wanted & wire::kPush) ? shard->Apply(write) : shard->Assign(write);
    answer.version = shard->version();
    BASIN_RETURN_IF_ERROR(written.status());
    if (written->repeat) {
      answer.flags |= wire::kRepeat;
      counters_->repeats.Add();
    } else {
      counters_->applied.Add();
      if ((wanted & wire::kPush) && options_.on_staleness) options_.on_staleness(written->staleness);
    }
  }
  if (wanted & wire::kPull) {
    BASIN_ASSIGN_OR_RETURN(pulled, shard->Read());
    answer.flags |= wire::kPull;
    counters_->pulled.Add();
  }
  return absl::OkStatus();
}

absl::Status LaneCore::CarryRows(const Session& session, const wire::Header& header, const wire::Entry& entry,
                                 absl::Span<const char> payload, absl::Time now, wire::Entry& answer) {
  BASIN_ASSIGN_OR_RETURN(const LaneRows::Written written, rows_->Carry({.entry = &entry,
                                                                        .payload = payload,
                                                                        .worker = session.worker(),
                                                                        .incarnation = header.incarnation,
                                                                        .learning_rate = header.learning_rate,
                                                                        .may_write = session.trains()},
                                                                       now, answer));
  if (written.repeat) {
    answer.flags |= wire::kRepeat;
    counters_->repeats.Add();
  } else if (written.applied) {
    counters_->applied.Add();
    if (options_.on_staleness) options_.on_staleness(written.staleness);
  }
  if (entry.flags & wire::kPull) {
    answer.flags |= wire::kPull;
    counters_->pulled.Add();
  }
  return absl::OkStatus();
}

void LaneCore::OnUpdate(const Session& session, const wire::Parsed& parsed, absl::Time now) {
  if (!session.knows_all_ps) {
    return Refuse(session.peer, parsed.header.request,
                  absl::FailedPreconditionError("this client does not know every ps; give it all their addresses"));
  }
  if (absl::Status status = CheckUpdate(session.peer, parsed); !status.ok())
    return Refuse(session.peer, parsed.header.request, status);
  wire::DataBuilder builder(InlineBelow(session.peer));
  builder.Reserve(parsed.entries.size());
  for (size_t i = 0; i < parsed.entries.size(); ++i) {
    const wire::Entry& entry = parsed.entries[i];
    wire::Entry answer{.shard = entry.shard, .dtype = entry.dtype, .sequence = entry.sequence};
    wire::Frame pulled;
    const bool is_bucket = IsBucket(entry.shard);
    if (i + 1 < parsed.entries.size() && IsBucket(parsed.entries[i + 1].shard))
      rows_->Prefetch(parsed.entries[i + 1], parsed.payloads[i + 1]);
    const absl::Status status = is_bucket ? CarryRows(session, parsed.header, entry, parsed.payloads[i], now, answer)
                                          : Carry(session, parsed.header, entry, parsed.payloads[i], answer, pulled);
    answer.code = static_cast<int32_t>(status.code());
    if (!status.ok() && status.code() != absl::StatusCode::kUnavailable) {
      counters_->refused.Add();
      if (refusals_noted_ < kMaxRefusalsNoted) {
        Note(absl::StrCat(
            "refused an update by ", Sentence(session.role, session.index), ": ", status.message(),
            ++refusals_noted_ == kMaxRefusalsNoted ? " (further refusals are counted and not shown)" : ""));
      }
    }
    if (is_bucket && (answer.flags & wire::kPull)) {
      rows_->Read(entry, parsed.payloads[i], builder.AddInline(answer, rows_->AnswerBytes(entry)));
    } else {
      builder.Add(answer, std::move(pulled));
    }
  }
  rows_->Count();
  SendMessage(session.peer,
              std::move(builder).Build(HeaderFor(session.peer, wire::Kind::kUpdated, parsed.header.request)));
}

}  // namespace basin
