#include "worker/train/device_feature_batch.h"

#include <gtest/gtest.h>

#include "tests/train/counting_device.h"
#include "tests/train/devices_here.h"
#include "tests/train/wide_deep_examples.h"

namespace basin {
namespace {

template <typename T>
std::vector<T> CopyOut(Device& device, const T* there, size_t count) {
  std::vector<T> values(count);
  device.CopyOut(values.data(), there, count * sizeof(T));
  EXPECT_TRUE(device.Finish().ok());
  return values;
}

class DeviceFeatureBatchTest : public testing::TestWithParam<std::string> {};

// Batches grow and shrink, two are under way in turn, and each crosses in one copy of its own size.
TEST_P(DeviceFeatureBatchTest, HasTheKeysOfEachExampleAndTheNumbersAndLabelsOfABatchOnTheHost) {
  for (const char* const schema : {kShopSchema, kShopSchemaWithoutNumbers}) {
    CountingDevice device(OpenHere(GetParam()));
    const FeatureData data = ShopData(200, 3, schema);
    const NumericScale scale = data.TrainScale();
    const size_t features = data.schema().features(), categories = data.schema().categories.size(),
                 numbers = data.schema().numeric.size();
    FeatureBatcher batcher(data, scale);
    DeviceFeatureBatch batches[] = {{data, scale, device}, {data, scale, device}};
    size_t place = 0;
    for (const std::vector<uint32_t>& examples :
         {std::vector<uint32_t>{0, 1, 2}, {5}, {9, 8, 9, 9, 8, 30, 2}, {7, 7}, {1, 2, 3, 4, 5, 6, 7, 8, 9}}) {
      FeatureBatch expected;
      batcher.Gather(data.train(), examples, &expected);
      DeviceFeatureBatch& batch = batches[place++ % 2];
      device.Take();
      ASSERT_TRUE(batch.Gather(data.train(), examples).ok());
      const size_t rows = examples.size(), bytes = rows * (8 * (features + categories) + 4 * numbers + 1);
      EXPECT_EQ(device.Take().bytes_in, (bytes + 7) / 8 * 8);
      ASSERT_EQ(batch.rows(), rows);
      EXPECT_EQ(CopyOut(device, batch.numeric(), rows * numbers), expected.numeric);
      EXPECT_EQ(CopyOut(device, batch.labels(), rows), expected.labels);
      const std::vector<uint64_t> weights = CopyOut(device, batch.weight_keys(), rows * features);
      ASSERT_EQ(batch.bags().size(), rows + 1);
      EXPECT_EQ(batch.bags()[0], 0u);
      for (size_t row = 0; row < rows; ++row) {
        EXPECT_EQ(batch.bags()[row + 1] - batch.bags()[row], features);
        for (size_t feature = 0; feature < features; ++feature) {
          const size_t i = batch.bags()[row] + feature;
          EXPECT_EQ(weights[i], expected.tables[0].keys[expected.tables[0].at[i]]);
        }
      }
      for (size_t category = 0; category < categories; ++category) {
        const TableKeys& of = expected.tables[1 + category];
        const std::vector<uint64_t> keys = CopyOut(device, batch.embedding_keys(category), rows);
        for (size_t row = 0; row < rows; ++row) EXPECT_EQ(keys[row], of.keys[of.at[row]]);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceFeatureBatchTest, testing::ValuesIn(DevicesHere()),
                         [](const auto& info) { return InTestName(info.param); });

}  // namespace
}  // namespace basin
