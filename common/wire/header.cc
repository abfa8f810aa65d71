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
  Put<uint32_t>(out + 36, entry.rows);
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
  entry.rows = Get<uint32_t>(at + 36);
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
      "?",         "Hello",       "Welcome",     "Error",          "Declare",   "Declared",   "Install",
      "Installed", "Update",      "Updated",     "Step",           "NextInput", "InputPiece", "InputDone",
      "Barrier",   "Heartbeat",   "RunState",    "Finish",         "Goodbye",   "Stats",      "StatsText",
      "Evicted",   "EvictedKeys", "DeviceBlock", "DeviceBlockLent"};
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
  if (kind < 1 || kind > static_cast<uint16_t>(Kind::kDeviceBlockLent))
    return Malformed(absl::StrCat("unknown kind ", kind));
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
  const size_t entry_bytes = entries * kEntryBytes;
  if (entry_bytes > first.size() - kHeaderBytes || body_bytes != first.size() - kHeaderBytes - entry_bytes) {
    return Malformed(absl::StrCat(entries, " entries and a body of ", body_bytes, " bytes do not make a frame of ",
                                  first.size(), " bytes"));
  }
  if (Get<uint32_t>(at + 68) != 0) return Malformed("reserved header bytes are set");
  if (!IsData(parsed.header.kind)) {
    if (entries != 0 || message.frames.size() != 1) {
      return Malformed(absl::StrCat(Name(parsed.header.kind), " carries entries or payload frames"));
    }
    parsed.body = absl::string_view(at + kHeaderBytes, body_bytes);
    parsed.message = std::move(message);
    return parsed;
  }
  if (std::isinf(parsed.header.learning_rate) || parsed.header.learning_rate < 0) {
    return Malformed("the learning rate is negative or infinite");
  }
  parsed.entries.resize(entries);
  parsed.payloads.resize(entries);
  const size_t body_end = kHeaderBytes + body_bytes;
  size_t inline_at = kHeaderBytes;
  size_t frame_at = 0, in_frame = 0;  // the payload frame that the last entry used, and how far
  for (uint32_t i = 0; i < entries; ++i) {
    Entry& entry = parsed.entries[i];
    entry = GetEntry(at + body_end + i * kEntryBytes);
    if (entry.codec != Codec::kRaw) return Malformed("unknown codec; install the same Basin on both");
    if (entry.flags & kInline) {
      if (entry.bytes > body_end - inline_at) return Malformed("an inline payload ends after frame 0's body");
      parsed.payloads[i] = {at + inline_at, static_cast<size_t>(entry.bytes)};
      inline_at += entry.bytes;
    } else if (entry.bytes > 0) {
      if (!(entry.flags & kJoined)) {
        if (frame_at > 0 && in_frame != message.frames[frame_at].size())
          return Malformed("payload that no entry names");
        ++frame_at;
        in_frame = 0;
      }
      if (frame_at == 0 || frame_at >= message.frames.size()) return Malformed("an entry's payload frame is missing");
      const Frame& frame = message.frames[frame_at];
      if (entry.bytes > frame.size() - in_frame) {
        return Malformed(
            absl::StrCat("a payload frame has ", frame.size() - in_frame, " bytes left, its entry says ", entry.bytes));
      }
      parsed.payloads[i] = {frame.data() + in_frame, static_cast<size_t>(entry.bytes)};
      in_frame += entry.bytes;
    }
  }
  const size_t last_frame = message.frames.size() - 1;
  if (inline_at != body_end || frame_at != last_frame ||
      (frame_at > 0 && in_frame != message.frames[frame_at].size())) {
    return Malformed("payload that no entry names");
  }
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

bool DataBuilder::FitsInline(size_t bytes) const {
  return entries_.size() < kMaxEntries && (entries_.empty() || payload_bytes() + bytes <= kMessageBytes);
}

bool DataBuilder::Fits(size_t bytes) const { return FitsInline(bytes) && frames_.size() < kMaxPayloadFrames; }

