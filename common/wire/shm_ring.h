// The two ends of a ring in shared memory (shm_layout.h). No system calls: who sleeps and how it is woken is the
// link's business (shm_link.h).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/base/mutex.h"
#include "common/wire/free_extents.h"
#include "common/wire/shm_layout.h"
#include "common/wire/shm_memory.h"
#include "common/wire/transport.h"

namespace basin::wire {

// A frame's place in registered memory that the peer has mapped; `segment` < 0: it is copied.
struct SegmentPlace {
  int segment = -1;
  size_t offset = 0;
};

// One thread at a time.
class RingWriter final {
 public:
  // `ring`: kRingBytes of memory, zero at first, that outlives it.
  explicit RingWriter(char* ring);
  ~RingWriter();

  // False: no room now, which is past `window` bytes under way unless nothing is. `places`: one a frame, or none at
  // all. Frames in segments are referenced until the reader gives the block back; the others were copied on return.
  // REQUIRES: within CheckLimits.
  bool Write(const Message& message, absl::Span<const SegmentPlace> places, size_t window = kRingWindowBytes);
  // Takes what the reader gave back. False: it broke the rules, and nothing it says can be used any more.
  bool Sweep();
  // Something was given back that Sweep has not taken.
  bool HasCompletions() const;
  // After Write: true when the reader sleeps; the caller wakes it.
  bool TakeReaderSleeps();
  void SetWaits(bool waits);
  // Blocks under way that refer to the sender's memory.
  size_t referencing() const { return referencing_; }

  size_t bytes_under_way() const { return data_free_.taken_bytes(); }
  size_t blocks_under_way() const { return kRingBlocks - free_blocks_.size(); }

 private:
  struct Block {
    size_t offset = 0;
    size_t bytes = 0;  // of the data
    std::vector<Frame> referenced;
    bool taken = false;
  };
  RingControl* const control_;
  char* const data_;
  uint64_t published_ = 0;
  uint64_t completed_ = 0;
  size_t referencing_ = 0;
  FreeExtents data_free_{kRingDataBytes};
  std::vector<uint32_t> free_blocks_;
  std::vector<Block> blocks_;
};

// The mapped segments of a peer, by number.
using Segments = std::vector<std::shared_ptr<ShmMemory>>;

// Receive and the flags: one thread at a time. Frames may be released by any thread, also after the reader is gone.
class RingReader final {
 public:
  // `memory` holds the ring (at `ring`) and is kept. `wake` is called, by any thread, when a writer that waits for room
  // gets some.
  RingReader(std::shared_ptr<const void> memory, char* ring, std::function<void()> wake);
  ~RingReader();

  enum class Got { kMessage, kNothing, kNeedsSegment, kBroken };
  // kNeedsSegment: the message names one that `segments` lacks; try again once it has come. kBroken: the peer broke the
  // rules; `error` says which. `uses_segments`: the message shows registered memory of the sender.
  Got Read(const Segments& segments, Message& message, bool& uses_segments, std::string& error);
  bool HasMessage() const;
  void SetSleeps(bool sleeps);

 private:
  class State;
  class Lease;
  const std::shared_ptr<State> state_;
  RingControl* const control_;
  const char* const data_;
  uint64_t consumed_ = 0;
};

}  // namespace basin::wire
