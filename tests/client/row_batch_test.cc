#include "worker/client/row_batch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>

namespace basin {
namespace {

std::vector<float> ReadRows(const std::vector<char>& bytes) {
  std::vector<float> rows(bytes.size() / sizeof(float));
  std::memcpy(rows.data(), bytes.data(), bytes.size());
  return rows;
}

// All buckets' gradients as the messages would have them, cut into pieces of at most `most` keys: key -> row.
std::map<uint64_t, std::vector<float>> Sent(const RowBatch& batch, const TablePlacement& placement,
                                            const float* gradients, uint32_t most) {
  std::map<uint64_t, std::vector<float>> sent;
  uint32_t last_bucket = 0;
  bool first_bucket = true;
  for (const RowBatch::Bucket& bucket : batch.buckets()) {
    EXPECT_TRUE(first_bucket || bucket.bucket > last_bucket);
    first_bucket = false;
    last_bucket = bucket.bucket;
    EXPECT_GT(bucket.keys, 0u);
    for (uint32_t first = 0; first < bucket.keys; first += most) {
      const uint32_t n = std::min(most, bucket.keys - first);
      std::vector<char> keys(n * 8), rows(size_t{n} * batch.dim() * 4, '\x7f');
      batch.WriteKeys(bucket, first, n, keys.data());
      batch.WriteGradients(bucket, first, n, gradients, rows.data());
      const std::vector<float> floats = ReadRows(rows);
      for (uint32_t i = 0; i < n; ++i) {
        uint64_t key;
        std::memcpy(&key, keys.data() + i * 8, 8);
        EXPECT_EQ(placement.BucketOf(key), bucket.bucket);
        const auto begin = floats.begin() + static_cast<int64_t>(i) * batch.dim();
        EXPECT_TRUE(sent.emplace(key, std::vector<float>(begin, begin + batch.dim())).second) << "key twice: " << key;
      }
    }
  }
  return sent;
}

// Few keys against many buckets are sorted another way; each length has its loop; batches are filled again and again.
TEST(RowBatchTest, EachKeyIsSentOnceWithTheSumOfItsGradients) {
  std::mt19937_64 random(7);
  RowBatch batch;
  for (const int ps : {1, 3, 700}) {
    const TablePlacement placement = TablePlacement::Make(ps);
    for (const uint32_t dim : {1u, 3u, 8u, 16u, 32u, 64u, 100u}) {
      for (const size_t count : {0, 1, 5, 300, 4000}) {
        for (const uint64_t different : {uint64_t{1}, uint64_t{40}, ~uint64_t{0}}) {
          std::vector<uint64_t> keys(count);
          std::vector<float> gradients(count * dim);
          for (uint64_t& key : keys) key = random() % different;
          for (float& value : gradients) value = static_cast<float>(random() % 17);
          std::map<uint64_t, std::vector<float>> expected;
          for (size_t i = 0; i < count; ++i) {
            std::vector<float>& row = expected[keys[i]];
            row.resize(dim);
            for (uint32_t c = 0; c < dim; ++c) row[c] += gradients[i * dim + c];
          }
          batch.Fill(placement, dim, keys, {});
          ASSERT_EQ(batch.keys().size(), expected.size());
          ASSERT_EQ(batch.rows(), count);
          ASSERT_EQ(batch.FindNotFinite(keys, {}, gradients.data()), "");
          ASSERT_EQ(Sent(batch, placement, gradients.data(), 1000), expected);
          ASSERT_EQ(Sent(batch, placement, gradients.data(), 3), expected);
        }
      }
    }
  }
}

TEST(RowBatchTest, PulledRowsGoToEveryPlaceOfTheirKey) {
  const TablePlacement placement = TablePlacement::Make(2);
  const std::vector<uint64_t> keys = {9, 4, 9, 9, 1ull << 63, 4};
  const uint32_t dim = 3;
  RowBatch batch;
  batch.Fill(placement, dim, keys, {});
  EXPECT_EQ(batch.keys().size(), 3u);
  std::vector<float> places(keys.size() * dim, -1);
  for (const RowBatch::Bucket& bucket : batch.buckets()) {
    for (uint32_t first = 0; first < bucket.keys; ++first) {
      const auto key = static_cast<float>(batch.keys()[bucket.first_key + first]);
      const float row[] = {key, key + 0.5f, -key};
      batch.Scatter(bucket, first, 1, reinterpret_cast<const char*>(row), places.data());
    }
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(places[i * dim], static_cast<float>(keys[i])) << i;
    EXPECT_EQ(places[i * dim + 2], -static_cast<float>(keys[i])) << i;
  }
}

TEST(RowBatchTest, ABagsGradientGoesToEachOfItsRows) {
  const TablePlacement placement = TablePlacement::Make(1);
  const std::vector<uint64_t> keys = {1, 2, 2, 3, 1};
  const std::vector<uint64_t> offsets = {0, 2, 2, 5};  // {1, 2}, {}, {2, 3, 1}
  const std::vector<float> gradients = {10, 20, /*of the empty bag*/ 7, 7, 3, 6};
  RowBatch batch;
  batch.Fill(placement, 2, keys, {offsets, /*mean=*/false});
  EXPECT_EQ(batch.rows(), 3u);
  std::map<uint64_t, std::vector<float>> expected = {{1, {13, 26}}, {2, {13, 26}}, {3, {3, 6}}};
  EXPECT_EQ(Sent(batch, placement, gradients.data(), 100), expected);
  batch.Fill(placement, 2, keys, {offsets, /*mean=*/true});
  expected = {{1, {6, 12}}, {2, {6, 12}}, {3, {1, 2}}};
  EXPECT_EQ(Sent(batch, placement, gradients.data(), 100), expected);
}

TEST(RowBatchTest, BagsArePooled) {
  const std::vector<uint64_t> keys = {1, 2, 2, 3, 1};
  const std::vector<uint64_t> offsets = {0, 2, 2, 5};
  const std::vector<float> places = {1, 10, 2, 20, 2, 20, 3, 30, 1, 10};
  RowBatch batch;
  std::vector<float> pooled(6, -1);
  batch.Fill(TablePlacement::Make(1), 2, keys, {offsets, /*mean=*/false});
  batch.Pool(places.data(), pooled.data());
  EXPECT_EQ(pooled, (std::vector<float>{3, 30, 0, 0, 6, 60}));
  batch.Fill(TablePlacement::Make(1), 2, keys, {offsets, /*mean=*/true});
  batch.Pool(places.data(), pooled.data());
  EXPECT_EQ(pooled, (std::vector<float>{1.5, 15, 0, 0, 2, 20}));
}

TEST(RowBatchTest, WhatIsNotFiniteIsFoundAndNamed) {
  const TablePlacement placement = TablePlacement::Make(1);
  const std::vector<uint64_t> keys = {5, 6, 5};
  for (const uint32_t dim : {2u, 16u}) {
    RowBatch batch;
    batch.Fill(placement, dim, keys, {});
    std::vector<float> gradients(3 * dim, 1);
    const auto found = [&] { return batch.FindNotFinite(keys, {}, gradients.data()); };
    EXPECT_EQ(found(), "");
    gradients[2 * dim + 1] = NAN;
    EXPECT_EQ(found(), "NaN in the gradient of key 5 (place 2), column 1");
    gradients[2 * dim + 1] = 1;
    gradients[dim] = -INFINITY;
    EXPECT_EQ(found(), "Inf in the gradient of key 6 (place 1), column 0");
    gradients[dim] = 1;
    gradients[0] = gradients[2 * dim] = 3e38f;
    EXPECT_EQ(found(), "Inf in the sum of the gradients of key 5, which are finite each");
    gradients[2 * dim] = -3e38f;  // huge, and its sum is not
    EXPECT_EQ(found(), "");
    const std::vector<uint64_t> offsets = {0, 3};
    batch.Fill(placement, dim, keys, {offsets, false});
    gradients[0] = NAN;
    EXPECT_EQ(batch.FindNotFinite(keys, {offsets, false}, gradients.data()), "NaN in the gradient of bag 0, column 0");
  }
}

TEST(RowBatchTest, WhatTheTypeCannotHoldIsFound) {
  const TablePlacement placement = TablePlacement::Make(1);
  const std::vector<uint64_t> keys = {5, 6, 5};
  RowBatch batch;
  batch.Fill(placement, 2, keys, {});
  std::vector<float> gradients = {40000, 1, 1, 1, 20000, 1};
  const auto found = [&](DType type) { return batch.FindNotFinite(keys, {}, gradients.data(), type); };
  EXPECT_EQ(found(DType::kF16), "");
  gradients[4] = 30000;
  EXPECT_EQ(
      found(DType::kF16),
      "70000, beyond float16's largest, 65504 (send bfloat16, or scale the loss down) in the sum of the gradients "
      "of key 5, which are finite each");
  EXPECT_EQ(found(DType::kBF16), "");
  EXPECT_EQ(found(DType::kF32), "");
  gradients[3] = -65520;
  EXPECT_EQ(found(DType::kF16),
            "-65520, beyond float16's largest, 65504 (send bfloat16, or scale the loss down) in the gradient of key 6 "
            "(place 1), column 1");
  gradients[3] = 3.4e38f;
  EXPECT_EQ(found(DType::kBF16),
            "3.4e+38, beyond bfloat16's largest, 3.38953e+38 (scale the loss down) in the gradient of key 6 (place 1), "
            "column 1");
  EXPECT_EQ(found(DType::kF32), "");
  gradients[3] = NAN;
  EXPECT_EQ(found(DType::kF16), "NaN in the gradient of key 6 (place 1), column 1");
}

TEST(CheckBagsTest, OffsetsAscendFromZeroToTheNumberOfKeys) {
  EXPECT_TRUE(CheckBags(std::vector<uint64_t>{0}, 0).ok());
  EXPECT_TRUE(CheckBags(std::vector<uint64_t>{0, 0, 3, 3}, 3).ok());
  EXPECT_EQ(CheckBags({}, 0).message(), "bags have no offsets; n bags have n + 1");
  EXPECT_EQ(CheckBags(std::vector<uint64_t>{1, 3}, 3).message(), "bags begin at 1, expected 0");
  EXPECT_EQ(CheckBags(std::vector<uint64_t>{0, 4, 3}, 3).message(), "bags[2] is 3 after 4; offsets ascend");
  EXPECT_EQ(CheckBags(std::vector<uint64_t>{0, 2}, 3).message(), "bags end at 2, expected the number of keys, 3");
}

}  // namespace
}  // namespace basin
