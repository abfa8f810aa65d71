// What lies in the memory of a shared-memory channel, and its bounds.
//
//   memory    := ring (client to lane), ring (lane to client)
//   ring      := RingControl, padding to kRingDataOffset, data (kRingDataBytes)
//   message   := descriptor -> head in the data: FrameRef per frame, then the bytes of the inline frames
//
// The writer of a ring gives out its data and its block numbers from books of its own; the reader gives a block's
// number back when it needs the message's bytes no more, in any order. Each word has one writer, but for the two flags
// that ask for a wake-up (set by who sleeps, taken back by who wakes). Every word that a peer writes is read once and
// checked before it is used.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/base/limits.h"

namespace basin::wire {

// Part of the socket's name: programs with another layout do not meet.
inline constexpr uint32_t kShmLayout = 1;

// Messages under way in one direction.
inline constexpr size_t kRingBlocks = 512;
// Frames from here on keep a place of their own in the data, where the receiver reads them; smaller ones (and each
// frame 0) are copied out.
inline constexpr size_t kRingPlacedBytes = kLeastFrameBytes;
// The sender stops at this many bytes under way, unless nothing is: what is reused stays in the caches.
inline constexpr size_t kRingWindowBytes = size_t{4} << 20;
// Address space; touched only where a message is larger than the window, or where frames are held for long.
inline constexpr size_t kRingDataBytes = 2 * (kMaxMessageBytes + kRingWindowBytes);
// A receiver copies frames out, instead of showing the ring, once it holds this much.
inline constexpr size_t kRingHeldBytes = kRingWindowBytes / 2;

// Segments of registered memory that a channel may bring: address space of the lane.
inline constexpr size_t kMaxSegments = 256;
inline constexpr size_t kMaxSegmentBytes = size_t{1} << 40;

// Four words, so that the reader takes each exactly once.
struct RingDescriptor {
  std::atomic<uint64_t> head;   // offset in the data
  std::atomic<uint64_t> sizes;  // bytes of the head (low 32 bits), frames (high)
  std::atomic<uint64_t> block;
  std::atomic<uint64_t> unused;
};

// Where a frame lies.
struct FrameRef {
  enum Kind : uint32_t { kInline = 0, kPlaced = 1, kSegment = 2 };  // kSegment + n: in segment n
  uint64_t offset;                                                  // in the head, in the ring's data, in the segment
  uint32_t bytes;
  uint32_t kind;
};

struct RingControl {
  alignas(64) std::atomic<uint64_t> published;                // writer: descriptors, since the start
  alignas(64) std::atomic<uint64_t> completed;                // reader: blocks given back, since the start
  alignas(64) std::atomic<uint32_t> reader_sleeps;            // wake it for a message
  alignas(64) std::atomic<uint32_t> writer_waits;             // wake it for a block given back
  alignas(64) RingDescriptor descriptors[kRingBlocks];        // writer
  alignas(64) std::atomic<uint32_t> given_back[kRingBlocks];  // reader: block numbers
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

inline constexpr size_t kRingDataOffset = (sizeof(RingControl) + 4095) / 4096 * 4096;
inline constexpr size_t kRingBytes = kRingDataOffset + kRingDataBytes;
inline constexpr size_t kShmChannelBytes = 2 * kRingBytes;

}  // namespace basin::wire
