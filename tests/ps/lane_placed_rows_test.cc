// Rows of tables in the block that a lane has lent: what a message may name there, and what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "cluster_spec/table_placement.h"
#include "common/base/limits.h"
#include "ps/lane_rows.h"
#include "tests/ps/lane_blocks_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

constexpr uint32_t kThere = 0, kOnHost = 1;  // tables
constexpr uint16_t kPlacedBoth = kPlacedPush | wire::kPull;

class LanePlacedRowsTest : public LaneBlocksTest {
 protected:
  LanePlacedRowsTest() {
    wire::v1::Model model = TwoVariables();
    for (const auto& [name, max_bytes] : {std::pair("there", 8 << 20), std::pair("on the host", 0)}) {
      auto* table = model.add_tables();
      table->set_name(name);
      table->set_dim(3);
      table->set_storage(static_cast<uint32_t>(DType::kF32));
      table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
      table->set_admit_after(1);
      table->set_admit_probability(1);
      table->set_max_bytes(static_cast<uint64_t>(max_bytes));
    }
    model_ = model;
    lane_.SetUpModel(1, model);
  }
  // Keys of one bucket, with places.
  static TestEntry Rows(uint16_t flags, uint64_t sequence, const std::vector<uint64_t>& keys,
                        const std::vector<uint64_t>& places, uint32_t table = kThere, DType type = DType::kF32) {
    TestEntry entry{.shard = BucketShard(table, TablePlacement::Make(1).BucketOf(keys.at(0))).value(),
                    .flags = flags,
                    .sequence = sequence,
                    .payload = PlacesOf(keys) + PlacesOf(places),
                    .rows = static_cast<uint32_t>(keys.size())};
    entry.dtype = type;
    return entry;
  }
  // Of the bucket of key 1.
  static std::vector<uint64_t> SomeKeys(size_t count) {
    const TablePlacement placement = TablePlacement::Make(1);
    std::vector<uint64_t> keys;
    for (uint64_t key = 1; keys.size() < count; ++key) {
      if (placement.BucketOf(key) == placement.BucketOf(1)) keys.push_back(key);
    }
    return keys;
  }
  std::vector<float> Row(uint64_t key, uint32_t table = kThere) {
    std::vector<float> row(3, NAN);
    EXPECT_TRUE(lane_.core.rows().Row(table, key, row.data()));
    return row;
  }
  static StatusCode Code(const Heard& heard, size_t entry) {
    return static_cast<StatusCode>(heard.message.entries.at(entry).code);
  }

  wire::v1::Model model_;
};

