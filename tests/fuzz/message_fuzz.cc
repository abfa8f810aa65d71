// Any frames are either refused with a message, or parsed into spans that lie within them.
//   input := count of frames - 1 (1 byte), then per frame: size (u32, little-endian), bytes; the last takes the rest
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/wire/device_places.h"
#include "common/wire/header.h"

namespace {

bool Within(const basin::wire::Message& message, const char* data, size_t size) {
  for (const basin::wire::Frame& frame : message.frames) {
    if (data >= frame.data() && data + size <= frame.data() + frame.size()) return true;
  }
  return size == 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  absl::string_view rest(reinterpret_cast<const char*>(data), size);
  const size_t frames = 1 + static_cast<uint8_t>(rest[0]);
  rest.remove_prefix(1);
  basin::wire::Message message;
  for (size_t i = 0; i < frames; ++i) {
    size_t take = rest.size();
    if (i + 1 < frames) {
      uint32_t said = 0;
      if (rest.size() < sizeof said) break;
      std::memcpy(&said, rest.data(), sizeof said);
      rest.remove_prefix(sizeof said);
      take = said < rest.size() ? said : rest.size();
    }
    // A copy of its own, so that reading past a frame is seen.
    message.frames.push_back(basin::wire::Frame::Copy(rest.substr(0, take)));
    rest.remove_prefix(take);
  }
  const absl::StatusOr<basin::wire::Parsed> parsed = basin::wire::Parse(message);
  if (!parsed.ok()) {
    BASIN_CHECK(!parsed.status().message().empty());
    return 0;
  }
  BASIN_CHECK(parsed->entries.size() == parsed->payloads.size() && parsed->entries.size() <= basin::kMaxEntries);
  BASIN_CHECK(Within(parsed->message, parsed->body.data(), parsed->body.size()));
  uint64_t sum = 0;
  for (size_t i = 0; i < parsed->payloads.size(); ++i) {
    const auto& payload = parsed->payloads[i];
    BASIN_CHECK(payload.size() == parsed->entries[i].bytes);
    BASIN_CHECK(Within(parsed->message, payload.data(), payload.size()));
    // Of a variable's shard, and behind the keys of a bucket.
    const uint64_t elements = parsed->entries[i].rows;
    const uint64_t written = elements * 2, pulled = elements * 4, block = parsed->entries[i].version.value();
    for (const bool is_bucket : {false, true}) {
      const size_t keys = is_bucket ? elements * sizeof(uint64_t) : 0;
      if (keys > payload.size()) continue;
      const auto places = basin::wire::ReadPlaces(
          parsed->entries[i].flags, payload.subspan(keys), written, pulled, block,
          is_bucket ? basin::wire::PlaceAlignments{.written = 2, .pulled = 4} : basin::wire::PlaceAlignments{});
      if (!places.ok()) continue;
      BASIN_CHECK(!(parsed->entries[i].flags & (basin::wire::kPush | basin::wire::kAssign)) ||
                  (places->written <= block && written <= block - places->written));
      BASIN_CHECK(!(parsed->entries[i].flags & basin::wire::kPull) ||
                  (places->pulled <= block && pulled <= block - places->pulled));
    }
    for (const char c : payload) sum += static_cast<unsigned char>(c);
  }
  volatile uint64_t read = sum;
  static_cast<void>(read);
  BASIN_CHECK(basin::wire::Name(parsed->header.kind) != "?");
  return 0;
}
