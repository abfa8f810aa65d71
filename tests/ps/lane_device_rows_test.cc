// A lane whose tables lie in a device's memory: entries of a message are one batch with those of variables, and a push
// is in the record once it was carried out.
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/match.h"
#include "cluster_spec/table_placement.h"
#include "tests/ps/fake_shard_device.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

wire::v1::Model BoundedTable(uint64_t max_bytes = 1 << 20) {
  wire::v1::Model model = OneVariable(2);
  auto* table = model.add_tables();
  table->set_name("user");
  table->set_dim(2);
  table->set_storage(static_cast<uint32_t>(DType::kF32));
  table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
  table->set_admit_after(1);
  table->set_admit_probability(1);
  table->set_max_bytes(max_bytes);
  return model;
}

class LaneDeviceRowsTest : public ::testing::Test {
 protected:
  LaneDeviceRowsTest() {
    lane_.Join(1, 0);
    lane_.SetUpModel(1, BoundedTable());
  }
  static LaneCoreOptions With(std::shared_ptr<ShardDevice> device) {
    LaneCoreOptions options = LaneHarness::DefaultOptions();
    options.device = std::move(device);
    return options;
  }
  // Of one row, whose key is its bucket's only one here.
  static TestEntry Row(uint64_t key, uint64_t sequence, std::vector<float> gradient, uint16_t flags = wire::kPush) {
    TestEntry entry{.shard = BucketShard(0, TablePlacement::Make(1).BucketOf(key)).value(),
                    .flags = flags,
                    .sequence = sequence,
                    .payload = std::string(reinterpret_cast<const char*>(&key), sizeof(key)),
                    .rows = 1};
    if (flags & wire::kPush) entry.payload += Floats(std::move(gradient));
    return entry;
  }
  static StatusCode Code(const Heard& heard, size_t entry) {
    return static_cast<StatusCode>(heard.message.entries.at(entry).code);
  }
  static std::vector<float> Rows(const Heard& heard, size_t entry) {
    const absl::Span<const char> payload = heard.message.payloads.at(entry);
    return ToFloats({payload.data(), payload.size()});
  }

  const std::shared_ptr<FakeShardDevice> device_ = std::make_shared<FakeShardDevice>();
  LaneHarness lane_{With(device_)};
};

TEST_F(LaneDeviceRowsTest, AMessageIsOneBatch) {
  const Heard heard = lane_.Update(1, {Row(1, 1, {1, 2}, wire::kPush | wire::kPull),
                                       {.flags = wire::kPush | wire::kPull, .sequence = 1, .payload = Floats({3, 4})},
                                       Row(2, 0, {}, wire::kPull),
                                       Row(3, 1, {5, 6})});
  EXPECT_EQ(device_->runs(), 1);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(Code(heard, i), StatusCode::kOk) << i;
  EXPECT_EQ(Rows(heard, 0), (std::vector<float>{-1, -2}));
  EXPECT_EQ(Rows(heard, 1), (std::vector<float>{-3, -4}));
  EXPECT_EQ(Rows(heard, 2), (std::vector<float>{0, 0}));
  EXPECT_TRUE(heard.message.payloads[3].empty());
  EXPECT_EQ(heard.message.entries[0].version, Version(2));
  EXPECT_EQ(heard.message.entries[2].version, Version(1));
  EXPECT_EQ(lane_.core.counters().rows.value(), 2u);
  EXPECT_EQ(lane_.core.counters().applied.value(), 3u);
  EXPECT_EQ(lane_.core.counters().pulled.value(), 3u);
}

TEST_F(LaneDeviceRowsTest, ABucketThatStandsAgainWaitsForWhatWasBegun) {
  const Heard heard =
      lane_.Update(1, {Row(1, 0, {}, wire::kPull), Row(1, 1, {1, 1}), Row(1, 2, {1, 1}, wire::kPush | wire::kPull),
                       Row(2, 1, {1, 1}), Row(1, 2, {1, 1}, wire::kPush | wire::kPull)});
  EXPECT_EQ(device_->runs(), 4);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(Code(heard, i), StatusCode::kOk) << i;
  EXPECT_EQ(Rows(heard, 0), (std::vector<float>{0, 0}));
  EXPECT_EQ(Rows(heard, 2), (std::vector<float>{-2, -2}));
  EXPECT_TRUE(heard.message.entries[4].flags & wire::kRepeat);
  EXPECT_EQ(Rows(heard, 4), (std::vector<float>{-2, -2}));
}

