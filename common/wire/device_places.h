// The payload of an entry with kPlaced: not the bytes of a gradient, a value or parameters, but where they lie in the
// device block that the lane has lent to the client.
//
//   payload := of a variable's shard: places | of a table's bucket: its keys, 8 bytes each | places
//   places  := of a push or assignment: offset u64 | of a pull: offset u64
//
// How many bytes lie there follows from the shard, the dtype and the number of keys. Offsets are multiples of
// kPlaceAlignment; those of rows of RowPlaceAlignment, so that the rows of some entries lie one behind the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/wire/frame.h"
#include "common/wire/header.h"

namespace basin::wire {

// What kernels want.
inline constexpr size_t kPlaceAlignment = 64;

// Of rows of so many bytes: the largest power of two that divides them, up to what one access of a kernel takes.
constexpr size_t RowPlaceAlignment(size_t row_bytes) {
  constexpr size_t kMost = 16;
  const size_t divides = row_bytes & (~row_bytes + 1);
  return divides < kMost ? divides : kMost;
}

struct DevicePlaces {
  uint64_t written = 0;  // of what is pushed or assigned
  uint64_t pulled = 0;   // where the parameters go
};

struct PlaceAlignments {
  size_t written = kPlaceAlignment, pulled = kPlaceAlignment;
};

// `flags` of the entry say which of the two there are.
size_t PlacesBytes(uint16_t flags);
// Writes PlacesBytes bytes.
void WritePlaces(uint16_t flags, const DevicePlaces& places, char* to);
Frame WritePlaces(uint16_t flags, const DevicePlaces& places);
// What a peer has sent. INVALID_ARGUMENT: not of that size, not aligned, or not within a block of `block_bytes` with
// `written_bytes` and `pulled_bytes` behind the offsets.
absl::StatusOr<DevicePlaces> ReadPlaces(uint16_t flags, absl::Span<const char> payload, uint64_t written_bytes,
                                        uint64_t pulled_bytes, uint64_t block_bytes,
                                        const PlaceAlignments& alignments = {});

}  // namespace basin::wire