TEST_F(LanePlacedRowsTest, GradientsAreReadAndRowsWrittenWhereTheyLie) {
  char* const block = Open(1);
  const std::vector<uint64_t> keys = SomeKeys(2);
  Put(block, 12, {1, 2, 3, 4, 5, 6});
  const std::string halves = Halves(DType::kBF16, {7, 8, 9});
  std::memcpy(block + 102, halves.data(), halves.size());
  // A push with its pull, one in 16 bits, and a pull of what it makes in the answer.
  const Heard heard =
      lane_.Update(1, {Rows(kPlacedBoth, 1, keys, {12, 200}), Rows(kPlacedPush, 1, {2}, {102}, kThere, DType::kBF16),
                       Rows(kPlacedPull, 0, {3}, {kBlockBytes - 12}), Rows(wire::kPull, 0, {2}, {})});
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(Code(heard, i), StatusCode::kOk) << i;
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(heard.message.payloads[i].empty()) << i;
  EXPECT_EQ(heard.message.entries[0].flags & kPlacedPull, kPlacedPull);
  EXPECT_EQ(heard.message.entries[0].rows, 2u);
  EXPECT_EQ(heard.message.entries[2].flags & kPlacedPull, kPlacedPull);
  EXPECT_EQ(heard.message.entries[3].flags & kPlacedPull, wire::kPull);
  EXPECT_EQ(Get(block, 200, 6), (std::vector<float>{-1, -2, -3, -4, -5, -6}));
  EXPECT_EQ(Get(block, kBlockBytes - 12, 3), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(ToFloats({heard.message.payloads[3].data(), heard.message.payloads[3].size()}),
            (std::vector<float>{-7, -8, -9}));
  EXPECT_EQ(lane_.core.counters().ipc_bytes_in.value(), 24u + 6u);
  EXPECT_EQ(lane_.core.counters().ipc_bytes_out.value(), 24u + 12u);
  EXPECT_EQ(lane_.core.counters().applied.value(), 2u);
}

TEST_F(LanePlacedRowsTest, HostilePlacesAreRefusedAndNothingChanges) {
  char* const block = Open(1);
  Put(block, 0, {1, 1, 1});
  const std::vector<std::vector<uint64_t>> hostile = {{},
                                                      {0, 0, 0},
                                                      {1},
                                                      {2},
                                                      {kBlockBytes},
                                                      {kBlockBytes - 8},
                                                      {kBlockBytes + 12},
                                                      {uint64_t{0} - 4},
                                                      {uint64_t{0} - 12},
                                                      {uint64_t{1} << 63}};
  for (std::vector<uint64_t> places : hostile) {
    EXPECT_EQ(CodeOf(1, Rows(kPlacedPush, 1, {1}, places)), StatusCode::kInvalidArgument);
    EXPECT_EQ(CodeOf(1, Rows(kPlacedPull, 0, {1}, places)), StatusCode::kInvalidArgument);
    places.insert(places.begin(), 0);
    EXPECT_EQ(CodeOf(1, Rows(kPlacedBoth, 1, {1}, places)), StatusCode::kInvalidArgument);
  }
  // The sizes follow from the number of keys, whatever they are.
  TestEntry entry = Rows(kPlacedPull, 0, {1}, {0});
  for (const uint32_t rows : {uint32_t{0}, uint32_t{2}, uint32_t{1} << 31, ~uint32_t{0}}) {
    entry.rows = rows;
    EXPECT_EQ(CodeOf(1, entry), StatusCode::kInvalidArgument) << rows;
  }
  entry = Rows(kPlacedPush, 1, {1}, {0});
  entry.payload += Floats({1, 1, 1});
  EXPECT_EQ(CodeOf(1, entry), StatusCode::kInvalidArgument);
  // A key of another bucket, a key twice, an unknown type, and more than an entry may have.
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPush, 1, {1, 2}, {0})), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPush, 1, {1, 1}, {0})), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPush, 1, {1}, {0}, kThere, DType::kF64)), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPull, 0, SomeKeys(kMaxRowsBytes / 20 + 1), {0})), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPull, 0, SomeKeys(kMaxRowsBytes / 20), {0})), StatusCode::kOk);
  EXPECT_EQ(Row(1), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(lane_.core.counters().rows.value(), 0u);
  // The sequence was not used up.
  Put(block, 0, {1, 1, 1});
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPush, 1, {1}, {0})), StatusCode::kOk);
}

TEST_F(LanePlacedRowsTest, PlacesThatOverlapAreTheClientsOwnAffair) {
  char* const block = Open(1);
  Put(block, 0, {1, 2, 3});
  const Heard heard = lane_.Update(1, {Rows(kPlacedBoth, 1, {1}, {0, 0}), Rows(kPlacedPull, 0, {2}, {4})});
  EXPECT_EQ(Code(heard, 0), StatusCode::kOk);
  EXPECT_EQ(Code(heard, 1), StatusCode::kOk);
  EXPECT_EQ(Row(1), (std::vector<float>{-1, -2, -3}));
}

