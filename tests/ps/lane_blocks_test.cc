// What a message may name in the block that a lane has lent, and who may.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "cluster_spec/table_placement.h"
#include "tests/ps/lane_blocks_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

TEST_F(LaneBlocksTest, AGradientIsReadWhereItLiesAndParametersGoWhereTheyAreWanted) {
  char* const block = Open(1);
  Put(block, 64, {1, 2, 3, 4});
  Put(block, kBlockBytes - 64, {5, 6, 7, 8});
  const Heard heard = lane_.Update(
      1, {{.flags = kPlacedPush | wire::kPull, .sequence = 1, .payload = PlacesOf({64, 128})},
          {.shard = 1, .flags = wire::kAssign | wire::kPlaced, .sequence = 1, .payload = PlacesOf({kBlockBytes - 64})},
          {.shard = 1, .flags = kPlacedPull, .payload = PlacesOf({192})}});
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(heard.message.entries[i].code, 0) << i;
    EXPECT_TRUE(heard.message.payloads[i].empty()) << i;
  }
  EXPECT_EQ(heard.message.entries[0].flags & kPlacedPull, kPlacedPull);
  EXPECT_EQ(Get(block, 128), (std::vector<float>{-1, -2, -3, -4}));
  EXPECT_EQ(Get(block, 192), (std::vector<float>{5, 6, 7, 8}));
  EXPECT_EQ(lane_.core.counters().ipc_bytes_in.value(), 32u);
  EXPECT_EQ(lane_.core.counters().ipc_bytes_out.value(), 32u);
  EXPECT_TRUE(
      absl::StrContains(lane_.core.TakeNotes().back(),
                        "device memory of worker 0 (pid 4711) comes through CUDA IPC: 2097152 bytes of fake:0"));
}

