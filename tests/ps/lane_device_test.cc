// A lane whose shards lie in a device's memory answers as one on the host, and takes a message as one batch.
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/match.h"
#include "cluster_spec/table_placement.h"
#include "ps/shard.h"
#include "tests/ps/fake_shard_device.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

LaneCoreOptions With(std::shared_ptr<ShardDevice> device) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.device = std::move(device);
  return options;
}

// `count` variables of two elements, each one shard: shard i is variable i.
wire::v1::Model Variables(int count) {
  wire::v1::Model model = OneVariable(2);
  for (int i = 1; i < count; ++i) {
    *model.add_variables() = model.variables(0);
    model.mutable_variables(i)->set_name(absl::StrCat("w", i));
  }
  return model;
}

StatusCode CodeOf(const Heard& heard, size_t entry) {
  return static_cast<StatusCode>(heard.message.entries.at(entry).code);
}
std::vector<float> Pulled(const Heard& heard, size_t entry) {
  const absl::Span<const char> payload = heard.message.payloads.at(entry);
  return ToFloats({payload.data(), payload.size()});
}

class LaneDeviceTest : public ::testing::Test {
 protected:
  LaneDeviceTest() {
    lane_.Join(1, 0);
    lane_.SetUpModel(1, Variables(4));
  }
  static TestEntry Push(uint32_t shard, uint64_t sequence, std::vector<float> gradient, uint16_t flags = wire::kPush) {
    return {.shard = shard, .flags = flags, .sequence = sequence, .payload = Floats(std::move(gradient))};
  }

  const std::shared_ptr<FakeShardDevice> device_ = std::make_shared<FakeShardDevice>();
  LaneHarness lane_{With(device_)};
};

TEST_F(LaneDeviceTest, AMessageIsOneBatch) {
  const Heard heard = lane_.Update(1, {Push(0, 1, {1, 2}, wire::kPush | wire::kPull),
                                       {.shard = 1, .flags = wire::kPull},
                                       Push(2, 1, {3, 4}),
                                       Push(3, 1, {5, 6}, wire::kAssign | wire::kPull)});
  EXPECT_EQ(device_->runs(), 1);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(CodeOf(heard, i), StatusCode::kOk) << i;
  EXPECT_EQ(Pulled(heard, 0), (std::vector<float>{-1, -2}));
  EXPECT_EQ(Pulled(heard, 1), (std::vector<float>{0, 0}));
  EXPECT_EQ(Pulled(heard, 3), (std::vector<float>{5, 6}));
  EXPECT_EQ(heard.message.entries[0].version, Version(2));
  EXPECT_EQ(lane_.Pull(1, 2), (std::vector<float>{-3, -4}));
  EXPECT_EQ(lane_.core.counters().applied.value(), 3u);
  EXPECT_EQ(lane_.core.counters().pulled.value(), 4u);
}