// Twice as much where it does not suffice, so that bytes are moved once on average.
void DataBuilder::Grow(size_t bytes) {
  if (bytes <= capacity_) return;
  constexpr size_t kFirst = 512;
  const size_t capacity = std::max({kFirst, bytes, 2 * capacity_});
  auto grown = std::make_unique_for_overwrite<char[]>(capacity);
  if (inline_bytes_ > 0) std::memcpy(grown.get() + kHeaderBytes, frame0_.get() + kHeaderBytes, inline_bytes_);
  frame0_ = std::move(grown);
  capacity_ = capacity;
}

char* DataBuilder::AddInline(Entry entry, size_t bytes) {
  const size_t at = kHeaderBytes + inline_bytes_;
  // Room for the entries too, so that Build seldom grows it.
  Grow(at + bytes + (entries_.size() + 1) * kEntryBytes);
  entry.bytes = bytes;
  entry.flags |= kInline;
  entries_.push_back(entry);
  inline_bytes_ += bytes;
  return frame0_.get() + at;
}

void DataBuilder::Add(Entry entry, Frame payload) {
  if (!payload.empty() && payload.size() < inline_below_) {
    std::memcpy(AddInline(entry, payload.size()), payload.data(), payload.size());
    return;
  }
  entry.bytes = payload.size();
  if (!payload.empty()) {
    frame_bytes_ += payload.size();
    Frame* last = frames_.empty() ? nullptr : &frames_.back();
    if (last != nullptr && last->owner() == payload.owner() && last->data() + last->size() == payload.data() &&
        last->size() + payload.size() <= kMaxShardBytes && !(entries_.back().flags & kInline) &&
        entries_.back().bytes > 0) {
      entry.flags |= kJoined;
      *last = Frame(last->data(), last->size() + payload.size(), last->owner());
    } else {
      frames_.push_back(std::move(payload));
    }
  }
  entries_.push_back(entry);
}

Message DataBuilder::Build(const Header& header) && {
  Message message;
  message.frames.reserve(1 + frames_.size());
  const size_t body_end = kHeaderBytes + inline_bytes_;
  const size_t size = body_end + entries_.size() * kEntryBytes;
  Grow(size);
  char* const out = frame0_.get();
  PutHeader(out, header, static_cast<uint32_t>(entries_.size()), inline_bytes_);
  for (size_t i = 0; i < entries_.size(); ++i) PutEntry(out + body_end + i * kEntryBytes, entries_[i]);
  message.frames.emplace_back(out, size, std::shared_ptr<char[]>(std::move(frame0_)));
  for (Frame& frame : frames_) message.frames.push_back(std::move(frame));
  return message;
}

Message WithEntries(const Parsed& parsed, const std::vector<bool>& keep) {
  DataBuilder builder;
  size_t frame_at = 0;
  for (size_t i = 0; i < parsed.entries.size(); ++i) {
    Entry entry = parsed.entries[i];
    const bool framed = !(entry.flags & kInline) && entry.bytes > 0;
    if (framed && !(entry.flags & kJoined)) ++frame_at;
    if (!keep[i]) continue;
    const absl::Span<const char> payload = parsed.payloads[i];
    const bool is_inline = (entry.flags & kInline) != 0;
    entry.flags &= static_cast<uint16_t>(~(kInline | kJoined));
    if (is_inline && !payload.empty()) {
      std::memcpy(builder.AddInline(entry, payload.size()), payload.data(), payload.size());
    } else {
      const auto owner = framed ? parsed.message.frames[frame_at].owner() : nullptr;
      builder.Add(entry, Frame(payload.data(), payload.size(), owner));
    }
  }
  return std::move(builder).Build(parsed.header);
}

uint64_t RunHash(absl::string_view run_id) { return XXH64(run_id.data(), run_id.size(), /*seed=*/0); }

}  // namespace basin::wire
