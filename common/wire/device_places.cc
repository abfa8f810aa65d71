#include "common/wire/device_places.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin::wire {
namespace {

bool HasWrite(uint16_t flags) { return (flags & (kPush | kAssign)) != 0; }
bool HasPull(uint16_t flags) { return (flags & kPull) != 0; }

absl::Status CheckPlace(uint64_t at, uint64_t bytes, uint64_t block_bytes) {
  if (at % kPlaceAlignment == 0 && at <= block_bytes && bytes <= block_bytes - at) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(bytes, " bytes at ", at, " of a device block of ", block_bytes,
                                                 ": places are multiples of ", kPlaceAlignment, " and lie within it"));
}

}  // namespace

Frame WritePlaces(uint16_t flags, const DevicePlaces& places) {
  uint64_t numbers[2] = {};
  size_t count = 0;
  if (HasWrite(flags)) numbers[count++] = places.written;
  if (HasPull(flags)) numbers[count++] = places.pulled;
  return Frame::Copy({reinterpret_cast<const char*>(numbers), count * sizeof(uint64_t)});
}

absl::StatusOr<DevicePlaces> ReadPlaces(uint16_t flags, absl::Span<const char> payload, uint64_t written_bytes,
                                        uint64_t pulled_bytes, uint64_t block_bytes) {
  const size_t count = (HasWrite(flags) ? 1 : 0) + (HasPull(flags) ? 1 : 0);
  if (payload.size() != count * sizeof(uint64_t)) {
    return absl::InvalidArgumentError(
        absl::StrCat(payload.size(), " bytes of places in the device block, expected ", count * sizeof(uint64_t)));
  }
  // Copied before they are checked: a peer may write to where they lie.
  uint64_t numbers[2] = {};
  if (count > 0) std::memcpy(numbers, payload.data(), payload.size());
  DevicePlaces places;
  if (HasWrite(flags)) {
    places.written = numbers[0];
    BASIN_RETURN_IF_ERROR(CheckPlace(places.written, written_bytes, block_bytes));
  }
  if (HasPull(flags)) {
    places.pulled = numbers[count - 1];
    BASIN_RETURN_IF_ERROR(CheckPlace(places.pulled, pulled_bytes, block_bytes));
  }
  return places;
}

}  // namespace basin::wire
