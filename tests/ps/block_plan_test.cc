#include "ps/device/block_plan.h"

#include <gtest/gtest.h>

namespace basin {
namespace {

ShardOptions ShardOf(uint64_t elements, wire::v1::RuleKind rule) {
  ShardOptions shard{.begin = 0, .end = elements};
  shard.rule.set_kind(rule);
  return shard;
}

using Blocks = std::map<size_t, size_t>;

TEST(BlockPlanTest, EachShardHasItsBlocksAndABatchAsManyOfThoseItTakes) {
  BlockPlan plan;
  EXPECT_EQ(plan.bytes(), 0u);
  plan.Add(ShardOf(100, wire::v1::RULE_KIND_SGD));
  EXPECT_EQ(plan.blocks(), (Blocks{{512, 1 + 1}}));
  plan.Add(ShardOf(128, wire::v1::RULE_KIND_ADAM));  // of the same size, with two slots
  EXPECT_EQ(plan.blocks(), (Blocks{{512, 1 + 3 + 2 * 3}}));
  EXPECT_EQ(plan.bytes(), 512u * 10);
}

TEST(BlockPlanTest, ABatchTakesNoMoreThanItHolds) {
  BlockPlan plan;
  for (int i = 0; i < 100; ++i) plan.Add(ShardOf(kMaxShardBytes / sizeof(float), wire::v1::RULE_KIND_MOMENTUM));
  EXPECT_EQ(plan.blocks(), (Blocks{{kMaxShardBytes, 200 + 2 * 2}}));
  BlockPlan small;
  for (size_t i = 0; i < 2 * kBatchShards; ++i) small.Add(ShardOf(1, wire::v1::RULE_KIND_SGD));
  EXPECT_EQ(small.blocks(), (Blocks{{256, 2 * kBatchShards + kBatchShards}}));
}

TEST(BlockPlanTest, AStatisticHasNoSlotsAndAnEmptyShardABlock) {
  ShardOptions statistic = ShardOf(64, wire::v1::RULE_KIND_ADAM);
  statistic.variable.set_statistic(wire::v1::STATISTIC_MEAN);
  BlockPlan plan;
  plan.Add(statistic);
  plan.Add(ShardOf(0, wire::v1::RULE_KIND_SGD));
  EXPECT_EQ(plan.blocks(), (Blocks{{256, 2 + 2}}));
}

}  // namespace
}  // namespace basin
