#include "bench/harness/stress_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "bench/harness/exact_sums.h"

namespace basin::bench {
namespace {

StressPlan PlanOf(StressOptions options) {
  absl::StatusOr<StressPlan> plan = StressPlan::Make(options);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

// What a variable is when each of its shards was pushed to so often.
std::vector<float> Values(const StressPlan& plan, uint32_t variable, const std::function<uint64_t(size_t)>& pushes) {
  const Placement& placement = plan.placement();
  std::vector<float> values(placement.variables()[variable].elements());
  const auto [first, end] = placement.shards_of(VariableId(variable));
  for (uint32_t shard = first.value(); shard < end.value(); ++shard) {
    const ShardPlace& place = placement.shard(ShardId(shard));
    for (uint64_t i = place.begin; i < place.end; ++i)
      values[i] = -static_cast<float>(pushes(shard - first.value())) * GradientAt(variable, i);
  }
  return values;
}

TEST(StressPlanTest, TheSameSeedMakesTheSameKillsAndAnotherMakesOthers) {
  const auto times = [](uint64_t seed) {
    const StressPlan plan = PlanOf({.seed = seed});
    std::vector<double> at;
    for (const Kill& kill : plan.kills()) at.push_back(kill.at_s);
    return at;
  };
  EXPECT_EQ(times(1), times(1));
  EXPECT_NE(times(1), times(2));
}

TEST(StressPlanTest, TheChiefAndHalfOfTheProcessesAreNeverKilled) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const StressPlan plan = PlanOf({.workers = 40, .clients_per_process = 4, .seconds = 100, .seed = seed});
    EXPECT_EQ(plan.processes(), 10u);
    std::set<uint32_t> killed;
    double before = 0;
    for (const Kill& kill : plan.kills()) {
      EXPECT_GE(kill.at_s, before);
      EXPECT_LT(kill.at_s, 100);
      before = kill.at_s;
      killed.insert(kill.process);
    }
    EXPECT_FALSE(killed.contains(0));
    EXPECT_LE(killed.size(), 5u);
  }
}

TEST(StressPlanTest, NobodyIsKilledWhereThereIsOneProcessOrItIsNotWanted) {
  EXPECT_TRUE(PlanOf({.workers = 4, .clients_per_process = 4}).kills().empty());
  EXPECT_TRUE(PlanOf({.kill = false}).kills().empty());
}

TEST(StressPlanTest, EveryWorkerIsInOneProcess) {
  const StressPlan plan = PlanOf({.workers = 10, .clients_per_process = 4});
  EXPECT_EQ(plan.processes(), 3u);
  EXPECT_EQ(plan.workers_of(0), (std::pair<uint32_t, uint32_t>(0, 4)));
  EXPECT_EQ(plan.workers_of(2), (std::pair<uint32_t, uint32_t>(8, 10)));
}

TEST(StressPlanTest, BoundsAddUpOverAllThatPushed) {
  const StressPlan plan = PlanOf({.workers = 2});
  std::vector<Tally> tallies(2);
  for (Tally& tally : tallies) {
    tally.sent.assign(1 + plan.shared(), 5);
    tally.acknowledged.assign(1 + plan.shared(), 3);
  }
  tallies[1].sent[0] = 9;
  const std::vector<Bounds> bounds = BoundsOf(plan, tallies);
  EXPECT_EQ(bounds[0].least, 3u);
  EXPECT_EQ(bounds[0].most, 5u);
  EXPECT_EQ(bounds[1].most, 9u);
  EXPECT_EQ(bounds[2].least, 6u);
  EXPECT_EQ(bounds[2].most, 10u);
}

TEST(StressPlanTest, ShardsMayDifferWithinTheBoundsAndElementsOfAShardMayNot) {
  const StressPlan plan = PlanOf({.workers = 2, .ps = 2});
  const uint32_t last = plan.variables() - 1;  // a shared one of 1 MiB
  const auto [first, end] = plan.placement().shards_of(VariableId(last));
  ASSERT_GT(end.value() - first.value(), 1u);
  const Bounds bounds{.least = 10, .most = 11};
  std::vector<float> values = Values(plan, last, [](size_t shard) { return 10 + shard % 2; });
  EXPECT_TRUE(CheckWithin(plan, last, bounds, values).ok());
  values[1] -= GradientAt(last, 1);  // half of a push
  const absl::Status torn = CheckWithin(plan, last, bounds, values);
  EXPECT_EQ(torn.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(torn.message().find("element 1 "), absl::string_view::npos) << torn;
}

TEST(StressPlanTest, LostAndDoubledPushesAreFound) {
  const StressPlan plan = PlanOf({.workers = 2});
  const auto with = [&](uint64_t pushes) { return Values(plan, 0, [=](size_t) { return pushes; }); };
  const Bounds exact{.least = 10, .most = 10};
  EXPECT_TRUE(CheckWithin(plan, 0, exact, with(10)).ok());
  EXPECT_EQ(CheckWithin(plan, 0, exact, with(9)).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CheckWithin(plan, 0, exact, with(11)).code(), absl::StatusCode::kDataLoss);
  std::vector<float> unfilled(with(10).size(), NAN);
  EXPECT_FALSE(CheckWithin(plan, 0, exact, unfilled).ok());
}

TEST(StressPlanTest, TheServersCountMustLieWithinTheBoundsToo) {
  const StressPlan plan = PlanOf({.workers = 2});
  const std::vector<Bounds> bounds(plan.variables(), Bounds{.least = 2, .most = 3});
  const uint64_t shards = plan.placement().shards().size();
  EXPECT_TRUE(CheckAppliedWithin(plan, bounds, 2 * shards).ok());
  EXPECT_TRUE(CheckAppliedWithin(plan, bounds, 3 * shards).ok());
  EXPECT_EQ(CheckAppliedWithin(plan, bounds, 2 * shards - 1).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CheckAppliedWithin(plan, bounds, 3 * shards + 1).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace basin::bench
