#include "common/wire/header.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/wire/device_places.h"

namespace basin::wire {
namespace {

Header AHeader(Kind kind) {
  return {.kind = kind,
          .request = 7,
          .run = RunHash("run"),
          .ps_incarnation = 9,
          .incarnation = Incarnation(11),
          .view = View(13),
          .clock = StepClock(15),
          .learning_rate = 0.5f,
          .worker = WorkerKey(2, 3)};
}

// One entry of each sort: inline, in a frame of its own, without payload.
Message AnUpdate() {
  DataBuilder builder;
  builder.Add({.shard = ShardId(1), .flags = kPush | kPull, .sequence = Sequence(4), .version = Version(5)},
              Frame::Copy("inline!!"));
  builder.Add({.shard = ShardId(2), .flags = kPush, .sequence = Sequence(6)},
              Frame::Copy(std::string(kInlinePayloadBytes, 'f')));
  builder.Add({.shard = ShardId(3), .flags = kPull}, Frame());
  return std::move(builder).Build(AHeader(Kind::kUpdate));
}

TEST(HeaderTest, AControlMessageSurvivesTheRoundTrip) {
  const auto parsed = Parse(MakeControl(AHeader(Kind::kHello), "body"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Header& header = parsed->header;
  EXPECT_EQ(header.kind, Kind::kHello);
  EXPECT_EQ(header.request, 7u);
  EXPECT_EQ(header.run, RunHash("run"));
  EXPECT_EQ(header.ps_incarnation, 9u);
  EXPECT_EQ(header.incarnation, Incarnation(11));
  EXPECT_EQ(header.view, View(13));
  EXPECT_EQ(header.clock, StepClock(15));
  EXPECT_EQ(header.learning_rate, 0.5f);
  EXPECT_EQ(header.worker, WorkerKey(2, 3));
  EXPECT_EQ(parsed->body, "body");
}

TEST(HeaderTest, NoLearningRateIsNan) {
  const auto parsed = Parse(MakeControl(Header{.kind = Kind::kStep}, ""));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(std::isnan(parsed->header.learning_rate));
}

TEST(HeaderTest, ADataMessageSurvivesTheRoundTrip) {
  const auto parsed = Parse(AnUpdate());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->entries.size(), 3u);
  EXPECT_EQ(parsed->entries[0].shard, ShardId(1));
  EXPECT_EQ(parsed->entries[0].sequence, Sequence(4));
  EXPECT_EQ(parsed->entries[0].version, Version(5));
  EXPECT_EQ(parsed->entries[0].flags, kPush | kPull | kInline);
  EXPECT_EQ(std::string(parsed->payloads[0].begin(), parsed->payloads[0].end()), "inline!!");
  EXPECT_EQ(parsed->payloads[1].size(), kInlinePayloadBytes);
  EXPECT_TRUE(parsed->payloads[2].empty());
  EXPECT_EQ(parsed->message.frames.size(), 2u);
}

TEST(HeaderTest, LargePayloadsAreNotCopied) {
  const Frame payload = Frame::Copy(std::string(kMaxShardBytes, 'x'));
  DataBuilder builder;
  builder.Add({.shard = ShardId(1), .flags = kPush}, payload);
  const auto parsed = Parse(std::move(builder).Build(AHeader(Kind::kUpdate)));
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->payloads[0].data(), payload.data());
}

TEST(HeaderTest, PayloadsThatLieOneBehindTheOtherShareAFrame) {
  const Frame whole = Frame::Copy(std::string(3 * kInlinePayloadBytes, 'x'));
  DataBuilder builder;
  for (uint32_t i = 0; i < 3; ++i) {
    builder.Add({.shard = ShardId(i), .flags = kPush},
                Frame(whole.data() + i * kInlinePayloadBytes, kInlinePayloadBytes, whole.owner()));
  }
  const auto parsed = Parse(std::move(builder).Build(AHeader(Kind::kUpdate)));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->message.frames.size(), 2u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(parsed->payloads[i].data(), whole.data() + i * kInlinePayloadBytes);
    EXPECT_EQ(parsed->payloads[i].size(), kInlinePayloadBytes);
  }
}

TEST(HeaderTest, SomeEntriesCanBeTakenOutOfAMessage) {
  const auto parsed = Parse(AnUpdate());
  ASSERT_TRUE(parsed.ok());
  const auto kept = Parse(WithEntries(*parsed, {false, true, true}));
  ASSERT_TRUE(kept.ok()) << kept.status();
  ASSERT_EQ(kept->entries.size(), 2u);
  EXPECT_EQ(kept->header.request, parsed->header.request);
  EXPECT_EQ(kept->entries[0].shard, ShardId(2));
  EXPECT_EQ(kept->payloads[0].data(), parsed->payloads[1].data());
  EXPECT_EQ(kept->entries[1].shard, ShardId(3));
  const auto first = Parse(WithEntries(*parsed, {true, false, false}));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(std::string(first->payloads[0].begin(), first->payloads[0].end()), "inline!!");
}

TEST(HeaderTest, AFullBuilderTakesNoMoreAndParses) {
  DataBuilder builder;
  const Frame shard = Frame::Copy(std::string(kInlinePayloadBytes, 's'));
  size_t frames = 0;
  while (builder.Fits(shard.size())) {
    builder.Add({.shard = ShardId(static_cast<uint32_t>(frames++)), .flags = kPush}, shard);
  }
  EXPECT_EQ(frames, kMessageBytes / kInlinePayloadBytes);
  while (builder.Fits(0)) builder.Add({.flags = kPull}, Frame());
  EXPECT_FALSE(builder.Fits(0));
  const auto parsed = Parse(std::move(builder).Build(AHeader(Kind::kUpdate)));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->entries.size(), kMaxEntries);
}

