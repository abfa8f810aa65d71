// Batches of rows on a device against the host's RowBatch.
#include "common/device/cuda_row_batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "common/base/key_hash.h"
#include "common/base/random.h"
#include "tests/device/on_device.h"
#include "worker/client/row_batch.h"

namespace basin {
namespace {

using Keys = std::vector<uint64_t>;
using Floats = std::vector<float>;

Floats RandomFloats(size_t count, uint64_t seed) {
  Floats values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(UnitAt(seed, i) - 0.5);
  return values;
}

// About a tenth are key 0, and every other one is among few.
Keys SkewedKeys(size_t count, uint64_t seed) {
  Random random(seed);
  Keys keys(count);
  for (uint64_t& key : keys) {
    key = random.Chance(0.1) ? 0 : random.Chance(0.5) ? random.Below(50) : random.Below(4 * count);
  }
  return keys;
}

Keys DifferentKeys(size_t count) {
  Keys keys(count);
  for (size_t i = 0; i < count; ++i) keys[i] = i * 0x9e3779b97f4a7c15ull;
  return keys;
}

bool SameBits(const float* a, const float* b, size_t count) { return std::memcmp(a, b, count * sizeof(float)) == 0; }

class CudaRowBatchTest : public OnDeviceTest {
 protected:
  // Bags of 0 to 4 keys.
  static Keys Bags(size_t keys) {
    Keys offsets = {0};
    while (offsets.back() < keys) offsets.push_back(std::min<uint64_t>(keys, offsets.back() + offsets.size() % 5));
    return offsets;
  }

  void ExpectAsOnTheHost(CudaRowBatch& batch, const Keys& keys, uint32_t dim, const Keys& offsets = {},
                         bool mean = false) {
    SCOPED_TRACE(testing::Message() << keys.size() << " keys, dim " << dim << ", offsets " << offsets.size());
    const TablePlacement placement = TablePlacement::Make(2);
    const RowBags bags{.offsets = offsets, .mean = mean};
    RowBatch host;
    host.Fill(placement, dim, keys, bags);
    const Floats gradients = RandomFloats(host.rows() * dim, keys.size());

    const OnDevice<uint64_t> keys_there(keys), offsets_there(offsets);
    const OnDevice<float> gradients_there(gradients);
    const CudaRowBags bags_there{.offsets = offsets.empty() ? nullptr : offsets_there.data(),
                                 .bags = offsets.empty() ? 0 : offsets.size() - 1,
                                 .mean = mean};
    ASSERT_TRUE(batch.Fill(keys_there.data(), keys.size(), placement.bits(), bags_there).ok());
    ASSERT_EQ(batch.key_count(), host.keys().size());
    ASSERT_EQ(batch.rows(), host.rows());
    const Keys unique = CopyFromDevice(batch.keys(), batch.key_count());
    const std::vector<uint32_t> key_of_place = CopyFromDevice(batch.key_of_place(), keys.size());
    for (size_t i = 0; i < keys.size(); ++i) ASSERT_EQ(unique[key_of_place[i]], keys[i]) << i;
    ExpectSameBuckets(batch, host, placement, unique);

    const OnDevice<float> sums(Floats(size_t{batch.key_count()} * dim, -77));
    const OnDevice<uint32_t> not_finite(std::vector<uint32_t>{7});
    ASSERT_TRUE(batch.SumGradients(gradients_there.data(), dim, sums.data(), not_finite.data()).ok());
    const Floats sums_here = sums.Copy();
    EXPECT_EQ(not_finite.Copy()[0], CudaRowBatch::kNoKey);
    ExpectSums(host, keys, unique, bags, gradients, sums_here);
    ASSERT_TRUE(batch.SumGradients(gradients_there.data(), dim, sums.data(), not_finite.data()).ok());
    EXPECT_TRUE(SameBits(sums.Copy().data(), sums_here.data(), sums_here.size())) << "the same batch, other bits";

    const Floats rows = RandomFloats(sums_here.size(), 9);
    const OnDevice<float> rows_there(rows), places(Floats(keys.size() * dim, -77));
    ASSERT_TRUE(batch.Scatter(rows_there.data(), dim, places.data()).ok());
    const Floats places_here = places.Copy();
    for (size_t i = 0; i < keys.size(); ++i) {
      ASSERT_TRUE(SameBits(&places_here[i * dim], &rows[size_t{key_of_place[i]} * dim], dim)) << i;
    }
    if (offsets.empty()) return;
    const OnDevice<float> pooled(Floats(host.rows() * dim, -77));
    ASSERT_TRUE(batch.Pool(rows_there.data(), dim, pooled.data()).ok());
    Floats expected(host.rows() * dim);
    host.Pool(places_here.data(), expected.data());
    EXPECT_TRUE(SameBits(pooled.Copy().data(), expected.data(), expected.size()));
  }

