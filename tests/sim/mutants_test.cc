// The simulation proves something only if it finds bugs: each planted one must be found within a thousand seeds.
// Linked against basin_ps_mutants, the same cores compiled with the plants.
#include "ps/mutants.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "tests/sim/sim_cluster.h"
#include "tests/sim/sim_seeds.h"

namespace basin::sim {
namespace {

constexpr uint64_t kMostSeeds = 1000;

struct Plant {
  Mutant mutant;
  const char* name;
};

class MutantTest : public ::testing::TestWithParam<Plant> {};

TEST_P(MutantTest, IsFound) {
  planted_mutant = GetParam().mutant;
  uint64_t found = 0;
  std::vector<std::string> violations;
  for (uint64_t seed = 1; seed <= kMostSeeds && found == 0; ++seed) {
    SimOutcome outcome = RunSimulation(OptionsOfSeed(seed));
    if (!outcome.violations.empty()) {
      found = seed;
      violations = std::move(outcome.violations);
    }
  }
  planted_mutant = Mutant::kNone;
  ASSERT_NE(found, 0u) << GetParam().name << " was not found within " << kMostSeeds << " seeds";
  std::printf("%s: found with seed %llu: %s\n", GetParam().name, static_cast<unsigned long long>(found),
              violations[0].c_str());
}

TEST(MutantTest, WithoutAPlantNothingIsFound) {
  planted_mutant = Mutant::kNone;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const SimOutcome outcome = RunSimulation(OptionsOfSeed(seed));
    ASSERT_TRUE(outcome.violations.empty()) << "seed " << seed << ":\n" << absl::StrJoin(outcome.violations, "\n");
  }
}

INSTANTIATE_TEST_SUITE_P(Plants, MutantTest,
                         ::testing::Values(Plant{Mutant::kAcknowledgeBeforeApply, "AcknowledgeBeforeApply"},
                                           Plant{Mutant::kApplyRepeat, "ApplyRepeat"},
                                           Plant{Mutant::kSkipFence, "SkipFence"},
                                           Plant{Mutant::kCountLostLeaseAsDone, "CountLostLeaseAsDone"},
                                           Plant{Mutant::kReuseIncarnation, "ReuseIncarnation"},
                                           Plant{Mutant::kHandOutPieceTwice, "HandOutPieceTwice"},
                                           Plant{Mutant::kForgetSequenceOnReconnect, "ForgetSequenceOnReconnect"},
                                           Plant{Mutant::kServeTornShard, "ServeTornShard"},
                                           Plant{Mutant::kBarrierReleasesEarly, "BarrierReleasesEarly"},
                                           Plant{Mutant::kClockGoesBack, "ClockGoesBack"},
                                           Plant{Mutant::kAcceptGap, "AcceptGap"},
                                           Plant{Mutant::kRefusedPushUsesSequence, "RefusedPushUsesSequence"},
                                           Plant{Mutant::kForgetToRecordBucket, "ForgetToRecordBucket"},
                                           Plant{Mutant::kForgetBucketsOnReconnect, "ForgetBucketsOnReconnect"},
                                           Plant{Mutant::kApplyRowsOfRefusedPush, "ApplyRowsOfRefusedPush"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace basin::sim