TEST_F(LaneDeviceTest, OnlyWhatIsNotFiniteIsRefused) {
  const Heard heard = lane_.Update(1, {Push(0, 1, {1, 1}), Push(1, 1, {1, std::nanf("")}, wire::kPush | wire::kPull),
                                       Push(2, 1, {1, 1}, wire::kPush | wire::kPull)});
  EXPECT_EQ(device_->runs(), 1);
  EXPECT_EQ(CodeOf(heard, 0), StatusCode::kOk);
  EXPECT_EQ(CodeOf(heard, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(heard, 2), StatusCode::kOk);
  EXPECT_FALSE(heard.message.entries[1].flags & wire::kPull);
  EXPECT_TRUE(heard.message.payloads[1].empty());
  EXPECT_EQ(heard.message.entries[1].version, Version(1));
  EXPECT_EQ(lane_.Pull(1, 1), (std::vector<float>{0, 0}));
  EXPECT_EQ(lane_.core.TakeNotes().back(),
            "refused an update by worker 0: push to \"w1\" elements [0, 2): element 1 is NaN");
  // The sequence was not used up.
  EXPECT_EQ(CodeOf(lane_.Update(1, {Push(1, 1, {1, 1})}), 0), StatusCode::kOk);
  EXPECT_EQ(lane_.core.counters().refused.value(), 1u);
}

TEST_F(LaneDeviceTest, AShardThatStandsAgainWaitsForItsFirstWrite) {
  const Heard heard = lane_.Update(1, {Push(0, 1, {1, 1}), Push(0, 2, {1, 1}, wire::kPush | wire::kPull),
                                       Push(1, 1, {1, 1}), Push(0, 2, {1, 1}, wire::kPush | wire::kPull)});
  EXPECT_EQ(device_->runs(), 2);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(CodeOf(heard, i), StatusCode::kOk) << i;
  EXPECT_TRUE(heard.message.entries[3].flags & wire::kRepeat);
  EXPECT_EQ(Pulled(heard, 1), (std::vector<float>{-2, -2}));
  EXPECT_EQ(Pulled(heard, 3), (std::vector<float>{-2, -2}));
  EXPECT_EQ(lane_.Pull(1, 1), (std::vector<float>{-1, -1}));
}

TEST_F(LaneDeviceTest, RepeatsAndGapsChangeNothing) {
  lane_.Update(1, {Push(0, 1, {1, 1})});
  const Heard heard = lane_.Update(1, {Push(0, 1, {1, 1}, wire::kPush | wire::kPull), Push(1, 2, {1, 1})});
  EXPECT_TRUE(heard.message.entries[0].flags & wire::kRepeat);
  EXPECT_EQ(Pulled(heard, 0), (std::vector<float>{-1, -1}));
  EXPECT_EQ(CodeOf(heard, 1), StatusCode::kOutOfRange);
  EXPECT_EQ(lane_.core.counters().repeats.value(), 1u);
  EXPECT_EQ(lane_.Pull(1, 1), (std::vector<float>{0, 0}));
}

TEST_F(LaneDeviceTest, TablesStayOnTheHostAndAMessageMayMix) {
  wire::v1::Model model = Variables(4);
  auto* table = model.add_tables();
  table->set_name("user");
  table->set_dim(2);
  table->set_storage(static_cast<uint32_t>(DType::kF32));
  table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
  table->set_admit_after(1);
  table->set_admit_probability(1);
  lane_.SetUpModel(1, model);
  const uint64_t key = 7;
  const uint32_t bucket = BucketShard(0, TablePlacement::Make(1).BucketOf(key)).value();
  const std::string keys(reinterpret_cast<const char*>(&key), sizeof(key));
  const Heard heard = lane_.Update(
      1, {{.shard = bucket, .flags = wire::kPush, .sequence = 1, .payload = keys + Floats({1, 2}), .rows = 1},
          Push(0, 1, {3, 4}, wire::kPush | wire::kPull),
          {.shard = bucket, .flags = wire::kPull, .payload = keys, .rows = 1}});
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(CodeOf(heard, i), StatusCode::kOk) << i;
  EXPECT_EQ(Pulled(heard, 1), (std::vector<float>{-3, -4}));
  EXPECT_EQ(Pulled(heard, 2), (std::vector<float>{-1, -2}));
}

TEST_F(LaneDeviceTest, WithoutTheDevicesMemoryTheModelIsRefusedAndASmallerOneTaken) {
  LaneHarness lane(With(std::make_shared<FakeShardDevice>(1000)));
  lane.Join(1, 0);
  const auto declared = lane.Declare(1, OneVariable(2)).at(0).As<wire::v1::Declared>();
  EXPECT_TRUE(lane.Install(1, declared).at(0).status().ok());
  const auto larger = lane.Declare(1, Variables(40)).at(0).As<wire::v1::Declared>();
  const absl::Status refused = lane.Install(1, larger).at(0).status();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StartsWith(refused.message(), "ps 0: ")) << refused;
  EXPECT_EQ(lane.core.shard(ShardId(1)), nullptr);
  EXPECT_EQ(lane.Push(1, 1, {1, 1}), StatusCode::kOk);
}

TEST_F(LaneDeviceTest, ALostDeviceAcknowledgesNothing) {
  EXPECT_EQ(CodeOf(lane_.Update(1, {Push(0, 1, {1, 1})}), 0), StatusCode::kOk);
  EXPECT_TRUE(lane_.core.failure().ok());
  device_->Lose();
  const Heard heard = lane_.Update(
      1, {Push(0, 2, {1, 1}, wire::kPush | wire::kPull), {.shard = 1, .flags = wire::kPull}, Push(2, 2, {1, 1})});
  EXPECT_EQ(CodeOf(heard, 0), StatusCode::kInternal);
  EXPECT_EQ(CodeOf(heard, 1), StatusCode::kInternal);
  EXPECT_EQ(CodeOf(heard, 2), StatusCode::kOutOfRange);
  for (const absl::Span<const char> payload : heard.message.payloads) EXPECT_TRUE(payload.empty());
  EXPECT_EQ(lane_.core.shard(ShardId(0))->version(), Version(2));
  EXPECT_EQ(lane_.core.shard(ShardId(0))->last_sequence(lane_.header(1).worker, lane_.header(1).incarnation),
            Sequence(1));
  EXPECT_EQ(lane_.core.failure(), absl::InternalError("fake: lost"));
}

TEST_F(LaneDeviceTest, StatsNameTheDevice) {
  const std::string json = lane_.core.StatsJson(lane_.now);
  EXPECT_TRUE(absl::StrContains(json, "\"device\": \"fake:0\", \"device_bytes\": ")) << json;
  EXPECT_FALSE(absl::StrContains(json, "\"device_bytes\": 0,")) << json;
}

TEST_F(LaneDeviceTest, APushIsAppliedThoughItsPullIsRefused) {
  device_->RefuseReads();
  const Heard heard = lane_.Update(1, {Push(0, 1, {1, 2}, wire::kPush | wire::kPull),
                                       Push(1, 1, {std::nanf(""), 2}, wire::kPush | wire::kPull),
                                       {.shard = 2, .flags = wire::kPull}});
  // The client counts on the first, whose pull it asks for again; the second was not applied, and its number is free.
  EXPECT_EQ(CodeOf(heard, 0), StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(heard, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(heard, 2), StatusCode::kResourceExhausted);
  const Heard next = lane_.Update(1, {Push(0, 2, {1, 2}), Push(1, 1, {1, 2})});
  EXPECT_EQ(CodeOf(next, 0), StatusCode::kOk);
  EXPECT_EQ(CodeOf(next, 1), StatusCode::kOk);
  EXPECT_EQ(next.message.entries.at(0).flags & wire::kRepeat, 0);
}

}  // namespace
}  // namespace basin
