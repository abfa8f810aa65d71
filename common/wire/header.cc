#include "common/wire/header.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "xxhash.h"

namespace basin::wire {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "big-endian hosts would need byte swaps here");

template <class T>
void Put(char* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}
template <class T>
T Get(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

void PutHeader(char* out, const Header& header, uint32_t entries, uint64_t body_bytes) {
  Put<uint32_t>(out, kMagic);
  Put<uint16_t>(out + 4, kProtocolVersion);
  Put<uint16_t>(out + 6, static_cast<uint16_t>(header.kind));
  Put<uint64_t>(out + 8, header.request);
  Put<uint64_t>(out + 16, header.run);
  Put<uint64_t>(out + 24, header.ps_incarnation);
  Put<uint64_t>(out + 32, header.incarnation.value());
  Put<uint64_t>(out + 40, header.view.value());
  Put<uint64_t>(out + 48, header.clock.value());
  Put<float>(out + 56, header.learning_rate);
  Put<uint32_t>(out + 60, entries);
  Put<uint32_t>(out + 64, header.worker);
  Put<uint32_t>(out + 68, 0);
  Put<uint64_t>(out + 72, body_bytes);
}

void PutEntry(char* out, const Entry& entry) {
  Put<uint32_t>(out, entry.shard.value());
  Put<uint8_t>(out + 4, static_cast<uint8_t>(entry.codec));
  Put<uint8_t>(out + 5, entry.dtype);
  Put<uint16_t>(out + 6, entry.flags);
  Put<uint64_t>(out + 8, entry.sequence.value());
  Put<uint64_t>(out + 16, entry.version.value());
  Put<uint64_t>(out + 24, entry.bytes);
  Put<int32_t>(out + 32, entry.code);
  Put<uint32_t>(out + 36, 0);
}

Entry GetEntry(const char* at) {
  Entry entry;
  entry.shard = ShardId(Get<uint32_t>(at));
  entry.codec = static_cast<Codec>(Get<uint8_t>(at + 4));
  entry.dtype = Get<uint8_t>(at + 5);
  entry.flags = Get<uint16_t>(at + 6);
  entry.sequence = Sequence(Get<uint64_t>(at + 8));
  entry.version = Version(Get<uint64_t>(at + 16));
  entry.bytes = Get<uint64_t>(at + 24);
  entry.code = Get<int32_t>(at + 32);
  return entry;
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed message: ", what));
}

bool IsData(Kind kind) { return kind == Kind::kUpdate || kind == Kind::kUpdated; }

}  // namespace

Frame Frame::Copy(absl::string_view bytes) {
  return Make(bytes.size(), [&](char* out) {
    if (!bytes.empty()) std::memcpy(out, bytes.data(), bytes.size());
  });
}

absl::string_view Name(Kind kind) {
  static constexpr absl::string_view kNames[] = {
      "?",         "Hello",     "Welcome",  "Error",  "Declare",   "Declared",   "Install",
      "Installed", "Update",    "Updated",  "Step",   "NextInput", "InputPiece", "InputDone",
      "Barrier",   "Heartbeat", "RunState", "Finish", "Goodbye",   "Stats",      "StatsText"};
  const auto at = static_cast<size_t>(kind);
  return at < std::size(kNames) ? kNames[at] : kNames[0];
}

