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

// Wire. A payload frame holds a shard, or several that lie one behind the other, 1 MiB together; frame 0 holds a
// header, entries and inline payloads.
inline constexpr size_t kMaxFrameBytes = size_t{4} << 20;
inline constexpr size_t kMaxPayloadFrames = 64;
inline constexpr size_t kMaxFrames = 1 + kMaxPayloadFrames;
// All frames of a message: frame 0 as it may be, and a data message's payloads, which are kMessageBytes and one entry
// more. What the rings of shared memory are made for.
inline constexpr size_t kMaxMessageBytes = kMaxFrameBytes + (size_t{4} << 20);
// Payloads below this are copied into frame 0: libzmq makes two system calls of each frame, which cost more than the
// copy.
inline constexpr size_t kInlinePayloadBytes = size_t{64} << 10;
// Over shared memory a frame costs no system call, so smaller ones stand alone; below this none does.
inline constexpr size_t kLeastFrameBytes = size_t{4} << 10;
// A data message is closed once it, or its answer, has about this much payload, so that a lane applies one while the
// next arrives. One entry alone may be larger: a shard has kMaxShardBytes at most, a bucket's rows kMaxRowsBytes.
inline constexpr size_t kMessageBytes = size_t{1} << 20;
inline constexpr size_t kMaxRowsBytes = size_t{1} << 20;
// Entries a message: 16,384 x 40 B = 640 KiB.
inline constexpr size_t kMaxEntries = size_t{16} << 10;

// Names, shapes and models: a bound on what a peer can make a ps allocate.
inline constexpr size_t kMaxNameBytes = 512;
inline constexpr size_t kMaxRank = 16;
inline constexpr size_t kMaxVariables = size_t{1} << 16;
inline constexpr uint32_t kMaxTableDim = 4096;
inline constexpr uint64_t kMaxEvictUnusedMs = uint64_t{100} * 366 * 24 * 3600 * 1000;  // 100 years
inline constexpr size_t kMaxTasks = size_t{1} << 16;
inline constexpr size_t kMaxConnectionsPerLane = size_t{16} << 10;

}  // namespace basin
