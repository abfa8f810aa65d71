// The ring of shared memory in one process: its writer against its reader, and its reader and writer against a peer
// that writes anything.
#include "common/wire/shm_ring.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/wire/free_extents.h"

namespace basin::wire {
namespace {

TEST(FreeExtentsTest, GivesTheLowestThatFitsAndJoinsWhatComesBack) {
  FreeExtents extents(64 * 8);
  EXPECT_EQ(extents.Take(1), 0u);
  EXPECT_EQ(extents.Take(65), 64u);
  EXPECT_EQ(extents.Take(64), 192u);
  EXPECT_EQ(extents.taken_bytes(), 256u);
  EXPECT_EQ(extents.Take(257), std::nullopt);
  extents.Give(64, 65);
  EXPECT_EQ(extents.Take(256), 256u);
  EXPECT_EQ(extents.Take(128), 64u);
  EXPECT_EQ(extents.Take(1), std::nullopt);
  extents.Give(0, 1);
  extents.Give(192, 64);
  extents.Give(64, 128);
  extents.Give(256, 256);
  EXPECT_EQ(extents.taken_bytes(), 0u);
  EXPECT_EQ(extents.Take(64 * 8), 0u);
}

std::shared_ptr<ShmMemory> RingMemory() { return *ShmMemory::Make("basin-test", kRingBytes); }

Message Frames(const std::vector<std::string>& texts) {
  Message message;
  for (const std::string& text : texts) message.frames.push_back(Frame::Copy(text));
  return message;
}

class ShmRingTest : public ::testing::Test {
 protected:
  RingReader::Got Read(Message& message) {
    error_.clear();
    return reader_.Read(segments_, message, uses_segments_, error_);
  }
  RingControl& control() { return *reinterpret_cast<RingControl*>(memory_->data()); }
  char* data() { return memory_->data() + kRingDataOffset; }

  const std::shared_ptr<ShmMemory> memory_ = RingMemory();
  std::atomic<int> wakes_{0};
  RingWriter writer_{memory_->data()};
  RingReader reader_{memory_, memory_->data(), [this] { ++wakes_; }};
  Segments segments_;
  bool uses_segments_ = false;
  std::string error_;
};

TEST_F(ShmRingTest, SmallFramesAreCopiedOutAndLargeOnesShown) {
  const std::string large(kRingPlacedBytes, 'l');
  ASSERT_TRUE(writer_.Write(Frames({"first", large, "", "third"}), {}));
  Message message;
  ASSERT_EQ(Read(message), RingReader::Got::kMessage) << error_;
  ASSERT_EQ(message.frames.size(), 4u);
  EXPECT_EQ(message.frames[0].view(), "first");
  EXPECT_EQ(message.frames[1].view(), large);
  EXPECT_EQ(message.frames[2].view(), "");
  EXPECT_EQ(message.frames[3].view(), "third");
  const auto lies_in_ring = [&](const Frame& frame) {
    return frame.data() >= memory_->data() && frame.data() < memory_->data() + kRingBytes;
  };
  EXPECT_FALSE(lies_in_ring(message.frames[0]));
  EXPECT_TRUE(lies_in_ring(message.frames[1]));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(message.frames[1].data()) % 64, 0u);
  EXPECT_EQ(Read(message), RingReader::Got::kNothing);
}

TEST_F(ShmRingTest, TheFirstFrameIsCopiedHoweverLarge) {
  ASSERT_TRUE(writer_.Write(Frames({std::string(kMaxFrameBytes, 'h')}), {}));
  Message message;
  ASSERT_EQ(Read(message), RingReader::Got::kMessage) << error_;
  std::memset(data(), 'x', kRingWindowBytes);
  EXPECT_EQ(message.frames[0].view(), std::string(kMaxFrameBytes, 'h'));
}

TEST_F(ShmRingTest, MemoryIsUsedAgainOnceFramesAreReleasedInAnyOrder) {
  const std::string large(512 << 10, 'x');  // three are less than what a reader may hold before frames are copied
  for (int round = 0; round < 50; ++round) {
    std::vector<Message> held(3);
    for (Message& message : held) {
      ASSERT_TRUE(writer_.Write(Frames({"h", large}), {})) << round;
      ASSERT_EQ(Read(message), RingReader::Got::kMessage) << error_;
      // Low addresses again and again: what was used last is still in the caches.
      EXPECT_GE(message.frames[1].data(), data());
      EXPECT_LT(message.frames[1].data() - data(), static_cast<ptrdiff_t>(kRingWindowBytes));
    }
    std::swap(held[0], held[round % 3]);
    for (Message& message : held) message = Message();
    ASSERT_TRUE(writer_.Sweep());
    EXPECT_EQ(writer_.bytes_under_way(), 0u);
    EXPECT_EQ(writer_.blocks_under_way(), 0u);
  }
}

TEST_F(ShmRingTest, FramesThatAreHeldForeverDoNotStopTheOthers) {
  std::vector<Message> held;
  const std::string large(512 << 10, 'x');
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(writer_.Sweep());
    ASSERT_TRUE(writer_.Write(Frames({absl::StrCat(i), large}), {})) << i;
    held.emplace_back();
    ASSERT_EQ(Read(held.back()), RingReader::Got::kMessage) << error_;
  }
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(held[i].frames[0].view(), absl::StrCat(i));
    EXPECT_EQ(held[i].frames[1].view(), large);
  }
}

