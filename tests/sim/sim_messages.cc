#include "tests/sim/sim_messages.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "cluster_spec/table_placement.h"
#include "common/base/random.h"
#include "common/wire/header.h"

namespace basin::sim {

wire::Message Poisoned(wire::Message message) {
  const absl::StatusOr<wire::Parsed> parsed = wire::Parse(std::move(message));
  if (parsed->header.kind != wire::Kind::kUpdate || !(parsed->entries[0].flags & wire::kPush)) return parsed->message;
  wire::DataBuilder builder;
  for (size_t i = 0; i < parsed->entries.size(); ++i) {
    wire::Entry entry = parsed->entries[i];
    entry.flags &= static_cast<uint16_t>(~(wire::kInline | wire::kJoined));
    const absl::Span<const char> payload = parsed->payloads[i];
    if (!(entry.flags & wire::kPush)) {
      builder.Add(entry, wire::Frame::Copy({payload.data(), payload.size()}));
      continue;
    }
    // A copy: the client keeps the frame, to send it again.
    builder.Add(entry, wire::Frame::Make(payload.size(), [&](char* out) {
                  std::copy(payload.begin(), payload.end(), out);
                  const float nan = std::nanf("");
                  // A bucket's payload begins with keys: there its last gradient is hit.
                  std::memcpy(IsBucket(entry.shard) ? out + payload.size() - sizeof(nan) : out, &nan, sizeof(nan));
                }));
  }
  return std::move(builder).Build(parsed->header);
}

uint64_t TraceHash(const wire::Message& message, absl::Time at) {
  uint64_t hash = Mix64(static_cast<uint64_t>(absl::ToUnixNanos(at)) ^ message.bytes());
  for (const wire::Frame& frame : message.frames) {
    for (size_t i = 0; i + 8 <= std::min<size_t>(frame.size(), 160); i += 8) {
      uint64_t word;
      std::memcpy(&word, frame.data() + i, 8);
      hash = Mix64(hash ^ word);
    }
  }
  return hash;
}

std::vector<std::string> TornReads(const wire::Message& message, size_t lives) {
  const absl::StatusOr<wire::Parsed> parsed = wire::Parse(message);
  if (!parsed.ok()) return {absl::StrCat("a lane sent a malformed answer: ", parsed.status().ToString())};
  std::vector<std::string> torn;
  for (size_t i = 0; i < parsed->entries.size(); ++i) {
    if (parsed->payloads[i].empty() || IsBucket(parsed->entries[i].shard)) continue;
    float marks = 0;
    for (size_t life = 0; life < lives; ++life) {
      float value;
      std::memcpy(&value, parsed->payloads[i].data() + life * sizeof(float), sizeof(float));
      marks -= value;
    }
    const uint64_t version = parsed->entries[i].version.value();
    if (marks == static_cast<float>(version - 1)) continue;
    torn.push_back(absl::StrCat("shard ", parsed->entries[i].shard.value(), " was answered as version ", version,
                                " with ", marks, " pushes in it"));
  }
  return torn;
}

}  // namespace basin::sim