// What a peer may do to a good message, and what is said of it.
struct Malformation {
  const char* name;
  std::function<void(std::string& frame0, std::vector<Frame>& rest)> change;
  std::string said;
};
std::ostream& operator<<(std::ostream& out, const Malformation& m) { return out << m.name; }

template <class T>
void PutAt(std::string& bytes, size_t at, T value) {
  std::memcpy(&bytes[at], &value, sizeof value);
}

constexpr size_t kFirstEntry = kHeaderBytes + 8;  // behind the inline payload "inline!!"

class MalformedTest : public ::testing::TestWithParam<Malformation> {};

TEST_P(MalformedTest, IsRefusedWithItsReason) {
  const Message good = AnUpdate();
  std::string frame0(good.frames[0].view());
  std::vector<Frame> rest(good.frames.begin() + 1, good.frames.end());
  GetParam().change(frame0, rest);
  Message bad;
  bad.frames.push_back(Frame::Copy(frame0));
  bad.frames.insert(bad.frames.end(), rest.begin(), rest.end());
  const auto parsed = Parse(std::move(bad));
  ASSERT_FALSE(parsed.ok());
  EXPECT_TRUE(absl::StrContains(parsed.status().message(), GetParam().said)) << parsed.status();
}

INSTANTIATE_TEST_SUITE_P(
    Table, MalformedTest,
    ::testing::Values(
        Malformation{"Empty", [](auto& f, auto&) { f.clear(); }, "frame 0 has 0 bytes, a header has 80"},
        Malformation{"HalfAHeader", [](auto& f, auto&) { f.resize(79); }, "frame 0 has 79 bytes"},
        Malformation{"Magic", [](auto& f, auto&) { f[0] = 'X'; }, "magic"},
        Malformation{"Version", [](auto& f, auto&) { PutAt<uint16_t>(f, 4, 2); }, "protocol version 2, this program 1"},
        Malformation{"KindZero", [](auto& f, auto&) { PutAt<uint16_t>(f, 6, 0); }, "unknown kind 0"},
        Malformation{"KindUnknown", [](auto& f, auto&) { PutAt<uint16_t>(f, 6, 999); }, "unknown kind 999"},
        Malformation{"ControlWithEntries", [](auto& f, auto&) { PutAt<uint16_t>(f, 6, 1); }, "Hello carries entries"},
        Malformation{"InfiniteRate", [](auto& f, auto&) { PutAt(f, 56, std::numeric_limits<float>::infinity()); },
                     "learning rate"},
        Malformation{"NegativeRate", [](auto& f, auto&) { PutAt(f, 56, -1.0f); }, "learning rate"},
        Malformation{"MoreEntries", [](auto& f, auto&) { PutAt<uint32_t>(f, 60, 4); }, "4 entries"},
        Malformation{"FewerEntries", [](auto& f, auto&) { PutAt<uint32_t>(f, 60, 2); }, "2 entries"},
        Malformation{"TooManyEntries", [](auto& f, auto&) { PutAt<uint32_t>(f, 60, 0xffffffff); },
                     "4294967295 entries, at most 16384"},
        Malformation{"ReservedHeader", [](auto& f, auto&) { PutAt<uint32_t>(f, 68, 1); }, "reserved"},
        Malformation{"HugeBody", [](auto& f, auto&) { PutAt<uint64_t>(f, 72, ~uint64_t{0}); }, "do not make a frame"},
        Malformation{"Truncated", [](auto& f, auto&) { f.resize(f.size() - 1); }, "do not make a frame"},
        Malformation{"Trailing", [](auto& f, auto&) { f.push_back('x'); }, "do not make a frame"},
        Malformation{"Codec", [](auto& f, auto&) { f[kFirstEntry + 4] = 9; }, "unknown codec"},
        Malformation{"InlinePastTheEnd", [](auto& f, auto&) { PutAt<uint64_t>(f, kFirstEntry + 24, 9); },
                     "ends after frame 0's body"},
        Malformation{"InlineOverflow", [](auto& f, auto&) { PutAt<uint64_t>(f, kFirstEntry + 24, ~uint64_t{0}); },
                     "ends after frame 0"},
        Malformation{"InlineShort", [](auto& f, auto&) { PutAt<uint64_t>(f, kFirstEntry + 24, 7); }, "no entry names"},
        Malformation{"FrameShort", [](auto& f, auto&) { PutAt<uint64_t>(f, kFirstEntry + 40 + 24, 5); },
                     "no entry names"},
        Malformation{"FrameLong",
                     [](auto& f, auto&) { PutAt<uint64_t>(f, kFirstEntry + 40 + 24, kInlinePayloadBytes + 1); },
                     "its entry says 65537"},
        Malformation{"JoinedToNothing",
                     [](auto& f, auto&) { PutAt<uint16_t>(f, kFirstEntry + 40 + 6, kPush | kJoined); },
                     "payload frame is missing"},
        Malformation{"FrameMissing", [](auto&, auto& rest) { rest.clear(); }, "payload frame is missing"},
        Malformation{"FrameExtra", [](auto&, auto& rest) { rest.push_back(Frame::Copy("x")); }, "no entry names"},
        Malformation{"TooManyFrames", [](auto&, auto& rest) { rest.resize(kMaxFrames); }, "66 frames, at most 65"},
        Malformation{"FrameTooLarge",
                     [](auto&, auto& rest) { rest[0] = Frame::Copy(std::string(kMaxFrameBytes + 1, 'x')); },
                     "a frame of 4194305 bytes"}),
    [](const auto& info) { return info.param.name; });