TEST_F(LaneDeviceRowsTest, WhatIsRefusedIsRefusedAlone) {
  TestEntry short_by_one = Row(4, 1, {1, 1});
  short_by_one.payload.pop_back();
  const Heard heard = lane_.Update(1, {Row(1, 1, {1, 1}), Row(2, 1, {1, std::nanf("")}, wire::kPush | wire::kPull),
                                       Row(3, 2, {1, 1}), short_by_one, Row(5, 1, {1, 1}, wire::kPush | wire::kPull)});
  EXPECT_EQ(Code(heard, 0), StatusCode::kOk);
  EXPECT_EQ(Code(heard, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(heard, 2), StatusCode::kOutOfRange);
  EXPECT_EQ(Code(heard, 3), StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(heard, 4), StatusCode::kOk);
  EXPECT_FALSE(heard.message.entries[1].flags & wire::kPull);
  EXPECT_TRUE(heard.message.payloads[1].empty());
  EXPECT_EQ(lane_.core.counters().rows.value(), 2u);
  EXPECT_EQ(lane_.core.counters().refused.value(), 3u);
  EXPECT_EQ(Code(lane_.Update(1, {Row(2, 1, {1, 1})}), 0), StatusCode::kOk);
}

TEST_F(LaneDeviceRowsTest, ALostDeviceAcknowledgesNothing) {
  EXPECT_EQ(Code(lane_.Update(1, {Row(1, 1, {1, 1})}), 0), StatusCode::kOk);
  device_->Lose();
  const Heard heard = lane_.Update(1, {Row(1, 2, {1, 1}, wire::kPush | wire::kPull), Row(2, 1, {1, 1}),
                                       Row(3, 0, {}, wire::kPull), Row(4, 2, {1, 1})});
  EXPECT_EQ(Code(heard, 0), StatusCode::kInternal);
  EXPECT_EQ(Code(heard, 1), StatusCode::kInternal);
  EXPECT_EQ(Code(heard, 2), StatusCode::kInternal);
  EXPECT_EQ(Code(heard, 3), StatusCode::kOutOfRange);
  for (const absl::Span<const char> payload : heard.message.payloads) EXPECT_TRUE(payload.empty());
  EXPECT_EQ(heard.message.entries[0].version, Version(2));
  EXPECT_EQ(lane_.core.counters().applied.value(), 1u);
  EXPECT_EQ(lane_.core.failure(), absl::InternalError("fake: lost"));
  // Another life of the client hears what was applied, and no more.
  const auto welcome = lane_.Join(2, 0).As<wire::v1::Welcome>();
  ASSERT_EQ(welcome.applied_size(), 1);
  EXPECT_EQ(welcome.applied(0).sequence(), 1u);
}

TEST_F(LaneDeviceRowsTest, ATableOnTheHostIsServedBesideOneOnTheDevice) {
  wire::v1::Model model = BoundedTable();
  *model.add_tables() = model.tables(0);
  model.mutable_tables(1)->set_name("item");
  model.mutable_tables(1)->set_max_bytes(0);
  lane_.SetUpModel(1, model);
  EXPECT_EQ(lane_.core.TakeNotes().back(), "table \"item\" stays on the host, not on fake:0: it has no max_bytes");
  TestEntry item = Row(1, 1, {7, 8}, wire::kPush | wire::kPull);
  item.shard = BucketShard(1, TablePlacement::Make(1).BucketOf(1)).value();
  const Heard heard = lane_.Update(1, {item, Row(1, 1, {1, 2}, wire::kPush | wire::kPull), item});
  EXPECT_EQ(Rows(heard, 0), (std::vector<float>{-7, -8}));
  EXPECT_EQ(Rows(heard, 1), (std::vector<float>{-1, -2}));
  EXPECT_TRUE(heard.message.entries[2].flags & wire::kRepeat);
  EXPECT_EQ(lane_.core.counters().rows.value(), 2u);
}

TEST_F(LaneDeviceRowsTest, ATableThatDoesNotFitIsRefusedAtInstall) {
  LaneHarness lane(With(std::make_shared<FakeShardDevice>(1 << 20)));
  lane.Join(1, 0);
  const auto declared = lane.Declare(1, BoundedTable(2 << 20)).at(0).As<wire::v1::Declared>();
  const absl::Status refused = lane.Install(1, declared).at(0).status();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(lane.core.model(), nullptr);
}

}  // namespace
}  // namespace basin
