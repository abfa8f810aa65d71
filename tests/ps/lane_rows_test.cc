// Receive entries for rows of tables, expect what docs/wire.md "Rows of tables" says. A peer may send anything.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cluster_spec/table_placement.h"
#include "common/base/limits.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

constexpr uint32_t kDim = 4;

wire::v1::Model WithTable() {
  wire::v1::Model model = OneVariable(4);
  auto* table = model.add_tables();
  table->set_name("user");
  table->set_dim(kDim);
  table->set_storage(static_cast<uint32_t>(DType::kF32));
  table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_CONSTANT);
  table->mutable_initializer()->set_a(10);
  table->set_admit_after(1);
  table->set_admit_probability(1);
  return model;
}

const TablePlacement kPlacement = TablePlacement::Make(1);

// The n-th key of a bucket.
uint64_t KeyOf(uint32_t bucket, int n = 0) {
  for (uint64_t key = 0;; ++key) {
    if (kPlacement.BucketOf(key) == bucket && n-- == 0) return key;
  }
}

std::string Keys(const std::vector<uint64_t>& keys) {
  return std::string(reinterpret_cast<const char*>(keys.data()), keys.size() * sizeof(uint64_t));
}

class LaneRowsTest : public ::testing::Test {
 protected:
  LaneRowsTest() : LaneRowsTest(WithTable()) {}
  explicit LaneRowsTest(const wire::v1::Model& model) {
    lane.Join(1, 0);
    lane.SetUpModel(1, model);
  }
  static TestEntry PullEntry(uint32_t bucket, const std::vector<uint64_t>& keys) {
    return {.shard = BucketShard(0, bucket).value(),
            .flags = wire::kPull,
            .payload = Keys(keys),
            .rows = static_cast<uint32_t>(keys.size())};
  }
  static TestEntry PushEntry(uint32_t bucket, uint64_t sequence, const std::vector<uint64_t>& keys, float gradient) {
    TestEntry entry = PullEntry(bucket, keys);
    entry.flags = wire::kPush;
    entry.sequence = sequence;
    entry.payload += Floats(std::vector<float>(keys.size() * kDim, gradient));
    return entry;
  }
  StatusCode Code(const TestEntry& entry, wire::PeerId peer = 1) {
    const Heard heard = lane.Update(peer, {entry});
    if (!heard.status().ok()) return heard.status().code();
    return static_cast<StatusCode>(heard.message.entries.at(0).code);
  }
  std::vector<float> Rows(uint32_t bucket, const std::vector<uint64_t>& keys, wire::PeerId peer = 1) {
    const Heard heard = lane.Update(peer, {PullEntry(bucket, keys)});
    EXPECT_EQ(heard.message.entries.at(0).code, 0);
    EXPECT_EQ(heard.message.entries.at(0).rows, keys.size());
    return ToFloats({heard.message.payloads.at(0).data(), heard.message.payloads.at(0).size()});
  }
  uint64_t rows() const { return lane.core.counters().rows.value(); }
  uint64_t applied() const { return lane.core.counters().applied.value(); }

  LaneHarness lane;
};

TEST_F(LaneRowsTest, APushMakesRowsAndAPullDoesNot) {
  const std::vector<uint64_t> keys = {KeyOf(3), KeyOf(3, 1)};
  EXPECT_EQ(Rows(3, keys), std::vector<float>(2 * kDim, 10));
  EXPECT_EQ(rows(), 0u);
  EXPECT_EQ(Code(PushEntry(3, 1, {keys[1]}, 2)), StatusCode::kOk);
  EXPECT_EQ(rows(), 1u);
  EXPECT_EQ(Rows(3, keys), (std::vector<float>{10, 10, 10, 10, 8, 8, 8, 8}));
  EXPECT_GT(lane.core.counters().table_bytes.value(), 0u);
}

TEST_F(LaneRowsTest, PushAndPullStandTogether) {
  TestEntry entry = PushEntry(3, 1, {KeyOf(3)}, 1);
  entry.flags = wire::kPush | wire::kPull;
  const Heard heard = lane.Update(1, {entry, PullEntry(9, {KeyOf(9), KeyOf(9, 1)})});
  ASSERT_EQ(heard.message.entries.size(), 2u);
  EXPECT_EQ(ToFloats({heard.message.payloads[0].data(), heard.message.payloads[0].size()}), std::vector<float>(4, 9));
  EXPECT_EQ(heard.message.entries[0].version, Version(2));
  EXPECT_EQ(heard.message.payloads[1].size(), 2 * kDim * sizeof(float));
}

