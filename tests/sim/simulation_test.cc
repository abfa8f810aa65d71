// Many seeds: all guarantees hold. A failure prints the seed that replays it (RunSimulation(OptionsOfSeed(seed))).
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "tests/sim/sim_cluster.h"
#include "tests/sim/sim_seeds.h"

namespace basin::sim {
namespace {

TEST(SimulationTest, GuaranteesHoldOverManySeeds) {
  uint64_t acknowledged = 0, fenced = 0, reconnects = 0, refused = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const SimOutcome outcome = RunSimulation(OptionsOfSeed(seed));
    ASSERT_TRUE(outcome.violations.empty()) << "seed " << seed << ":\n" << absl::StrJoin(outcome.violations, "\n");
    acknowledged += outcome.pushes_acknowledged;
    fenced += outcome.fenced;
    reconnects += outcome.reconnects;
    refused += outcome.refused;
  }
  // The faults did happen: a simulation in which nothing goes wrong would prove nothing.
  EXPECT_GT(acknowledged, kSeeds * 10);
  EXPECT_GT(fenced, kSeeds / 10);
  EXPECT_GT(reconnects, kSeeds);
  EXPECT_GT(refused, kSeeds / 10);
}

TEST(SimulationTest, TheSameSeedGivesTheSameTrace) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const SimOutcome first = RunSimulation(OptionsOfSeed(seed));
    const SimOutcome second = RunSimulation(OptionsOfSeed(seed));
    EXPECT_EQ(first.trace, second.trace) << "seed " << seed;
    EXPECT_EQ(first.events, second.events) << "seed " << seed;
  }
  EXPECT_NE(RunSimulation(OptionsOfSeed(1)).trace, RunSimulation(OptionsOfSeed(2)).trace);
}

}  // namespace
}  // namespace basin::sim