 private:
  static void ExpectSameBuckets(const CudaRowBatch& batch, const RowBatch& host, const TablePlacement& placement,
                                const Keys& unique) {
    std::vector<uint32_t> counts(placement.buckets());
    for (const RowBatch::Bucket& bucket : host.buckets()) counts[bucket.bucket] = bucket.keys;
    const uint32_t* begin = batch.bucket_begin();
    for (uint32_t bucket = 0; bucket < placement.buckets(); ++bucket) {
      ASSERT_EQ(begin[bucket + 1] - begin[bucket], counts[bucket]) << bucket;
      for (uint32_t i = begin[bucket]; i < begin[bucket + 1]; ++i) ASSERT_EQ(placement.BucketOf(unique[i]), bucket);
    }
  }

  static void ExpectSums(const RowBatch& host, const Keys& keys, const Keys& unique, const RowBags& bags,
                         const Floats& gradients, const Floats& sums) {
    const uint32_t dim = host.dim();
    std::map<uint64_t, size_t> index_of;
    for (size_t i = 0; i < unique.size(); ++i) index_of[unique[i]] = i;
    std::vector<size_t> times(unique.size());
    std::vector<double> exact(sums.size()), magnitude(sums.size());
    size_t bag = 0;
    for (size_t i = 0; i < keys.size(); ++i) {
      if (!bags.offsets.empty()) {
        while (bags.offsets[bag + 1] <= i) ++bag;
      }
      const size_t row = bags.offsets.empty() ? i : bag;
      const float scale = bags.mean ? 1.0f / static_cast<float>(bags.offsets[bag + 1] - bags.offsets[bag]) : 1.0f;
      const size_t key = index_of[keys[i]];
      ++times[key];
      for (size_t column = 0; column < dim; ++column) {
        const double g = gradients[row * dim + column] * scale;  // rounded, as each twin does
        exact[key * dim + column] += g;
        magnitude[key * dim + column] += std::abs(g);
      }
    }
    Floats row(dim);
    for (const RowBatch::Bucket& bucket : host.buckets()) {
      for (uint32_t i = 0; i < bucket.keys; ++i) {
        host.WriteGradients(bucket, i, 1, gradients.data(), reinterpret_cast<char*>(row.data()));
        const size_t key = index_of[host.keys()[bucket.first_key + i]];
        if (times[key] <= CudaRowBatch::kPiece) {
          ASSERT_TRUE(SameBits(&sums[key * dim], row.data(), dim)) << "key " << unique[key] << ", times " << times[key];
          continue;
        }
        const double pieces = std::ceil(static_cast<double>(times[key]) / CudaRowBatch::kPiece);
        const double bound = (CudaRowBatch::kPiece + pieces / 16 + 17) * 0x1p-24;
        for (size_t at = key * dim; at < (key + 1) * dim; ++at) {
          ASSERT_NEAR(sums[at], exact[at], bound * magnitude[at]) << "key " << unique[key] << ", times " << times[key];
        }
      }
    }
  }
};

TEST_F(CudaRowBatchTest, RandomBatchesAreAsOnTheHostAtEachDim) {
  CudaRowBatch batch("test", stream_);
  for (const uint32_t dim : {1, 3, 64, 200}) {
    for (const size_t count : {1, 2, 31, 1000, 6000}) ExpectAsOnTheHost(batch, SkewedKeys(count, count + dim), dim);
  }
}

TEST_F(CudaRowBatchTest, EqualKeysAreOneHoweverManyPiecesTheyFill) {
  CudaRowBatch batch("test", stream_);
  for (const size_t count : {1, 2, 255, 256, 257, 512, 513, 5000, 20000}) {
    ExpectAsOnTheHost(batch, Keys(count, 17), count % 2 == 0 ? 4 : 3);
  }
}

TEST_F(CudaRowBatchTest, ManyKeysOfManyPiecesKeepTheirSums) {
  CudaRowBatch batch("test", stream_);
  Keys keys;
  for (uint64_t key = 0; key < 40; ++key) keys.insert(keys.end(), 200 + 37 * key, key);
  ExpectAsOnTheHost(batch, keys, 8);
}

TEST_F(CudaRowBatchTest, DifferentKeysAllStay) {
  CudaRowBatch batch("test", stream_);
  for (const uint32_t dim : {1, 64}) ExpectAsOnTheHost(batch, DifferentKeys(5000), dim);
}

TEST_F(CudaRowBatchTest, TheSmallestAndTheLargestKeyAreKeys) {
  CudaRowBatch batch("test", stream_);
  const uint64_t largest = std::numeric_limits<uint64_t>::max();
  ExpectAsOnTheHost(batch, {largest, 0, largest, 1, 0, largest - 1}, 3);
}

TEST_F(CudaRowBatchTest, AnEmptyBatchHasNothing) {
  CudaRowBatch batch("test", stream_);
  ExpectAsOnTheHost(batch, {}, 64);
  ExpectAsOnTheHost(batch, SkewedKeys(100, 1), 64);
  ExpectAsOnTheHost(batch, {}, 64);
}

TEST_F(CudaRowBatchTest, BagsAreSummedOrAveragedAsOnTheHost) {
  CudaRowBatch batch("test", stream_);
  for (const bool mean : {false, true}) {
    for (const uint32_t dim : {1, 3, 64}) {
      const Keys keys = SkewedKeys(3000, dim);
      ExpectAsOnTheHost(batch, keys, dim, Bags(keys.size()), mean);
      ExpectAsOnTheHost(batch, {}, dim, {0, 0, 0}, mean);
    }
  }
}

TEST_F(CudaRowBatchTest, KeysWhoseHashesAgreeInTheSortedBitsStayApart) {
  // Of so few keys 16 bits are sorted.
  Keys alike = {1};
  for (uint64_t key = 2; alike.size() < 3; ++key) {
    if (KeyHash(key) >> 48 == KeyHash(1) >> 48) alike.push_back(key);
  }
  CudaRowBatch batch("test", stream_);
  ExpectAsOnTheHost(batch, {alike[2], alike[0], alike[1], alike[0], 5, alike[2], alike[1], alike[0]}, 4);
}

TEST_F(CudaRowBatchTest, ASumThatIsNotFiniteIsFound) {
  CudaRowBatch batch("test", stream_);
  Keys keys = SkewedKeys(2000, 3);
  keys[7] = keys[900] = 123456789;
  const OnDevice<uint64_t> keys_there(keys);
  ASSERT_TRUE(batch.Fill(keys_there.data(), keys.size(), 8, {}).ok());
  const uint32_t expected = CopyFromDevice(batch.key_of_place(), keys.size())[7];
  const uint32_t often =
      CopyFromDevice(batch.key_of_place(), keys.size())[std::find(keys.begin(), keys.end(), 0) - keys.begin()];
  const OnDevice<float> sums(Floats(size_t{batch.key_count()} * 3));
  const OnDevice<uint32_t> not_finite(std::vector<uint32_t>{0});
  const auto found = [&](const Floats& gradients) {
    const OnDevice<float> there(gradients);
    EXPECT_TRUE(batch.SumGradients(there.data(), 3, sums.data(), not_finite.data()).ok());
    return not_finite.Copy()[0];
  };
  Floats gradients(keys.size() * 3, 1.0f);
  EXPECT_EQ(found(gradients), CudaRowBatch::kNoKey);
  gradients[900 * 3 + 2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(found(gradients), expected);
  gradients[900 * 3 + 2] = gradients[7 * 3 + 2] = std::numeric_limits<float>::max();  // their sum is not finite
  EXPECT_EQ(found(gradients), expected);
  gradients[7 * 3 + 2] = 0;
  gradients[(std::find(keys.begin(), keys.end(), 0) - keys.begin()) * 3] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(found(gradients), often);
}

}  // namespace
}  // namespace basin
