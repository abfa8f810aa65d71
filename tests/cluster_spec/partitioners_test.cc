#include "cluster_spec/partitioners.h"

#include <gtest/gtest.h>

#include <vector>

namespace basin {
namespace {

TEST(PartitionersTest, TheFirstPartsGetTheRowsLeftOver) {
  EXPECT_EQ(PartitionRows(10, 4), (std::vector<int64_t>{3, 3, 2, 2}));
  EXPECT_EQ(PartitionRows(8, 4), (std::vector<int64_t>{2, 2, 2, 2}));
  EXPECT_EQ(PartitionRows(2, 5), (std::vector<int64_t>{1, 1}));
}

TEST(PartitionersTest, FixedIsCappedByRows) {
  EXPECT_EQ(FixedPartitions(10, 4), 4);
  EXPECT_EQ(FixedPartitions(3, 4), 3);
}

TEST(PartitionersTest, MinSizeHasTheDocumentedValues) {
  EXPECT_EQ(MinSizePartitions(1024, 4096, kDefaultMinShardBytes, 1024), 16);
  EXPECT_EQ(MinSizePartitions(1024, 4096, kDefaultMinShardBytes, 8), 8);
  EXPECT_EQ(MinSizePartitions(6, 4, 4, 2), 2);
  EXPECT_EQ(MinSizePartitions(6, 4, 4, 10), 6);
  EXPECT_EQ(MinSizePartitions(6, 4, 1 << 20, 10), 1);
}

TEST(PartitionersTest, MaxSizeHasTheDocumentedValues) {
  EXPECT_EQ(MaxSizePartitions(6, 4, 4), 6);
  EXPECT_EQ(MaxSizePartitions(6, 4, 4, 2), 2);
  EXPECT_EQ(MaxSizePartitions(6, 4, 1024), 1);
  EXPECT_EQ(MaxSizePartitions(6, 4, 1), 6);
}

TEST(PartitionersTest, ModSpreadsNeighbours) {
  EXPECT_EQ(LookupMod(13, 4), (PartitionedRow{1, 3}));
  EXPECT_EQ(LookupMod(4, 4), (PartitionedRow{0, 1}));
}

TEST(PartitionersTest, DivFollowsPartitionRows) {
  for (int64_t rows = 1; rows <= 40; ++rows) {
    for (int64_t parts = 1; parts <= rows; ++parts) {
      int64_t id = 0;
      const std::vector<int64_t> sizes = PartitionRows(rows, parts);
      for (int64_t part = 0; part < parts; ++part) {
        for (int64_t local = 0; local < sizes[static_cast<size_t>(part)]; ++local, ++id)
          ASSERT_EQ(LookupDiv(id, parts, rows), (PartitionedRow{part, local}))
              << id << " of " << rows << " in " << parts;
      }
      ASSERT_EQ(id, rows);
    }
  }
}

}  // namespace
}  // namespace basin