TEST_F(ShmRingTest, AWindowBoundsWhatIsUnderWayAndTheLargestMessageStillPasses) {
  const std::string mebibyte(1 << 20, 'x');
  int written = 0;
  while (writer_.Write(Frames({"h", mebibyte}), {})) ++written;
  EXPECT_EQ(written, static_cast<int>(kRingWindowBytes / mebibyte.size()) - 1);  // heads take some room too
  Message largest;
  for (int i = 0; i < 2; ++i) largest.frames.push_back(Frame::Copy(std::string(kMaxFrameBytes, 'y')));
  ASSERT_EQ(largest.bytes(), kMaxMessageBytes);
  EXPECT_FALSE(writer_.Write(largest, {}));
  Message message;
  while (Read(message) == RingReader::Got::kMessage) message = Message();
  ASSERT_TRUE(writer_.Sweep());
  ASSERT_TRUE(writer_.Write(largest, {}));
  ASSERT_EQ(Read(message), RingReader::Got::kMessage) << error_;
  EXPECT_EQ(message.bytes(), kMaxMessageBytes);
}

TEST_F(ShmRingTest, AWriterThatWaitsIsWokenByTheReleaseAndAReaderThatSleepsByTheMessage) {
  EXPECT_FALSE(writer_.TakeReaderSleeps());
  reader_.SetSleeps(true);
  ASSERT_TRUE(writer_.Write(Frames({"h", std::string(kRingPlacedBytes, 'x')}), {}));
  EXPECT_TRUE(writer_.TakeReaderSleeps());
  EXPECT_FALSE(writer_.TakeReaderSleeps());
  Message message;
  ASSERT_EQ(Read(message), RingReader::Got::kMessage) << error_;
  writer_.SetWaits(true);
  EXPECT_EQ(wakes_, 0);
  message = Message();
  EXPECT_EQ(wakes_, 1);
  EXPECT_TRUE(writer_.HasCompletions());
}

TEST_F(ShmRingTest, FramesOutliveTheReader) {
  const std::string large(kRingPlacedBytes, 'l');
  auto memory = RingMemory();
  std::weak_ptr<ShmMemory> alive = memory;
  RingWriter writer(memory->data());
  auto reader = std::make_unique<RingReader>(memory, memory->data(), [] {});
  ASSERT_TRUE(writer.Write(Frames({"h", large}), {}));
  Message message;
  ASSERT_EQ(reader->Read({}, message, uses_segments_, error_), RingReader::Got::kMessage);
  reader.reset();
  memory.reset();
  EXPECT_EQ(message.frames[1].view(), large);
  EXPECT_FALSE(alive.expired());
  message = Message();
  EXPECT_TRUE(alive.expired());
}

