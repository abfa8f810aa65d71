#include "common/wire/device_places.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin::wire {
namespace {

bool HasWrite(uint16_t flags) { return (flags & (kPush | kAssign)) != 0; }
bool HasPull(uint16_t flags) { return (flags & kPull) != 0; }

absl::Status CheckPlace(uint64_t at, uint64_t bytes, uint64_t block_bytes, size_t alignment) {
  if (at % alignment == 0 && at <= block_bytes && bytes <= block_bytes - at) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(bytes, " bytes at ", at, " of a device block of ", block_bytes,
                                                 ": places are multiples of ", alignment, " and lie within it"));
}

}  // namespace

size_t PlacesBytes(uint16_t flags) { return ((HasWrite(flags) ? 1 : 0) + (HasPull(flags) ? 1 : 0)) * sizeof(uint64_t); }

void WritePlaces(uint16_t flags, const DevicePlaces& places, char* to) {
  const uint64_t numbers[2] = {HasWrite(flags) ? places.written : places.pulled, places.pulled};
  std::memcpy(to, numbers, PlacesBytes(flags));
}

Frame WritePlaces(uint16_t flags, const DevicePlaces& places) {
  char numbers[2 * sizeof(uint64_t)];
  WritePlaces(flags, places, numbers);
  return Frame::Copy({numbers, PlacesBytes(flags)});
}

absl::StatusOr<DevicePlaces> ReadPlaces(uint16_t flags, absl::Span<const char> payload, uint64_t written_bytes,
                                        uint64_t pulled_bytes, uint64_t block_bytes,
                                        const PlaceAlignments& alignments) {
  const size_t bytes = PlacesBytes(flags);
  if (payload.size() != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(payload.size(), " bytes of places in the device block, expected ", bytes));
  }
  // Copied before they are checked: a peer may write to where they lie.
  uint64_t numbers[2] = {};
  if (bytes > 0) std::memcpy(numbers, payload.data(), bytes);
  DevicePlaces places;
  if (HasWrite(flags)) {
    places.written = numbers[0];
    BASIN_RETURN_IF_ERROR(CheckPlace(places.written, written_bytes, block_bytes, alignments.written));
  }
  if (HasPull(flags)) {
    places.pulled = numbers[HasWrite(flags) ? 1 : 0];
    BASIN_RETURN_IF_ERROR(CheckPlace(places.pulled, pulled_bytes, block_bytes, alignments.pulled));
  }
  return places;
}

}  // namespace basin::wire
