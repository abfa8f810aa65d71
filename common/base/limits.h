// The bounds of every queue, frame and table, in one place. A value is either taken from a standard or is a sum of its
// users, given beside it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace basin {

// Shards (DESIGN: unit of ownership and atomicity).
inline constexpr size_t kShardAlignmentBytes = 64;
inline constexpr size_t kMaxShardBytes = size_t{1} << 20;
inline constexpr size_t kMinShardBytes = size_t{16} << 10;

// Wire. A payload frame holds at most one shard (1 MiB); frame 0 holds a header, entries and inline payloads.
inline constexpr size_t kMaxFrameBytes = size_t{4} << 20;
// A message carries at most this many shards' payloads (64 x 1 MiB) beside frame 0.
inline constexpr size_t kMaxPayloadFrames = 64;
inline constexpr size_t kMaxFrames = 1 + kMaxPayloadFrames;
// What a shared-memory ring must be able to hold: frame 0 and its payloads.
inline constexpr size_t kMaxMessageBytes = kMaxFrameBytes + kMaxPayloadFrames * kMaxShardBytes;
// Payloads below this are copied into frame 0; a frame of their own would cost more than the copy.
inline constexpr size_t kInlinePayloadBytes = size_t{16} << 10;
// Frame 0 is closed once this much has been gathered in it.
inline constexpr size_t kGatherBytes = size_t{1} << 20;
// Entries a message: frame 0 without payloads stays below kGatherBytes (16,384 x 40 B = 640 KiB).
inline constexpr size_t kMaxEntries = size_t{16} << 10;

// Names, shapes and models: a bound on what a peer can make a ps allocate.
inline constexpr size_t kMaxNameBytes = 512;
inline constexpr size_t kMaxRank = 16;
inline constexpr size_t kMaxVariables = size_t{1} << 16;
inline constexpr size_t kMaxTasks = size_t{1} << 16;
inline constexpr size_t kMaxConnectionsPerLane = size_t{16} << 10;

}  // namespace basin