TEST_F(ShmRingTest, AFrameInASegmentIsReferredToUntilItIsGivenBack) {
  std::shared_ptr<ShmMemory> segment = *ShmMemory::Make("basin-test", 1 << 20);
  std::memset(segment->data(), 'g', segment->size());
  Message message = Frames({"h"});
  auto owner = std::make_shared<int>(0);
  std::weak_ptr<int> lent = owner;
  message.frames.emplace_back(segment->data() + 4096, 8192, std::move(owner));
  ASSERT_TRUE(writer_.Write(message, std::vector<SegmentPlace>{{}, {.segment = 0, .offset = 4096}}));
  message = Message();
  EXPECT_FALSE(lent.expired());
  Message got;
  EXPECT_EQ(Read(got), RingReader::Got::kNeedsSegment);
  segments_.push_back(segment);
  ASSERT_EQ(Read(got), RingReader::Got::kMessage) << error_;
  EXPECT_TRUE(uses_segments_);
  EXPECT_EQ(got.frames[1].data(), segment->data() + 4096);
  ASSERT_TRUE(writer_.Sweep());
  EXPECT_FALSE(lent.expired());
  got = Message();
  ASSERT_TRUE(writer_.Sweep());
  EXPECT_TRUE(lent.expired());
}

TEST_F(ShmRingTest, ThreadsPassMessagesAndReleaseThemElsewhere) {
  constexpr int kMessages = 3000;
  std::atomic<bool> failed{false};
  std::thread sender([&] {
    Random random(1);
    for (int i = 0; i < kMessages && !failed;) {
      const size_t bytes = random.Below(3) == 0 ? random.Below(100'000) : random.Below(200);
      if (writer_.Write(Frames({absl::StrCat(i), std::string(bytes, static_cast<char>('a' + i % 26))}), {})) {
        ++i;
      } else {
        std::this_thread::yield();
      }
      if (!writer_.Sweep()) failed = true;
    }
  });
  Mutex mutex;
  std::vector<Message> to_release;
  std::atomic<bool> done{false};
  std::thread releaser([&] {
    while (!done) {
      std::vector<Message> mine;
      {
        MutexLock lock(mutex);
        mine.swap(to_release);
      }
      for (const Message& message : mine) {
        for (const char c : message.frames[1].view()) {
          if (c != message.frames[1].view()[0]) failed = true;
        }
      }
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < kMessages && !failed;) {
    Message message;
    const RingReader::Got got = Read(message);
    if (got == RingReader::Got::kNothing) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(got, RingReader::Got::kMessage) << error_;
    ASSERT_EQ(message.frames[0].view(), absl::StrCat(i));
    ++i;
    MutexLock lock(mutex);
    to_release.push_back(std::move(message));
  }
  done = true;
  sender.join();
  releaser.join();
  EXPECT_FALSE(failed);
}

// ---- A peer that breaks the rules ----

struct Breach {
  const char* name;
  void (*commit)(RingControl& control, char* data);
  const char* says;
};

// A sound message of two frames, with one thing changed.
FrameRef* Refs(char* data) { return reinterpret_cast<FrameRef*>(data); }

class BreachTest : public ::testing::TestWithParam<Breach> {};

TEST_P(BreachTest, IsSeenByTheReader) {
  const std::shared_ptr<ShmMemory> memory = RingMemory();
  RingWriter writer(memory->data());
  RingReader reader(memory, memory->data(), [] {});
  ASSERT_TRUE(writer.Write(Frames({"head", std::string(kRingPlacedBytes, 'x')}), {}));
  GetParam().commit(*reinterpret_cast<RingControl*>(memory->data()), memory->data() + kRingDataOffset);
  Message message;
  bool uses_segments = false;
  std::string error;
  EXPECT_EQ(reader.Read({}, message, uses_segments, error), RingReader::Got::kBroken);
  EXPECT_TRUE(absl::StrContains(error, GetParam().says)) << error;
}

INSTANTIATE_TEST_SUITE_P(
    All, BreachTest,
    ::testing::Values(
        Breach{"PublishedTooMuch", [](auto& c, char*) { c.published = kRingBlocks + 1; }, "513 messages wait"},
        Breach{"PublishedBack", [](auto& c, char*) { c.published = ~uint64_t{0}; }, "messages wait"},
        Breach{"Block", [](auto& c, char*) { c.descriptors[0].block = kRingBlocks; }, "block 512"},
        Breach{"NoFrames", [](auto& c, char*) { c.descriptors[0].sizes = 36; }, "a message of 0 frames"},
        Breach{"Frames", [](auto& c, char*) { c.descriptors[0].sizes = uint64_t{66} << 32 | 4096; }, "of 66 frames"},
        Breach{"HeadShort", [](auto& c, char*) { c.descriptors[0].sizes = uint64_t{2} << 32 | 31; }, "head of 31"},
        Breach{"HeadLong", [](auto& c, char*) { c.descriptors[0].sizes = uint64_t{2} << 32 | 0xffffffff; },
               "a head of"},
        Breach{"HeadOutside", [](auto& c, char*) { c.descriptors[0].head = kRingDataBytes - 8; }, "a head of"},
        Breach{"HeadOverflow", [](auto& c, char*) { c.descriptors[0].head = ~uint64_t{0} - 4; }, "a head of"},
        Breach{"FrameLarge", [](auto&, char* d) { Refs(d)[1].bytes = kMaxFrameBytes + 1; }, "frame 1 of 4194305"},
        Breach{"PlacedOutside", [](auto&, char* d) { Refs(d)[1].offset = kRingDataBytes - 1; }, "frame 1 of 4096"},
        Breach{"PlacedOverflow", [](auto&, char* d) { Refs(d)[1].offset = ~uint64_t{0}; }, "frame 1 of 4096"},
        Breach{"InlineOutside", [](auto&, char* d) { Refs(d)[0].bytes = 5; }, "frame 0 of 5"},
        Breach{"FirstFramePlaced", [](auto&, char* d) { Refs(d)[0].kind = FrameRef::kPlaced; }, "first frame outside"},
        Breach{"Segment", [](auto&, char* d) { Refs(d)[1].kind = FrameRef::kSegment + kMaxSegments; }, "segment 256"},
        Breach{"SegmentLarge", [](auto&, char* d) { Refs(d)[1].kind = ~uint32_t{0}; }, "segment 4294967293"}),
    [](const auto& info) { return info.param.name; });

TEST_F(ShmRingTest, AMessageOfTooManyBytesIsSeen) {
  // Frames may overlap in a peer's telling: 64 of 4 MiB.
  Message message = Frames({"h"});
  const Frame frame = Frame::Copy(std::string(kRingPlacedBytes, 'x'));
  for (size_t i = 0; i < kMaxPayloadFrames; ++i) message.frames.push_back(frame);
  ASSERT_TRUE(writer_.Write(message, {}));
  for (size_t i = 1; i <= kMaxPayloadFrames; ++i) {
    Refs(data())[i].offset = 0;
    Refs(data())[i].bytes = kMaxFrameBytes;
  }
  Message got;
  EXPECT_EQ(Read(got), RingReader::Got::kBroken);
  EXPECT_TRUE(absl::StrContains(error_, "a message of 268435457 bytes")) << error_;
}

TEST_F(ShmRingTest, TheWriterSeesBlocksThatItDidNotGive) {
  ASSERT_TRUE(writer_.Write(Frames({"h"}), {}));
  control().completed = 2;
  EXPECT_FALSE(writer_.Sweep());
  control().completed = 1;
  control().given_back[0] = 511;  // not under way
  EXPECT_FALSE(writer_.Sweep());
  control().given_back[0] = kRingBlocks;
  EXPECT_FALSE(writer_.Sweep());
  control().given_back[0] = 0;
  EXPECT_TRUE(writer_.Sweep());
  control().completed = 0;
  EXPECT_FALSE(writer_.Sweep());
}

TEST_F(ShmRingTest, ABlockGivenBackTwiceIsSeen) {
  ASSERT_TRUE(writer_.Write(Frames({"one"}), {}));
  ASSERT_TRUE(writer_.Write(Frames({"two"}), {}));
  control().given_back[0] = 0;
  control().given_back[1] = 0;
  control().completed = 2;
  EXPECT_FALSE(writer_.Sweep());
}

TEST(ShmMemoryTest, WhatIsNotASealedMemfdOfTheSizeIsRefused) {
  const auto made = ShmMemory::Make("basin-test", 8192);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto map = [](int fd, size_t bytes) {
    return ShmMemory::Map(UniqueFd(dup(fd)), bytes, ShmMemory::Access::kRead).status();
  };
  EXPECT_TRUE(map((*made)->fd(), 8192).ok());
  EXPECT_EQ(map((*made)->fd(), 4096).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(map((*made)->fd(), 12288).message(), "of 8192 bytes came, expected 12288"));
  EXPECT_NE(ftruncate((*made)->fd(), 0), 0);
  const UniqueFd unsealed(memfd_create("basin-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 8192), 0);
  EXPECT_TRUE(absl::StrContains(map(unsealed.get(), 8192).message(), "with the seals 0"));
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const UniqueFd in(pipe_fds[0]), out(pipe_fds[1]);
  EXPECT_EQ(map(in.get(), 4096).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace basin::wire