TEST_F(LaneBlocksTest, PlacesOutsideTheBlockAreRefusedAndNothingChanges) {
  char* const block = Open(1);
  Put(block, 0, {1, 1, 1, 1});
  const std::vector<std::vector<uint64_t>> hostile = {
      {}, {0, 0}, {32}, {63}, {kBlockBytes}, {kBlockBytes + 64}, {uint64_t{0} - 64}, {uint64_t{1} << 63}};
  for (const std::vector<uint64_t>& places : hostile) {
    const std::string text = PlacesOf(places);
    EXPECT_EQ(CodeOf(1, {.flags = kPlacedPush, .sequence = 1, .payload = text}), StatusCode::kInvalidArgument);
    EXPECT_EQ(CodeOf(1, {.flags = wire::kAssign | wire::kPlaced, .sequence = 1, .payload = text}),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(CodeOf(1, {.flags = kPlacedPull, .payload = text}), StatusCode::kInvalidArgument);
    std::vector<uint64_t> both = places;
    both.insert(both.begin(), 0);
    if (both.size() != 2) continue;
    EXPECT_EQ(CodeOf(1, {.flags = kPlacedPush | wire::kPull, .sequence = 1, .payload = PlacesOf(both)}),
              StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(CodeOf(1, {.flags = kPlacedPush, .sequence = 1, .payload = std::string(7, 'x')}),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(1, {.flags = wire::kPlaced, .payload = PlacesOf({0})}), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(1, {.shard = BucketShard(0, 0).value(), .flags = kPlacedPull, .payload = PlacesOf({0}), .rows = 1}),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(lane_.Pull(1, 0), (std::vector<float>{0, 0, 0, 0}));
  // The sequence was not used up.
  EXPECT_EQ(CodeOf(1, {.flags = kPlacedPush, .sequence = 1, .payload = PlacesOf({0})}), StatusCode::kOk);
}

TEST_F(LaneBlocksTest, WhoHasNoBlockNamesNone) {
  Open(1);
  EXPECT_EQ(CodeOf(2, {.flags = kPlacedPush, .sequence = 1, .payload = PlacesOf({0})}),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(2, {.flags = kPlacedPull, .payload = PlacesOf({0})}), StatusCode::kFailedPrecondition);
  LaneHarness on_host;
  on_host.Join(1, 0);
  on_host.SetUpModel(1, OneVariable(4));
  const Heard heard = on_host.Update(1, {{.flags = kPlacedPull, .payload = PlacesOf({0})}});
  EXPECT_EQ(static_cast<StatusCode>(heard.message.entries.at(0).code), StatusCode::kFailedPrecondition);
}

TEST_F(LaneBlocksTest, TheSameLifeGetsTheSameBlockAndAnotherLifeAnother) {
  char* const block = Open(1);
  EXPECT_EQ(Open(1), block);
  EXPECT_NE(Open(2), block);
  EXPECT_EQ(device_->lent_bytes(), 2 * kBlockBytes);
  // The task's next process.
  lane_.now += absl::Minutes(1);
  lane_.Tick();
  lane_.Join(3, 0, "another process");
  EXPECT_EQ(CodeOf(3, {.flags = kPlacedPull, .payload = PlacesOf({0})}), StatusCode::kFailedPrecondition);
  EXPECT_NE(Open(3), block);
}

TEST_F(LaneBlocksTest, AfterACutTheNewChannelNamesTheBlockAndTheOldOneNoMore) {
  char* const block = Open(1);
  Put(block, 0, {1, 1, 1, 1});
  wire::v1::Hello again = lane_.HelloOf(wire::v1::ROLE_WORKER, 0, "c0");
  again.set_incarnation(lane_.header(1).incarnation.value());
  again.set_ps_incarnation(kPsLife);
  again.set_is_chief(true);
  EXPECT_EQ(lane_.SayHello(7, again).kind(), wire::Kind::kWelcome);
  // What was under way when it was cut comes late, and its place may hold something else by then.
  EXPECT_EQ(CodeOf(1, {.flags = kPlacedPush, .sequence = 1, .payload = PlacesOf({0})}),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(1, {.flags = kPlacedPull, .payload = PlacesOf({0})}), StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(7, {.flags = kPlacedPush, .sequence = 1, .payload = PlacesOf({0})}), StatusCode::kOk);
  EXPECT_EQ(Get(block, 0), (std::vector<float>{1, 1, 1, 1}));
  EXPECT_EQ(lane_.Pull(7, 0), (std::vector<float>{-1, -1, -1, -1}));
}

TEST_F(LaneBlocksTest, WhatIsNotFiniteIsRefused) {
  char* const block = Open(1);
  Put(block, 0, {1, std::nanf(""), 1, 1});
  EXPECT_EQ(CodeOf(1, {.flags = kPlacedPush | wire::kPull, .sequence = 1, .payload = PlacesOf({0, 64})}),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(1, {.flags = wire::kAssign | wire::kPlaced, .sequence = 1, .payload = PlacesOf({0})}),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(lane_.Pull(1, 0), (std::vector<float>{0, 0, 0, 0}));
}

TEST_F(LaneBlocksTest, AnotherDeviceOrAnUnknownProcessGetsNone) {
  EXPECT_EQ(Ask(1, "another device").status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Ask(1, "").status().code(), StatusCode::kFailedPrecondition);
  LaneCoreOptions options = Lending(device_);
  options.peer_process = [](wire::PeerId) -> absl::StatusOr<UniqueFd> {
    return absl::FailedPreconditionError("which process?");
  };
  LaneHarness lane(options);
  lane.Join(1, 0);
  wire::v1::DeviceBlock asked;
  asked.set_device_id("the fake device");
  asked.set_bytes(1);
  EXPECT_EQ(lane.Ask(1, wire::Kind::kDeviceBlock, asked).at(0).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(lane.core.TakeNotes().back(), "comes through the host: which process?"));
  EXPECT_EQ(device_->lent_bytes(), 0u);
}

TEST_F(LaneBlocksTest, AGoodbyeThatSaysSoGivesTheBlockBack) {
  Open(1);
  wire::v1::Goodbye goodbye;
  lane_.Ask(1, wire::Kind::kGoodbye, goodbye);
  EXPECT_EQ(device_->lent_bytes(), kBlockBytes);  // it may still be open: the process's end is waited for
  Open(2);
  goodbye.set_device_block_closed(true);
  lane_.Ask(2, wire::Kind::kGoodbye, goodbye);
  const absl::Time deadline = absl::Now() + absl::Minutes(2);  // a thread frees it
  while (device_->lent_bytes() > kBlockBytes && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(device_->lent_bytes(), kBlockBytes);
}

}  // namespace
}  // namespace basin
