// The payload of an entry with kPlaced: not the bytes of a gradient, a value or parameters, but where they lie in the
// device block that the lane has lent to the client.
//
//   places := of a push or assignment: offset u64 | of a pull: offset u64
//
// How many bytes lie there follows from the shard and the dtype. Offsets are multiples of kPlaceAlignment.
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

struct DevicePlaces {
  uint64_t written = 0;  // of what is pushed or assigned
  uint64_t pulled = 0;   // where the parameters go
};

// `flags` of the entry say which of the two there are.
Frame WritePlaces(uint16_t flags, const DevicePlaces& places);
// What a peer has sent. INVALID_ARGUMENT: not of that size, not aligned, or not within a block of `block_bytes` with
// `written_bytes` and `pulled_bytes` behind the offsets.
absl::StatusOr<DevicePlaces> ReadPlaces(uint16_t flags, absl::Span<const char> payload, uint64_t written_bytes,
                                        uint64_t pulled_bytes, uint64_t block_bytes);

}  // namespace basin::wire