TEST_F(LanePlacedRowsTest, WhatIsNotFiniteRefusesItsEntryAlone) {
  char* const block = Open(1);
  Put(block, 0, {1, 1, 1});
  Put(block, 16, {1, std::nanf(""), 1});
  const Heard heard = lane_.Update(
      1, {Rows(kPlacedBoth, 1, {1}, {0, 64}), Rows(kPlacedBoth, 1, {2}, {16, 80}), Rows(kPlacedPush, 1, {3}, {0})});
  EXPECT_EQ(Code(heard, 0), StatusCode::kOk);
  EXPECT_EQ(Code(heard, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(heard, 2), StatusCode::kOk);
  EXPECT_EQ(heard.message.entries[1].flags & kPlacedPull, 0);
  EXPECT_EQ(lane_.core.counters().rows.value(), 2u);
  EXPECT_EQ(lane_.core.counters().refused.value(), 1u);
  Put(block, 16, {2, 2, 2});
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPush, 1, {2}, {16})), StatusCode::kOk);
  EXPECT_EQ(Row(2), (std::vector<float>{-2, -2, -2}));
}

TEST_F(LanePlacedRowsTest, ARepeatIsNotAppliedAndItsPlaceNotRead) {
  char* const block = Open(1);
  Put(block, 0, {1, 1, 1});
  const TestEntry push = Rows(kPlacedBoth, 1, {1}, {0, 64});
  EXPECT_EQ(CodeOf(1, push), StatusCode::kOk);
  Put(block, 0, {std::nanf(""), 5, 5});
  Put(block, 64, {9, 9, 9});
  const Heard heard = lane_.Update(1, {push});
  EXPECT_TRUE(heard.message.entries[0].flags & wire::kRepeat);
  EXPECT_EQ(Get(block, 64, 3), (std::vector<float>{-1, -1, -1}));
  EXPECT_EQ(lane_.core.counters().ipc_bytes_in.value(), 12u);
}

TEST_F(LanePlacedRowsTest, ATableOnTheHostHasNoPlaces) {
  char* const block = Open(1);
  Put(block, 0, {1, 1, 1});
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPush, 1, {1}, {0}, kOnHost)), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(1, Rows(kPlacedPull, 0, {1}, {0}, kOnHost)), StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(lane_.core.TakeNotes().back(),
                                "rows in a device block, of a table that lies on the host; send them in the message"));
  EXPECT_EQ(CodeOf(1, Rows(wire::kPull, 0, {1}, {}, kOnHost)), StatusCode::kOk);
}

TEST_F(LanePlacedRowsTest, WhoHasNoBlockNamesNoneAndAnOldChannelNeither) {
  const TestEntry pull = Rows(kPlacedPull, 0, {1}, {0}), push = Rows(kPlacedPush, 1, {1}, {0});
  EXPECT_EQ(CodeOf(2, pull), StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(2, push), StatusCode::kFailedPrecondition);
  Put(Open(1), 0, {1, 1, 1});
  wire::v1::Hello again = lane_.HelloOf(wire::v1::ROLE_WORKER, 0, "c0");
  again.set_incarnation(lane_.header(1).incarnation.value());
  again.set_ps_incarnation(kPsLife);
  again.set_is_chief(true);
  EXPECT_EQ(lane_.SayHello(7, again).kind(), wire::Kind::kWelcome);
  EXPECT_EQ(CodeOf(1, pull), StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(1, push), StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(7, push), StatusCode::kOk);
}

TEST_F(LanePlacedRowsTest, ALaneTellsWhichTablesAreOnItsDevice) {
  const auto installed = lane_.Install(1, lane_.Declare(1, model_).at(0).As<wire::v1::Declared>()).at(0);
  EXPECT_EQ(installed.As<wire::v1::Installed>().tables_on_device_size(), 1);
  EXPECT_EQ(installed.As<wire::v1::Installed>().tables_on_device(0), kThere);
  const auto welcome = lane_.Join(3, 0).As<wire::v1::Welcome>();
  ASSERT_EQ(welcome.tables_on_device_size(), 1);
  EXPECT_EQ(welcome.tables_on_device(0), kThere);
}

}  // namespace
}  // namespace basin
