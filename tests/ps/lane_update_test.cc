// Receive an Update, expect what docs/wire.md "Update, Updated" says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "common/base/limits.h"
#include "ps/shard.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

class LaneUpdateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    lane_.Join(1, 0);
    lane_.Join(2, 1);
    lane_.SetUpModel(1, OneVariable(2));
  }
  static StatusCode CodeOf(const Heard& heard, size_t entry = 0) {
    return static_cast<StatusCode>(heard.message.entries.at(entry).code);
  }

  LaneHarness lane_;
};

TEST_F(LaneUpdateTest, PushAndPullStandTogether) {
  const Heard heard =
      lane_.Update(1, {{.flags = wire::kPush | wire::kPull, .sequence = 1, .version = 1, .payload = Floats({1, 2})}});
  ASSERT_EQ(heard.kind(), wire::Kind::kUpdated);
  const wire::Entry& entry = heard.message.entries.at(0);
  EXPECT_EQ(entry.code, 0);
  EXPECT_EQ(entry.version, Version(2));
  EXPECT_TRUE(entry.flags & wire::kPull);
  EXPECT_EQ(ToFloats({heard.message.payloads[0].data(), heard.message.payloads[0].size()}),
            (std::vector<float>{-1, -2}));
}

TEST_F(LaneUpdateTest, AGradientOf16BitsIsAnsweredInTheVariablesType) {
  uint64_t sequence = 0;
  for (const DType type : {DType::kF16, DType::kBF16}) {
    const Heard heard = lane_.Update(
        1,
        {{.flags = wire::kPush | wire::kPull, .sequence = ++sequence, .payload = Halves(type, {1, 2}), .dtype = type}});
    const wire::Entry& entry = heard.message.entries.at(0);
    EXPECT_EQ(entry.code, 0);
    EXPECT_EQ(entry.dtype, static_cast<uint8_t>(DType::kF32));
    const float times = static_cast<float>(sequence);
    EXPECT_EQ(ToFloats({heard.message.payloads[0].data(), heard.message.payloads[0].size()}),
              (std::vector<float>{-times, -2 * times}));
  }
}

TEST_F(LaneUpdateTest, OnlyPushesComeIn16Bits) {
  const auto answer = [&](uint16_t flags, DType type, const std::string& payload) {
    const uint64_t sequence = flags == wire::kPull ? 0 : 1;
    return CodeOf(lane_.Update(1, {{.flags = flags, .sequence = sequence, .payload = payload, .dtype = type}}));
  };
  EXPECT_EQ(answer(wire::kPull, DType::kF16, ""), StatusCode::kInvalidArgument);
  EXPECT_EQ(answer(wire::kAssign, DType::kBF16, Halves(DType::kBF16, {1, 2})), StatusCode::kInvalidArgument);
  EXPECT_EQ(answer(wire::kPush, DType::kF64, std::string(16, '\0')), StatusCode::kInvalidArgument);
  EXPECT_EQ(answer(wire::kPush, static_cast<DType>(77), Floats({1, 2})), StatusCode::kInvalidArgument);
  // Sizes are those of the payload's type.
  EXPECT_EQ(answer(wire::kPush, DType::kF16, Floats({1, 2})), StatusCode::kInvalidArgument);
  EXPECT_EQ(answer(wire::kPush, DType::kF32, Halves(DType::kF16, {1, 2})), StatusCode::kInvalidArgument);
  EXPECT_EQ(lane_.Pull(1), (std::vector<float>{0, 0}));
  const std::vector<std::string> notes = lane_.core.TakeNotes();
  const auto noted = [&](absl::string_view text) {
    return std::any_of(notes.begin(), notes.end(),
                       [&](const std::string& note) { return absl::StrContains(note, text); });
  };
  EXPECT_TRUE(noted("pull of \"w\": dtype f16, expected f32"));
  EXPECT_TRUE(noted("assignment of \"w\": dtype bf16, expected f32"));
  EXPECT_TRUE(noted("push to \"w\": dtype f64, expected f32, f16 or bf16"));
  EXPECT_TRUE(noted("push to \"w\": dtype 77, expected f32, f16 or bf16"));
  EXPECT_TRUE(noted("8 bytes, the shard has 4 in f16"));
  EXPECT_EQ(answer(wire::kPush, DType::kF16, Halves(DType::kF16, {1, 2})), StatusCode::kOk);
}

TEST_F(LaneUpdateTest, ARepeatIsAnsweredWithoutAnApply) {
  EXPECT_EQ(lane_.Push(1, 1, {1, 1}), StatusCode::kOk);
  const Heard heard = lane_.Update(1, {{.flags = wire::kPush | wire::kPull, .sequence = 1, .payload = Floats({1, 1})}});
  EXPECT_TRUE(heard.message.entries[0].flags & wire::kRepeat);
  EXPECT_EQ(lane_.Pull(1), (std::vector<float>{-1, -1}));
  EXPECT_EQ(lane_.core.counters().repeats.value(), 1u);
}

