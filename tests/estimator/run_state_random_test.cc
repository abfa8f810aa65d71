// Runs to which happens whatever may happen. What must hold of all of them: see RunWorld::Live and Time.
#include <gtest/gtest.h>

#include <map>

#include "estimator/run/run_phase.h"
#include "tests/estimator/run_world.h"

namespace basin {
namespace {

TEST(RunStateRandomTest, EveryRunEndsOnceEverythingAnswers) {
  std::map<RunPhase, int> ends;
  for (uint64_t seed = 0; seed < 4000 && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RunWorld world(seed);
    world.Live();
    ++ends[world.phase()];
  }
  // Chance reaches every end.
  for (const RunPhase end : {RunPhase::kCompleted, RunPhase::kFailed, RunPhase::kCanceled}) EXPECT_GT(ends[end], 0);
}

}  // namespace
}  // namespace basin
