#include "cluster_spec/table_placement.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <vector>

namespace basin {
namespace {

TEST(TablePlacementTest, BucketsAreAPowerOfTwoOfAtLeast64APs) {
  EXPECT_EQ(TablePlacement::Make(1).buckets(), 256u);
  EXPECT_EQ(TablePlacement::Make(4).buckets(), 256u);
  EXPECT_EQ(TablePlacement::Make(5).buckets(), 512u);
  EXPECT_EQ(TablePlacement::Make(7).buckets(), 512u);
  EXPECT_EQ(TablePlacement::Make(100).buckets(), 8192u);
  EXPECT_EQ(TablePlacement::Make(1024).buckets(), 65536u);
  EXPECT_EQ(TablePlacement::Make(65536).buckets(), 65536u);
}

TEST(TablePlacementTest, TheHashIsFixed) {
  // XXH64 with seed 0 of the key's 8 little-endian bytes, the top 8 bits; from another implementation.
  const TablePlacement table = TablePlacement::Make(1);
  EXPECT_EQ(table.BucketOf(0), 52u);
  EXPECT_EQ(table.BucketOf(1), 159u);
  EXPECT_EQ(table.BucketOf(0x0123456789abcdef), 234u);
  EXPECT_EQ(TablePlacement::Make(1024).BucketOf(0x0123456789abcdef), 59964u);
}

TEST(TablePlacementTest, KeysAreHashedByXxh64) {
  uint64_t key = 0;
  for (int i = 0; i < 1000; ++i) {
    unsigned char bytes[8];
    for (int b = 0; b < 8; ++b) bytes[b] = static_cast<unsigned char>(key >> (8 * b));
    ASSERT_EQ(KeyHash(key), XXH64(bytes, sizeof bytes, 0)) << key;
    key = i < 500 ? key + 1 : key * 0x9e3779b97f4a7c15 + 1;
  }
}

TEST(TablePlacementTest, RangesOfBucketsCoverAllAndAgreeWithOwners) {
  for (int ps_count : {1, 2, 3, 7, 16, 100, 1000, 65536}) {
    const TablePlacement table = TablePlacement::Make(ps_count);
    uint32_t next = 0;
    for (int ps = 0; ps < ps_count; ++ps) {
      const PsOrdinal ordinal(static_cast<uint32_t>(ps));
      const auto [first, end] = table.BucketsOf(ordinal);
      ASSERT_EQ(first, next);
      ASSERT_LE(end - first, table.buckets() / static_cast<uint32_t>(ps_count) + 1);
      for (uint32_t bucket = first; bucket < end; ++bucket) {
        ASSERT_EQ(table.PsOf(bucket), ordinal);
        ASSERT_EQ(table.LaneOf(bucket, 3), LaneIndex((bucket - first) % 3));
      }
      next = end;
    }
    EXPECT_EQ(next, table.buckets());
  }
}

TEST(TablePlacementTest, FewerBucketsAreRunsOfMoreBuckets) {
  const TablePlacement coarse = TablePlacement::Make(1), fine = TablePlacement::Make(1024);
  for (uint64_t key = 0; key < 1000; ++key) ASSERT_EQ(coarse.BucketOf(key), fine.BucketOf(key) >> 8);
}

}  // namespace
}  // namespace basin