TEST_F(LaneUpdateTest, SequencesAreEachWorkersOwn) {
  EXPECT_EQ(lane_.Push(1, 1, {1, 1}), StatusCode::kOk);
  EXPECT_EQ(lane_.Push(2, 1, {1, 1}), StatusCode::kOk);
  EXPECT_EQ(lane_.Push(2, 3, {1, 1}), StatusCode::kOutOfRange);
  EXPECT_EQ(lane_.Pull(1), (std::vector<float>{-2, -2}));
}

TEST_F(LaneUpdateTest, AReconnectedClientIsToldWhatWasApplied) {
  EXPECT_EQ(lane_.Push(2, 1, {1, 1}), StatusCode::kOk);
  const auto welcome = lane_.Join(9, 1).As<wire::v1::Welcome>();
  ASSERT_EQ(welcome.applied_size(), 1);
  EXPECT_EQ(welcome.applied(0).sequence(), 1u);
  EXPECT_FALSE(welcome.spec_hash().empty());
  // The push whose answer was lost comes again, on the new channel.
  EXPECT_EQ(lane_.Push(9, 1, {1, 1}), StatusCode::kOk);
  EXPECT_EQ(lane_.Pull(1), (std::vector<float>{-1, -1}));
}

TEST_F(LaneUpdateTest, EntriesAreDecidedOneByOne) {
  wire::v1::Model model = OneVariable(2);
  *model.add_variables() = model.variables(0);
  model.mutable_variables(1)->set_name("v");
  lane_.SetUpModel(1, model);
  const Heard heard =
      lane_.Update(1, {{.shard = 0, .flags = wire::kPush, .sequence = 1, .payload = Floats({1, std::nanf("")})},
                       {.shard = 1, .flags = wire::kPush, .sequence = 1, .payload = Floats({1, 1})},
                       {.shard = 99, .flags = wire::kPush, .sequence = 1, .payload = Floats({1, 1})}});
  EXPECT_EQ(CodeOf(heard, 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(heard, 1), StatusCode::kOk);
  EXPECT_EQ(CodeOf(heard, 2), StatusCode::kInvalidArgument);
  EXPECT_EQ(heard.message.entries[2].shard, ShardId(99));
  EXPECT_EQ(lane_.Pull(1, 0), (std::vector<float>{0, 0}));
  EXPECT_EQ(lane_.Pull(1, 1), (std::vector<float>{-1, -1}));
  EXPECT_EQ(lane_.core.counters().refused.value(), 2u);
}

TEST_F(LaneUpdateTest, ARefusalIsNotedWithThePlaceAndSilencedAfterSome) {
  lane_.core.TakeNotes();
  for (int i = 0; i < 30; ++i) lane_.Push(1, 1, {1, std::nanf("")});
  const auto notes = lane_.core.TakeNotes();
  ASSERT_EQ(notes.size(), 20u);
  EXPECT_EQ(notes[0], "refused an update by worker 0: push to \"w\" elements [0, 2): element 1 is NaN");
}

TEST_F(LaneUpdateTest, RequestsThatMakeNoSenseChangeNothing) {
  EXPECT_EQ(CodeOf(lane_.Update(1, {{.flags = 0}})), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(lane_.Update(1, {{.flags = wire::kPush | wire::kAssign, .sequence = 1, .payload = Floats({1, 1})}})),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(lane_.Update(1, {{.flags = wire::kPush, .sequence = 0, .payload = Floats({1, 1})}})),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(lane_.Update(1, {{.flags = wire::kPull, .sequence = 1}})), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(lane_.Update(1, {{.flags = wire::kPull | 128}})), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(lane_.Update(1, {{.flags = wire::kPush, .sequence = 1, .payload = Floats({1})}})),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(lane_.Pull(1), (std::vector<float>{0, 0}));
}

TEST_F(LaneUpdateTest, AShardMayStandSeveralTimesAndIsTakenInOrder) {
  const Heard heard = lane_.Update(1, {{.flags = wire::kPush, .sequence = 1, .payload = Floats({1, 1})},
                                       {.flags = wire::kPull},
                                       {.flags = wire::kPush, .sequence = 2, .payload = Floats({1, 1})}});
  ASSERT_EQ(heard.message.entries.size(), 3u);
  for (const wire::Entry& answer : heard.message.entries) EXPECT_EQ(answer.code, 0);
  EXPECT_EQ(ToFloats({heard.message.payloads[1].data(), heard.message.payloads[1].size()}),
            (std::vector<float>{-1, -1}));
  EXPECT_EQ(lane_.Pull(1), (std::vector<float>{-2, -2}));
}

TEST_F(LaneUpdateTest, AnAnswerThatFitsNoMessageIsRefusedBeforeAnythingChanges) {
  wire::v1::Model model = OneVariable(2);
  auto* big = model.add_variables();
  *big = model.variables(0);
  big->set_name("big");
  big->set_shape(0, int64_t{1} << 21);  // 8 MiB: shards of more than 64 KiB
  lane_.SetUpModel(1, model);
  std::vector<TestEntry> entries = {{.shard = 0, .flags = wire::kPush, .sequence = 1, .payload = Floats({1, 1})}};
  for (uint32_t i = 0; i <= kMaxPayloadFrames; ++i) entries.push_back({.shard = 1 + i % 8, .flags = wire::kPull});
  EXPECT_EQ(lane_.Update(1, entries).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(lane_.Pull(1), (std::vector<float>{0, 0}));
  entries.pop_back();
  EXPECT_EQ(lane_.Update(1, entries).kind(), wire::Kind::kUpdated);
}

TEST_F(LaneUpdateTest, ObserversAndEvaluatorsOnlyRead) {
  lane_.SayHello(5, lane_.HelloOf(wire::v1::ROLE_OBSERVER, 0, "o"));
  lane_.SayHello(6, lane_.HelloOf(wire::v1::ROLE_EVALUATOR, 0, "e"));
  for (const wire::PeerId peer : {5, 6}) {
    EXPECT_EQ(lane_.Push(peer, 1, {1, 1}), StatusCode::kPermissionDenied);
    EXPECT_EQ(lane_.Pull(peer), (std::vector<float>{0, 0}));
  }
}

TEST_F(LaneUpdateTest, AShardWithoutValuesAsksForPatience) {
  wire::v1::Model model = OneVariable(2);
  auto* given = model.add_variables();
  *given = model.variables(0);
  given->set_name("given");
  given->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ASSIGNED);
  lane_.SetUpModel(1, model);
  EXPECT_EQ(CodeOf(lane_.Update(2, {{.shard = 1, .flags = wire::kPull}})), StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(lane_.Update(2, {{.shard = 1, .flags = wire::kPush, .sequence = 1, .payload = Floats({1, 1})}})),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(lane_.Update(1, {{.shard = 1, .flags = wire::kAssign, .sequence = 1, .payload = Floats({3, 4})}})),
            StatusCode::kOk);
  EXPECT_EQ(lane_.Pull(2, 1), (std::vector<float>{3, 4}));
  EXPECT_EQ(CodeOf(lane_.Update(2, {{.shard = 1, .flags = wire::kPush, .sequence = 1, .payload = Floats({1, 1})}})),
            StatusCode::kOk);
}

TEST_F(LaneUpdateTest, ShardsThatShareAFrameAreApplied) {
  wire::v1::Model model = OneVariable(2);
  auto* big = model.add_variables();
  *big = model.variables(0);
  big->set_name("big");
  big->set_shape(0, int64_t{1} << 21);
  lane_.SetUpModel(1, model);
  ASSERT_NE(lane_.core.shard(ShardId(2)), nullptr);
  const size_t first = lane_.core.shard(ShardId(1))->bytes(), second = lane_.core.shard(ShardId(2))->bytes();
  const std::string ones = Floats(std::vector<float>((first + second) / sizeof(float), 1));
  const wire::Frame whole = wire::Frame::Copy(ones);
  wire::DataBuilder builder;
  const auto push = [&](uint32_t shard, const char* data, size_t bytes) {
    wire::Entry entry{.shard = ShardId(shard), .dtype = static_cast<uint8_t>(DType::kF32), .flags = wire::kPush};
    entry.sequence = Sequence(1);
    builder.Add(entry, wire::Frame(data, bytes, whole.owner()));
  };
  push(1, whole.data(), first);
  push(2, whole.data() + first, second);
  wire::Header header = lane_.header(1);
  header.kind = wire::Kind::kUpdate;
  header.request = 1;
  wire::Message message = std::move(builder).Build(header);
  ASSERT_EQ(message.frames.size(), 2u);
  const std::vector<Heard> heard = lane_.Give(1, std::move(message));
  ASSERT_EQ(heard.size(), 1u);
  ASSERT_EQ(heard[0].kind(), wire::Kind::kUpdated);
  for (const wire::Entry& answer : heard[0].message.entries) EXPECT_EQ(answer.code, 0);
  EXPECT_EQ(lane_.Pull(1, 2), std::vector<float>(second / sizeof(float), -1));
}

TEST_F(LaneUpdateTest, AReplyHoldsStillWhileLaterPushesAreApplied) {
  wire::v1::Model model = OneVariable(2);
  auto* big = model.add_variables();
  *big = model.variables(0);
  big->set_name("big");
  big->set_shape(0, int64_t{1} << 21);  // its shards are frames of their own, not copies
  lane_.SetUpModel(1, model);
  const size_t elements = lane_.core.shard(ShardId(1))->elements();
  const Heard held = lane_.Update(1, {{.shard = 1, .flags = wire::kPull}});
  const Heard pushed = lane_.Update(
      1, {{.shard = 1, .flags = wire::kPush, .sequence = 1, .payload = Floats(std::vector<float>(elements, 1))}});
  EXPECT_EQ(CodeOf(pushed), StatusCode::kOk);
  EXPECT_EQ(ToFloats({held.message.payloads[0].data(), held.message.payloads[0].size()}),
            std::vector<float>(elements, 0));
  EXPECT_EQ(lane_.Pull(1, 1), std::vector<float>(elements, -1));
}

}  // namespace
}  // namespace basin
