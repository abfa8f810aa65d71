#include "bench/harness/key_stream.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace basin::bench {
namespace {

TEST(KeyStreamTest, ZipfRanksCoverTheRangeAndNoMore) {
  EXPECT_EQ(ZipfRank(1, 1.05, 0.999), 0u);
  EXPECT_EQ(ZipfRank(1000, 1.05, 0), 0u);
  EXPECT_EQ(ZipfRank(1000, 1.05, 1 - 1e-16), 999u);
  for (int i = 0; i < 1000; ++i) EXPECT_LT(ZipfRank(10, 1.05, i / 1000.0), 10u);
}

TEST(KeyStreamTest, LowRanksComeMoreOften) {
  std::map<uint64_t, int> times;
  for (int i = 0; i < 100000; ++i) ++times[ZipfRank(1000, 1.05, i / 100000.0)];
  EXPECT_GT(times[0], 5 * times[9]);
  EXPECT_GT(times[9], 5 * times[99]);
}

TEST(KeyStreamTest, DifferentKeysAreRowsOfTheTableAndNoneTwice) {
  Random random(3);
  for (const auto& [rows, count] : {std::pair<uint64_t, size_t>{100, 100}, {1000000, 10000}, {1, 1}}) {
    const std::vector<uint64_t> keys = DifferentKeys(random, rows, count);
    const std::set<uint64_t> seen(keys.begin(), keys.end());
    EXPECT_EQ(seen.size(), count);
    EXPECT_LT(*seen.rbegin(), rows);
  }
}

TEST(KeyStreamTest, DifferentKeysComeFromAllOverTheTableInNoOrder) {
  Random random(5);
  const std::vector<uint64_t> keys = DifferentKeys(random, 1000000, 10000);
  uint64_t low = 0, rising = 0;
  for (size_t i = 1; i < keys.size(); ++i) {
    low += keys[i] < 500000;
    rising += keys[i] > keys[i - 1];
  }
  EXPECT_NEAR(static_cast<double>(low), 5000, 300);
  EXPECT_NEAR(static_cast<double>(rising), 5000, 300);
}

TEST(KeyStreamTest, CriteoKeysOfAColumnStayWithinItsCardinality) {
  Random random(4);
  const std::vector<uint64_t> keys = CriteoKeys(random, 26000);
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(keys[i] >> 40, i % 26);
    EXPECT_LT(keys[i] & ((uint64_t{1} << 40) - 1), kCriteoCardinalities[i % 26]);
  }
}

}  // namespace
}  // namespace basin::bench
