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

TEST(KeyStreamTest, UniformKeysAreRowsOfTheTable) {
  Random random(3);
  std::set<uint64_t> seen;
  for (const uint64_t key : UniformKeys(random, 100, 10000)) seen.insert(key);
  EXPECT_EQ(seen.size(), 100u);
  EXPECT_EQ(*seen.rbegin(), 99u);
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
