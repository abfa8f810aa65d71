#include "worker/train/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "absl/strings/match.h"
#include "common/base/files.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

class IdxFolderTest : public testing::Test {
 protected:
  void Put(const std::string& name, const std::string& content) {
    ASSERT_TRUE(WriteFileAtomically(folder_ / name, content).ok());
  }
  // `count` images of 2 x 2 pixels, and their labels.
  void PutImages(const std::string& name, char count) {
    Put(name, std::string("\0\0\x08\x03\0\0\0", 7) + count + std::string("\0\0\0\x02\0\0\0\x02", 8) +
                  std::string(4 * count, '\x33'));
  }
  void PutLabels(const std::string& name, char count) {
    Put(name, std::string("\0\0\x08\x01\0\0\0", 7) + count + std::string(count, '\x07'));
  }
  TemporaryFolder folder_;
};

TEST_F(IdxFolderTest, BothPartsAreFoundWithAndWithoutGz) {
  PutImages("train-images-idx3-ubyte", 3);
  PutLabels("train-labels-idx1-ubyte.gz", 3);
  PutImages("t10k-images-idx3-ubyte.gz", 2);
  PutLabels("t10k-labels-idx1-ubyte", 2);
  const auto train = Dataset::LoadIdxFolder(folder_.path(), "train");
  ASSERT_TRUE(train.ok()) << train.status();
  EXPECT_EQ(train->count(), 3u);
  EXPECT_EQ(train->width(), 4u);
  EXPECT_EQ(train->label(2), 7);
  EXPECT_EQ(train->features(2)[3], 0x33);
  const auto test = Dataset::LoadIdxFolder(folder_.path(), "test");
  ASSERT_TRUE(test.ok()) << test.status();
  EXPECT_EQ(test->count(), 2u);
}

TEST_F(IdxFolderTest, WhatIsMissingIsNamed) {
  PutImages("train-images-idx3-ubyte", 3);
  const absl::Status status = Dataset::LoadIdxFolder(folder_.path(), "train").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(absl::StrContains(status.message(), "/train-labels-idx1-ubyte nor ")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), folder_.path())) << status;
}

TEST_F(IdxFolderTest, ImagesAndLabelsMustFitTogether) {
  PutImages("train-images-idx3-ubyte", 3);
  PutLabels("train-labels-idx1-ubyte", 2);
  const absl::Status status = Dataset::LoadIdxFolder(folder_.path(), "train").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "3 images and 2 labels")) << status;
}

TEST_F(IdxFolderTest, AnEmptyPartIsRefused) {
  PutImages("train-images-idx3-ubyte", 0);
  PutLabels("train-labels-idx1-ubyte", 0);
  EXPECT_EQ(Dataset::LoadIdxFolder(folder_.path(), "train").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(IdxFolderTest, LabelsInThePlaceOfImagesAreRefused) {
  PutLabels("train-images-idx3-ubyte", 3);
  PutLabels("train-labels-idx1-ubyte", 3);
  const absl::Status status = Dataset::LoadIdxFolder(folder_.path(), "train").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

TEST(BatchBufferTest, GathersInTheOrderAskedAndScalesToOne) {
  const Dataset dataset = Dataset::FromBytes({0, 51, 102, 153, 204, 255}, {7, 8, 9});
  BatchBuffer buffer;
  const Batch batch = buffer.Gather(dataset, {2, 0});
  EXPECT_EQ(batch.rows, 2);
  EXPECT_EQ(batch.width, 2);
  EXPECT_EQ(batch.labels[0], 9);
  EXPECT_EQ(batch.labels[1], 7);
  EXPECT_FLOAT_EQ(batch.features[0], 0.8f);
  EXPECT_FLOAT_EQ(batch.features[1], 1.0f);
  EXPECT_EQ(batch.features[2], 0.0f);
  EXPECT_FLOAT_EQ(batch.features[3], 0.2f);
  EXPECT_EQ(buffer.Gather(dataset, {1}).rows, 1);
}

TEST(PermutationTest, HasEveryIndexOnce) {
  for (const size_t count : {0u, 1u, 2u, 1000u}) {
    std::vector<uint32_t> order = Permutation(count, 3, 4), expected(count);
    std::sort(order.begin(), order.end());
    std::iota(expected.begin(), expected.end(), 0u);
    EXPECT_EQ(order, expected);
  }
}

TEST(PermutationTest, FollowsFromSeedAndEpochAlone) {
  EXPECT_EQ(Permutation(100, 3, 4), Permutation(100, 3, 4));
  EXPECT_NE(Permutation(100, 3, 4), Permutation(100, 3, 5));
  EXPECT_NE(Permutation(100, 3, 4), Permutation(100, 4, 4));
  // Stored, computed apart from this code: workers of different builds must take the same examples.
  EXPECT_EQ(Permutation(8, 1, 0), (std::vector<uint32_t>{0, 3, 7, 1, 4, 2, 6, 5}));
}

// Runs that differ in their seed alone are compared as independent ones.
TEST(PermutationTest, NoOrderOfOneSeedIsAnothers) {
  std::set<std::vector<uint32_t>> orders;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    for (uint32_t epoch = 0; epoch < 20; ++epoch) orders.insert(Permutation(100, seed, epoch));
  }
  EXPECT_EQ(orders.size(), 400u);
}

// 24 orders of 4, each expected 1000 times in 24000; chi squared with 23 degrees of freedom is below 60 but for 1 in
// 30,000.
TEST(PermutationTest, EveryOrderIsEquallyLikely) {
  std::vector<uint32_t> order = {0, 1, 2, 3};
  double chi_squared = 0;
  std::vector<std::vector<uint32_t>> drawn;
  for (uint32_t epoch = 0; epoch < 24000; ++epoch) drawn.push_back(Permutation(4, 9, epoch));
  do {
    const double seen = static_cast<double>(std::count(drawn.begin(), drawn.end(), order));
    chi_squared += (seen - 1000) * (seen - 1000) / 1000;
  } while (std::next_permutation(order.begin(), order.end()));
  EXPECT_LT(chi_squared, 60);
}

}  // namespace
}  // namespace basin
