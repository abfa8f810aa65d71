#include "bench/harness/statistics.h"

#include <gtest/gtest.h>

namespace basin::bench {
namespace {

TEST(StatisticsTest, MedianIsTheMiddleOrBetweenTheTwoInTheMiddle) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(Median({7}), 7);
  EXPECT_EQ(Median({}), 0);
}

TEST(StatisticsTest, PercentileIsTheNearestRank) {
  std::vector<double> hundred;
  for (int i = 100; i >= 1; --i) hundred.push_back(i);
  EXPECT_EQ(Percentile(hundred, 0.5), 50);
  EXPECT_EQ(Percentile(hundred, 0.99), 99);
  EXPECT_EQ(Percentile(hundred, 1), 100);
  EXPECT_EQ(Percentile({5}, 0.99), 5);
  EXPECT_EQ(Percentile({}, 0.5), 0);
}

TEST(StatisticsTest, SlowestOverMeanIsOneForEqualSharesAndNothingForIdlers) {
  EXPECT_EQ(SlowestOverMean({10, 10, 10}), 1);
  EXPECT_EQ(SlowestOverMean({5, 10, 15}), 0.5);
  EXPECT_EQ(SlowestOverMean({0, 10}), 0);
  EXPECT_EQ(SlowestOverMean({}), 1);
}

TEST(StatisticsTest, LatencySampleIsBoundedAndKeepsTheDistribution) {
  LatencySample sample(1000);
  for (int i = 0; i < 1000000; ++i) sample.Add(i % 100);
  EXPECT_LT(sample.values().size(), 1000u);
  EXPECT_GE(sample.values().size(), 400u);
  sample.Clear();
  sample.Add(3);
  EXPECT_EQ(sample.values(), std::vector<double>{3});
}

TEST(StatisticsTest, LatencySampleSeesTheWholeRunNotOnlyItsBeginning) {
  LatencySample sample(1000);
  for (int i = 0; i < 100000; ++i) sample.Add(i < 50000 ? 1 : 9);
  EXPECT_EQ(Percentile(sample.values(), 0.25), 1);
  EXPECT_EQ(Percentile(sample.values(), 0.75), 9);
}

}  // namespace
}  // namespace basin::bench