TEST(HeaderTest, NoFrameIsMalformed) {
  EXPECT_EQ(Parse(Message()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HeaderTest, AnotherVersionIsAFailedPrecondition) {
  std::string bytes(MakeControl(AHeader(Kind::kHello), "").frames[0].view());
  PutAt<uint16_t>(bytes, 4, kProtocolVersion + 1);
  Message message;
  message.frames.push_back(Frame::Copy(bytes));
  EXPECT_EQ(Parse(std::move(message)).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(DevicePlacesTest, AreReadAsWrittenAndLieWithinTheBlock) {
  constexpr uint64_t kBlock = 1024;
  const auto read = [](uint16_t flags, const DevicePlaces& places, uint64_t written, uint64_t pulled) {
    const Frame payload = WritePlaces(flags, places);
    return ReadPlaces(flags, {payload.data(), payload.size()}, written, pulled, kBlock);
  };
  const auto both = read(kPush | kPull, {.written = 64, .pulled = 960}, 960, 64);
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(both->written, 64u);
  EXPECT_EQ(both->pulled, 960u);
  EXPECT_EQ(read(kAssign, {.written = 128}, 4, 0)->written, 128u);
  EXPECT_EQ(read(kPull, {.pulled = 1024}, 0, 0)->pulled, 1024u);  // no bytes at its end
  for (const uint64_t at : {uint64_t{1}, uint64_t{32}, uint64_t{1024}, uint64_t{1} << 63, ~uint64_t{63}}) {
    EXPECT_FALSE(read(kPush, {.written = at}, 4, 0).ok()) << at;
    EXPECT_FALSE(read(kPull, {.pulled = at}, 0, 4).ok()) << at;
    EXPECT_FALSE(read(kPush | kPull, {.written = 0, .pulled = at}, 4, 4).ok()) << at;
  }
  EXPECT_FALSE(read(kPush, {.written = 64}, kBlock, 0).ok());
  EXPECT_EQ(ReadPlaces(kPush | kPull, std::string(8, '\0'), 4, 4, kBlock).status().message(),
            "8 bytes of places in the device block, expected 16");
}

TEST(DevicePlacesTest, RowsLieOneBehindTheOther) {
  EXPECT_EQ(RowPlaceAlignment(64 * 4), 16u);
  EXPECT_EQ(RowPlaceAlignment(4 * 2), 8u);
  EXPECT_EQ(RowPlaceAlignment(3 * 4), 4u);
  EXPECT_EQ(RowPlaceAlignment(3 * 2), 2u);
  const PlaceAlignments of_three = {.written = RowPlaceAlignment(3 * 2), .pulled = RowPlaceAlignment(3 * 4)};
  const auto read = [&](const DevicePlaces& places) {
    char payload[16];
    WritePlaces(kPush | kPull, places, payload);
    return ReadPlaces(kPush | kPull, payload, 6, 12, 1024, of_three);
  };
  EXPECT_TRUE(read({.written = 6, .pulled = 12}).ok());
  EXPECT_FALSE(read({.written = 7, .pulled = 12}).ok());
  EXPECT_FALSE(read({.written = 6, .pulled = 14}).ok());
}

TEST(HeaderTest, EveryKindHasAName) {
  for (int kind = 1; kind <= static_cast<int>(Kind::kDeviceBlockLent); ++kind)
    EXPECT_NE(Name(static_cast<Kind>(kind)), "?") << kind;
  EXPECT_EQ(Name(Kind::kStatsText), "StatsText");
  EXPECT_EQ(Name(static_cast<Kind>(999)), "?");
}

}  // namespace
}  // namespace basin::wire
