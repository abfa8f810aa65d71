#include "worker/train/auc.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/base/random.h"

namespace basin {
namespace {

TEST(AucTest, IsTheShareOfPairsInTheRightOrder) {
  EXPECT_EQ(Auc({0.1f, 0.4f, 0.35f, 0.8f}, {0, 0, 1, 1}), 0.75);
  EXPECT_EQ(Auc({1, 2, 3, 4}, {0, 0, 1, 1}), 1.0);
  EXPECT_EQ(Auc({4, 3, 2, 1}, {0, 0, 1, 1}), 0.0);
}

TEST(AucTest, EqualScoresCountHalf) {
  EXPECT_EQ(Auc({7, 7, 7}, {0, 1, 0}), 0.5);
  EXPECT_EQ(Auc({1, 2, 2, 3}, {0, 0, 1, 1}), (4 - 0.5) / 4);
}

TEST(AucTest, IsTheSameAsCountingAllPairs) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::vector<float> scores;
    std::vector<uint8_t> labels;
    for (uint64_t i = 0; i < 200; ++i) {
      labels.push_back(UnitAt(seed, 2 * i) < 0.3);
      scores.push_back(static_cast<float>(std::floor(40 * UnitAt(seed, 2 * i + 1)) + 5 * labels.back()));  // with ties
    }
    double above = 0, pairs = 0;
    for (size_t p = 0; p < labels.size(); ++p) {
      for (size_t n = 0; n < labels.size(); ++n) {
        if (labels[p] == 0 || labels[n] == 1) continue;
        above += scores[p] > scores[n] ? 1 : scores[p] == scores[n] ? 0.5 : 0;
        ++pairs;
      }
    }
    EXPECT_DOUBLE_EQ(Auc(scores, labels), above / pairs) << "seed " << seed;
  }
}

TEST(AucTest, WithoutBothLabelsOrWithANaNThereIsNone) {
  EXPECT_TRUE(std::isnan(Auc({}, {})));
  EXPECT_TRUE(std::isnan(Auc({1, 2}, {1, 1})));
  EXPECT_TRUE(std::isnan(Auc({1, 2}, {0, 0})));
  EXPECT_TRUE(std::isnan(Auc({1, std::numeric_limits<float>::quiet_NaN()}, {0, 1})));
}

}  // namespace
}  // namespace basin
