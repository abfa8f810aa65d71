// A peer writes anything into a ring: its reader refuses it or gives messages within the bounds, its writer refuses it
// or goes on, and neither reads outside the memory.
//   input := edits, then reads; an edit is where (u16) and a value (u64): control words, or the heads at the data's
//   start
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/wire/shm_ring.h"

namespace {

using basin::wire::Frame;
using basin::wire::Message;
using basin::wire::RingControl;
using basin::wire::RingReader;
using basin::wire::RingWriter;
using basin::wire::ShmMemory;

// Of the data, what edits reach: several heads.
constexpr size_t kEditedData = 4096;
constexpr size_t kSegmentBytes = 1 << 16;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  static const std::shared_ptr<ShmMemory> memory = *ShmMemory::Make("basin-fuzz", basin::wire::kRingBytes);
  static const basin::wire::Segments segments{*ShmMemory::Make("basin-fuzz", kSegmentBytes)};
  char* const ring = memory->data();
  std::memset(ring, 0, basin::wire::kRingDataOffset + kEditedData);
  RingWriter writer(ring);
  RingReader reader(memory, ring, [] {});
  Message sound;
  sound.frames.push_back(Frame::Copy("a head"));
  sound.frames.push_back(Frame::Copy(std::string(basin::wire::kRingPlacedBytes, 'x')));
  for (int i = 0; i < 2; ++i) BASIN_CHECK(writer.Write(sound, {}));

  constexpr size_t kEditBytes = sizeof(uint16_t) + sizeof(uint64_t);
  for (; size >= kEditBytes; input += kEditBytes, size -= kEditBytes) {
    uint16_t where;
    uint64_t value;
    std::memcpy(&where, input, sizeof where);
    std::memcpy(&value, input + sizeof where, sizeof value);
    // The first words of each part are worth most.
    const size_t words = (basin::wire::kRingDataOffset + kEditedData) / 8;
    size_t at = where % words;
    if (where & 0x8000) at = basin::wire::kRingDataOffset / 8 + where % 64;
    if (where & 0x4000) at = offsetof(RingControl, descriptors) / 8 + where % 16;
    std::memcpy(ring + at * 8, &value, sizeof value);
  }
  for (int i = 0; i < 8; ++i) {
    Message message;
    bool uses_segments = false;
    std::string error;
    const RingReader::Got got = reader.Read(segments, message, uses_segments, error);
    if (got == RingReader::Got::kBroken) BASIN_CHECK(!error.empty());
    if (got != RingReader::Got::kMessage) break;
    BASIN_CHECK(!message.frames.empty() && message.frames.size() <= basin::kMaxFrames);
    BASIN_CHECK(message.bytes() <= basin::kMaxMessageBytes);
    unsigned sum = 0;
    for (const Frame& frame : message.frames) {
      BASIN_CHECK(frame.size() <= basin::kMaxFrameBytes);
      if (!frame.empty()) sum += static_cast<unsigned char>(frame.data()[0] + frame.data()[frame.size() - 1]);
    }
    BASIN_CHECK(sum < 65 * 512);
  }
  for (int i = 0; i < 3 && writer.Sweep(); ++i) {
    BASIN_CHECK(writer.bytes_under_way() <= basin::wire::kRingDataBytes);
    writer.Write(sound, {});
  }
  return 0;
}