TEST_F(LaneRowsTest, GradientsMayComeIn16Bits) {
  uint64_t sequence = 0;
  for (const DType type : {DType::kF16, DType::kBF16}) {
    TestEntry entry = PushEntry(3, ++sequence, {KeyOf(3)}, 1);
    entry.flags = wire::kPush | wire::kPull;
    entry.dtype = type;
    entry.payload = Keys({KeyOf(3)}) + Halves(type, {1, 2, 3, 4});
    const Heard heard = lane.Update(1, {entry});
    EXPECT_EQ(heard.message.entries[0].code, 0);
    EXPECT_EQ(heard.message.entries[0].dtype, static_cast<uint8_t>(DType::kF32));
    const float times = static_cast<float>(sequence);
    EXPECT_EQ(ToFloats({heard.message.payloads[0].data(), heard.message.payloads[0].size()}),
              (std::vector<float>{10 - times, 10 - 2 * times, 10 - 3 * times, 10 - 4 * times}));
    // What is wrong changes nothing: an infinity, the size of floats, a pull.
    entry.sequence = sequence + 1;
    entry.payload = Keys({KeyOf(3)}) + Halves(type, {1, 2, std::numeric_limits<float>::infinity(), 4});
    EXPECT_EQ(Code(entry), StatusCode::kInvalidArgument);
    entry.payload = Keys({KeyOf(3)}) + Floats({1, 2, 3, 4});
    EXPECT_EQ(Code(entry), StatusCode::kInvalidArgument);
    TestEntry pull = PullEntry(3, {KeyOf(3)});
    pull.dtype = type;
    EXPECT_EQ(Code(pull), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(Rows(3, {KeyOf(3)}), (std::vector<float>{8, 6, 4, 2}));
}

TEST_F(LaneRowsTest, ARepeatIsAnsweredAndNotApplied) {
  TestEntry entry = PushEntry(3, 1, {KeyOf(3)}, 1);
  entry.flags = wire::kPush | wire::kPull;
  EXPECT_EQ(Code(entry), StatusCode::kOk);
  const Heard again = lane.Update(1, {entry});
  EXPECT_EQ(again.message.entries[0].code, 0);
  EXPECT_TRUE(again.message.entries[0].flags & wire::kRepeat);
  EXPECT_EQ(ToFloats({again.message.payloads[0].data(), again.message.payloads[0].size()}), std::vector<float>(4, 9));
  EXPECT_EQ(applied(), 1u);
}

TEST_F(LaneRowsTest, AGapChangesNothing) {
  EXPECT_EQ(Code(PushEntry(3, 2, {KeyOf(3)}, 1)), StatusCode::kOutOfRange);
  EXPECT_EQ(Code(PushEntry(3, 0, {KeyOf(3)}, 1)), StatusCode::kInvalidArgument);
  EXPECT_EQ(rows(), 0u);
  // Sequences are each bucket's own.
  EXPECT_EQ(Code(PushEntry(3, 1, {KeyOf(3)}, 1)), StatusCode::kOk);
  EXPECT_EQ(Code(PushEntry(4, 1, {KeyOf(4)}, 1)), StatusCode::kOk);
  EXPECT_EQ(Code(PushEntry(3, 2, {KeyOf(3)}, 1)), StatusCode::kOk);
}

TEST_F(LaneRowsTest, NaNInOneRowRefusesTheEntryAndKeepsTheSequence) {
  TestEntry entry = PushEntry(3, 1, {KeyOf(3), KeyOf(3, 1)}, 1);
  const float nan = NAN;
  std::memcpy(entry.payload.data() + entry.payload.size() - sizeof(nan), &nan, sizeof(nan));
  EXPECT_EQ(Code(entry), StatusCode::kInvalidArgument);
  EXPECT_EQ(rows(), 0u);
  EXPECT_EQ(Rows(3, {KeyOf(3)}), std::vector<float>(kDim, 10));
  EXPECT_EQ(Code(PushEntry(3, 1, {KeyOf(3)}, 1)), StatusCode::kOk);
}

TEST_F(LaneRowsTest, HostileEntriesChangeNothing) {
  const TestEntry good = PushEntry(3, 1, {KeyOf(3)}, 1);
  const auto spoilt = [&](auto change) {
    TestEntry entry = good;
    change(entry);
    return Code(entry);
  };
  EXPECT_EQ(spoilt([](auto& e) { e.rows = 0; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.rows = 2; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.rows = std::numeric_limits<uint32_t>::max(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.payload.pop_back(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.payload.clear(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.payload += Floats({1}); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.payload[0] ^= 1; }), StatusCode::kInvalidArgument) << "another bucket's key";
  EXPECT_EQ(spoilt([](auto& e) { e.flags = wire::kAssign; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.flags = wire::kPush | wire::kAssign; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.flags = 0; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.flags = wire::kPull; }), StatusCode::kInvalidArgument) << "a pull with gradients";
  EXPECT_EQ(spoilt([](auto& e) { e.shard = BucketShard(0, 256).value(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.shard = BucketShard(0, 65535).value(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.shard = BucketShard(1, 3).value(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.shard = BucketShard(kMaxTables - 1, 3).value(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(spoilt([](auto& e) { e.shard = 0; }), StatusCode::kInvalidArgument) << "rows for a variable's shard";
  TestEntry pull = PullEntry(3, {KeyOf(3)});
  pull.sequence = 1;
  EXPECT_EQ(Code(pull), StatusCode::kInvalidArgument);
  EXPECT_EQ(rows(), 0u);
  EXPECT_EQ(applied(), 0u);
  EXPECT_EQ(Code(good), StatusCode::kOk);
}

// A few bytes that ask for many would be a cheap way to make a ps allocate.
TEST_F(LaneRowsTest, AnAnswerThatDoesNotFitAMessageIsRefusedWhole) {
  TestEntry pull = PullEntry(3, {KeyOf(3)});
  pull.rows = std::numeric_limits<uint32_t>::max();
  EXPECT_EQ(lane.Update(1, {pull}).status().code(), StatusCode::kInvalidArgument);
  std::vector<TestEntry> many;
  const std::vector<uint64_t> keys(kMessageBytes / (kDim * sizeof(float)) / 8 + 1, KeyOf(3));
  for (int i = 0; i < 8; ++i) many.push_back(PullEntry(3, keys));
  EXPECT_EQ(lane.Update(1, many).status().code(), StatusCode::kInvalidArgument);
  many.pop_back();
  EXPECT_TRUE(lane.Update(1, many).status().ok());
}

TEST_F(LaneRowsTest, WhoOnlyReadsDoesNotPush) {
  const wire::v1::Hello observer = lane.HelloOf(wire::v1::ROLE_OBSERVER, 0, "o");
  lane.SayHello(7, observer);
  EXPECT_EQ(Code(PushEntry(3, 1, {KeyOf(3)}, 1), 7), StatusCode::kPermissionDenied);
  EXPECT_EQ(Rows(3, {KeyOf(3)}, 7), std::vector<float>(kDim, 10));
  EXPECT_EQ(rows(), 0u);
}

TEST_F(LaneRowsTest, TheWelcomeTellsWhatWasAppliedToBuckets) {
  EXPECT_EQ(Code(PushEntry(3, 1, {KeyOf(3)}, 1)), StatusCode::kOk);
  EXPECT_EQ(Code(PushEntry(3, 2, {KeyOf(3)}, 1)), StatusCode::kOk);
  EXPECT_EQ(Code(PushEntry(200, 1, {KeyOf(200)}, 1)), StatusCode::kOk);
  const auto welcome = lane.Join(2, 0).As<wire::v1::Welcome>();
  ASSERT_EQ(welcome.applied_size(), 2);
  EXPECT_EQ(welcome.applied(0).shard(), BucketShard(0, 3).value());
  EXPECT_EQ(welcome.applied(0).sequence(), 2u);
  EXPECT_EQ(welcome.applied(1).shard(), BucketShard(0, 200).value());
  EXPECT_FALSE(welcome.applied_is_cut());
}

TEST_F(LaneRowsTest, StalenessIsCountedByBucket) {
  lane.Join(2, 1);
  EXPECT_EQ(Code(PushEntry(3, 1, {KeyOf(3)}, 1)), StatusCode::kOk);
  const Heard pulled = lane.Update(2, {PullEntry(3, {KeyOf(3)})});
  EXPECT_EQ(pulled.message.entries[0].version, Version(2));
  EXPECT_EQ(Code(PushEntry(3, 2, {KeyOf(3)}, 1)), StatusCode::kOk);
  TestEntry late = PushEntry(3, 1, {KeyOf(3)}, 1);
  late.version = 2;
  const Heard answer = lane.Update(2, {late});
  EXPECT_EQ(answer.message.entries[0].version, Version(4));  // one push came between
}

TEST_F(LaneRowsTest, AnotherLanesBucketsAreRefused) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.lanes = 2;
  options.lane_addresses = {"", "here:2"};
  LaneHarness two(options);
  two.Join(1, 0);
  two.SetUpModel(1, WithTable());
  const auto code = [&](uint32_t bucket) {
    return static_cast<StatusCode>(two.Update(1, {PushEntry(bucket, 1, {KeyOf(bucket)}, 1)}).message.entries[0].code);
  };
  EXPECT_EQ(code(0), StatusCode::kOk);
  EXPECT_EQ(code(1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(2), StatusCode::kOk);
}

class EvictionTest : public LaneRowsTest {
 protected:
  EvictionTest() : LaneRowsTest(Model()) {}
  static wire::v1::Model Model() {
    wire::v1::Model model = WithTable();
    model.mutable_tables(0)->set_evict_unused_ms(60000);
    return model;
  }
  Heard Ask(uint64_t since, uint32_t table = 0) {
    wire::v1::Evicted evicted;
    evicted.set_table(table);
    evicted.set_since(since);
    return std::move(lane.Ask(1, wire::Kind::kEvicted, evicted).at(0));
  }
  // Lets time pass as a lane's thread would: OnTime whenever the lane asks for it.
  void Pass(absl::Duration duration) {
    const absl::Time until = lane.now + duration;
    while (lane.core.next_wake() <= until) {
      lane.now = std::max(lane.now, lane.core.next_wake());
      lane.Tick();
      lane.Beat(1);
    }
    lane.now = until;
  }
};

TEST_F(EvictionTest, UnusedRowsGoAndAreTold) {
  EXPECT_EQ(Ask(std::numeric_limits<uint64_t>::max()).As<wire::v1::EvictedKeys>().next(), 0u);
  EXPECT_EQ(Code(PushEntry(3, 1, {KeyOf(3)}, 1)), StatusCode::kOk);
  EXPECT_EQ(Code(PushEntry(4, 1, {KeyOf(4)}, 1)), StatusCode::kOk);
  Pass(absl::Seconds(40));
  EXPECT_EQ(Code(PushEntry(4, 2, {KeyOf(4)}, 1)), StatusCode::kOk);
  EXPECT_EQ(rows(), 2u);
  Pass(absl::Seconds(30));
  EXPECT_EQ(rows(), 1u);
  EXPECT_EQ(lane.core.counters().evicted.value(), 1u);
  const auto told = Ask(0).As<wire::v1::EvictedKeys>();
  ASSERT_EQ(told.keys_size(), 1);
  EXPECT_EQ(told.keys(0), KeyOf(3));
  EXPECT_EQ(told.next(), 1u);
  EXPECT_FALSE(told.missed());
  EXPECT_FALSE(told.more());
  EXPECT_EQ(Ask(1).As<wire::v1::EvictedKeys>().keys_size(), 0);
  // What is gone begins anew, and the bucket's record has not gone with it.
  EXPECT_EQ(Rows(3, {KeyOf(3)}), std::vector<float>(kDim, 10));
  EXPECT_EQ(Code(PushEntry(3, 1, {KeyOf(3)}, 1)), StatusCode::kOk);
  EXPECT_EQ(Rows(3, {KeyOf(3)}), std::vector<float>(kDim, 10)) << "a repeat must not be applied";
}

TEST_F(EvictionTest, QuestionsMayBeAnything) {
  EXPECT_EQ(Ask(0, 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Ask(0, std::numeric_limits<uint32_t>::max()).status().code(), StatusCode::kInvalidArgument);
  const auto told = Ask(5).As<wire::v1::EvictedKeys>();
  EXPECT_TRUE(told.missed());
  EXPECT_EQ(told.next(), 0u);
}

TEST(AdmissionTest, KeysGetTheirRowsAsTheTableSays) {
  wire::v1::Model model = WithTable();
  model.mutable_tables(0)->set_admit_after(3);
  LaneHarness lane;
  lane.Join(1, 0);
  lane.SetUpModel(1, model);
  for (uint64_t push = 1; push <= 3; ++push) {
    TestEntry entry{.shard = BucketShard(0, 3).value(), .flags = wire::kPush, .sequence = push};
    entry.payload = Keys({KeyOf(3)}) + Floats(std::vector<float>(kDim, 1));
    entry.rows = 1;
    EXPECT_EQ(lane.Update(1, {entry}).message.entries[0].code, 0);
    EXPECT_EQ(lane.core.counters().rows.value(), push == 3 ? 1u : 0u);
  }
  EXPECT_EQ(lane.core.counters().dropped_gradients.value(), 2u);
}

TEST(TableInstallTest, ALaterDeclarationAddsTables) {
  LaneHarness lane;
  lane.Join(1, 0);
  lane.SetUpModel(1, OneVariable(4));
  const TestEntry pull{
      .shard = BucketShard(0, 3).value(), .flags = wire::kPull, .payload = Keys({KeyOf(3)}), .rows = 1};
  EXPECT_NE(lane.Update(1, {pull}).message.entries[0].code, 0);
  lane.SetUpModel(1, WithTable());
  EXPECT_EQ(lane.Update(1, {pull}).message.entries[0].code, 0);
}

}  // namespace
}  // namespace basin
