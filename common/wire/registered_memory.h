// Memory that the shared-memory transport can show to a peer: frames that lie in it cross without a copy. The segments
// are memfds, sealed against shrinking and growing, so that no peer can be made to fault by them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace basin::wire {

// 64-byte aligned and zero. Ordinary memory where the system gives no segment; nullptr where it gives none at all.
// Thread-safe, as all below.
void* AllocateRegistered(size_t bytes);
// REQUIRES: from AllocateRegistered, and no frame in it is under way. nullptr is fine.
void DeallocateRegistered(void* memory);

struct RegisteredRange {
  uint64_t segment = 0;  // a number that is never given out twice in this process
  int fd = -1;           // of the segment; open for as long as the memory is allocated
  size_t segment_bytes = 0;
  size_t offset = 0;  // of the range within it
};
// Where [data, data + bytes) lies; nothing for ordinary memory.
std::optional<RegisteredRange> FindRegistered(const void* data, size_t bytes);

}  // namespace basin::wire