absl::StatusOr<Parsed> Parse(Message message) {
  if (message.frames.empty()) return Malformed("no frame");
  if (message.frames.size() > kMaxFrames) {
    return Malformed(absl::StrCat(message.frames.size(), " frames, at most ", kMaxFrames, " are allowed"));
  }
  const Frame& first = message.frames[0];
  if (first.size() < kHeaderBytes) {
    return Malformed(absl::StrCat("frame 0 has ", first.size(), " bytes, a header has ", kHeaderBytes));
  }
  for (const Frame& frame : message.frames) {
    if (frame.size() > kMaxFrameBytes) {
      return Malformed(absl::StrCat("a frame of ", frame.size(), " bytes, at most ", kMaxFrameBytes, " are allowed"));
    }
  }
  const char* at = first.data();
  if (Get<uint32_t>(at) != kMagic) return Malformed("not Basin's magic number; is the peer another program?");
  if (const auto version = Get<uint16_t>(at + 4); version != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat("the peer speaks protocol version ", version, ", this program ",
                                                      kProtocolVersion, "; install the same Basin on both"));
  }
  Parsed parsed;
  const auto kind = Get<uint16_t>(at + 6);
  if (kind < 1 || kind > static_cast<uint16_t>(Kind::kStatsText)) return Malformed(absl::StrCat("unknown kind ", kind));
  parsed.header = {.kind = static_cast<Kind>(kind),
                   .request = Get<uint64_t>(at + 8),
                   .run = Get<uint64_t>(at + 16),
                   .ps_incarnation = Get<uint64_t>(at + 24),
                   .incarnation = Incarnation(Get<uint64_t>(at + 32)),
                   .view = View(Get<uint64_t>(at + 40)),
                   .clock = StepClock(Get<uint64_t>(at + 48)),
                   .learning_rate = Get<float>(at + 56),
                   .worker = Get<uint32_t>(at + 64)};
  const auto entries = Get<uint32_t>(at + 60);
  const auto body_bytes = Get<uint64_t>(at + 72);
  if (entries > kMaxEntries) return Malformed(absl::StrCat(entries, " entries, at most ", kMaxEntries, " are allowed"));
  const size_t entries_end = kHeaderBytes + entries * kEntryBytes;
  if (entries_end > first.size() || body_bytes != first.size() - entries_end) {
    return Malformed(absl::StrCat(entries, " entries and a body of ", body_bytes, " bytes do not make a frame of ",
                                  first.size(), " bytes"));
  }
  if (Get<uint32_t>(at + 68) != 0) return Malformed("reserved header bytes are set");
  if (!IsData(parsed.header.kind)) {
    if (entries != 0 || message.frames.size() != 1) {
      return Malformed(absl::StrCat(Name(parsed.header.kind), " carries entries or payload frames"));
    }
    parsed.body = absl::string_view(at + entries_end, body_bytes);
    parsed.message = std::move(message);
    return parsed;
  }
  if (std::isinf(parsed.header.learning_rate) || parsed.header.learning_rate < 0) {
    return Malformed("the learning rate is negative or infinite");
  }
  parsed.entries.reserve(entries);
  parsed.payloads.reserve(entries);
  size_t inline_at = entries_end;
  size_t frame_at = 1;
  for (uint32_t i = 0; i < entries; ++i) {
    const Entry entry = GetEntry(at + kHeaderBytes + i * kEntryBytes);
    if (entry.codec != Codec::kRaw) return Malformed("unknown codec; install the same Basin on both");
    absl::Span<const char> payload;
    if (entry.flags & kInline) {
      if (entry.bytes > first.size() - inline_at) return Malformed("an inline payload ends after frame 0");
      payload = {at + inline_at, static_cast<size_t>(entry.bytes)};
      inline_at += entry.bytes;
    } else if (entry.bytes > 0) {
      if (frame_at >= message.frames.size()) return Malformed("an entry's payload frame is missing");
      const Frame& frame = message.frames[frame_at++];
      if (frame.size() != entry.bytes) {
        return Malformed(absl::StrCat("a payload frame has ", frame.size(), " bytes, its entry says ", entry.bytes));
      }
      payload = {frame.data(), frame.size()};
    }
    parsed.entries.push_back(entry);
    parsed.payloads.push_back(payload);
  }
  if (inline_at != first.size() || frame_at != message.frames.size()) return Malformed("payload that no entry names");
  parsed.message = std::move(message);
  return parsed;
}

Message MakeControl(const Header& header, absl::string_view body) {
  Message message;
  message.frames.push_back(Frame::Make(kHeaderBytes + body.size(), [&](char* out) {
    PutHeader(out, header, 0, body.size());
    if (!body.empty()) std::memcpy(out + kHeaderBytes, body.data(), body.size());
  }));
  return message;
}

bool DataBuilder::Fits(size_t bytes) const {
  if (entries_.size() >= kMaxEntries) return false;
  if (bytes >= kInlinePayloadBytes) return frames_.size() < kMaxPayloadFrames;
  return inline_bytes_ + bytes <= kGatherBytes;
}

void DataBuilder::Add(Entry entry, Frame payload) {
  entry.bytes = payload.size();
  if (payload.size() >= kInlinePayloadBytes) {
    frames_.push_back(std::move(payload));
  } else if (!payload.empty()) {
    // Alignment of inline payloads is the receiver's business: shards' payloads are multiples of the element's size,
    // and the receiver copies before it computes where the alignment does not suit it.
    entry.flags |= kInline;
    inline_bytes_ += payload.size();
    inline_.push_back(std::move(payload));
  }
  entries_.push_back(entry);
}

Message DataBuilder::Build(const Header& header) && {
  Message message;
  message.frames.reserve(1 + frames_.size());
  const size_t entries_end = kHeaderBytes + entries_.size() * kEntryBytes;
  message.frames.push_back(Frame::Make(entries_end + inline_bytes_, [&](char* out) {
    PutHeader(out, header, static_cast<uint32_t>(entries_.size()), inline_bytes_);
    char* at = out + kHeaderBytes;
    for (const Entry& entry : entries_) {
      PutEntry(at, entry);
      at += kEntryBytes;
    }
    for (const Frame& payload : inline_) {
      std::memcpy(at, payload.data(), payload.size());
      at += payload.size();
    }
  }));
  for (Frame& frame : frames_) message.frames.push_back(std::move(frame));
  return message;
}

uint64_t RunHash(absl::string_view run_id) { return XXH64(run_id.data(), run_id.size(), /*seed=*/0); }

}  // namespace basin::wire
