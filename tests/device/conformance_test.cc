// One suite for every device that can be used here: each operation against a plain loop in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "common/base/random.h"
#include "common/device/device.h"
#include "common/device/device_list.h"

#if defined(__SANITIZE_THREAD__)
// oneTBB hands a task from thread to thread inside libtbb.so, which is not built with the sanitizer; that the task then
// reads its own fields looks like a race. tests/tsan.supp excuses tbb::detail, but this function is inlined and loses
// that name. Both together leave what runs below a parallel_for unwatched, our loops too: that no part of one writes
// what another part touches is for the suite's comparison with plain loops to show, not for the sanitizer.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  return "race:^finalize$";
}
#endif

namespace basin {
namespace {

using Floats = std::vector<float>;

Floats RandomFloats(size_t count, uint64_t seed) {
  Floats values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(2 * UnitAt(seed, i) - 1);
  return values;
}

struct Twin {
  std::string name;  // the test's
  std::string device;
  int threads;
};
void PrintTo(const Twin& twin, std::ostream* out) { *out << twin.name; }

class DeviceTest : public testing::TestWithParam<Twin> {
 protected:
  void SetUp() override {
    auto device = OpenDevice(GetParam().device, GetParam().threads);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }

  Device::LossResult Loss(int64_t rows, int64_t columns, const Floats& logits, const std::vector<uint8_t>& labels,
                          Floats* gradient = nullptr) {
    if (gradient != nullptr) gradient->assign(logits.size(), 77.0f);
    return device_->SoftmaxCrossEntropy(rows, columns, logits.data(), labels.data(),
                                        gradient == nullptr ? nullptr : gradient->data());
  }

  std::unique_ptr<Device> device_;
};

// Tolerance: k products of numbers up to 1, each rounded to 24 bits, in any order.
TEST_P(DeviceTest, GemmIsTheProduct) {
  const int64_t sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {64, 10, 33}, {128, 256, 784}, {17, 1, 300}};
  for (const auto& [m, n, k] : sizes) {
    for (int transposes = 0; transposes < 4; ++transposes) {
      const bool ta = transposes & 1, tb = transposes & 2;
      for (const float beta : {0.0f, 0.5f}) {
        const Floats a = RandomFloats(m * k, 2), b = RandomFloats(k * n, 3);
        // Where beta is 0, C is not read: not even a NaN.
        const Floats c = beta == 0 ? Floats(m * n, std::numeric_limits<float>::quiet_NaN()) : RandomFloats(m * n, 4);
        Floats got = c;
        device_->Gemm(Transpose(ta), Transpose(tb), m, n, k, 1.5f, a.data(), b.data(), beta, got.data());
        const double tolerance = 1.5 * static_cast<double>(k + 4) * 0x1p-23;
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (int64_t l = 0; l < k; ++l)
              sum += double{a[ta ? l * m + i : i * k + l]} * double{b[tb ? j * k + l : l * n + j]};
            const double want = 1.5 * sum + (beta == 0 ? 0 : double{beta} * c[i * n + j]);
            ASSERT_NEAR(got[i * n + j], want, tolerance)
                << m << "x" << n << "x" << k << " transposed " << transposes << " at " << i << "," << j;
          }
        }
      }
    }
  }
}

TEST_P(DeviceTest, BiasIsAddedToEveryRow) {
  const int64_t rows = 300, columns = 1030;  // enough for several threads
  const Floats matrix = RandomFloats(rows * columns, 5), bias = RandomFloats(columns, 6);
  Floats got = matrix;
  device_->AddBias(rows, columns, bias.data(), got.data());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], matrix[i] + bias[i % columns]) << i;
}

// Tolerance: `rows` additions of numbers up to 1, rounded to 24 bits each, of sums up to `rows`.
TEST_P(DeviceTest, ColumnSumsAreTheSumsOfColumns) {
  const std::pair<int64_t, int64_t> sizes[] = {{1, 1}, {128, 10}, {300, 1030}};
  for (const auto& [rows, columns] : sizes) {
    const Floats matrix = RandomFloats(rows * columns, 7);
    Floats got(columns, 99.0f);
    device_->ColumnSums(rows, columns, matrix.data(), got.data());
    for (int64_t c = 0; c < columns; ++c) {
      double want = 0;
      for (int64_t r = 0; r < rows; ++r) want += matrix[r * columns + c];
      ASSERT_NEAR(got[c], want, static_cast<double>(rows) * static_cast<double>(rows) * 0x1p-24);
    }
  }
}

TEST_P(DeviceTest, ReluKeepsWhatIsPositiveAndPassesItsGradientOnly) {
  for (const size_t count : {size_t{1}, size_t{1000}, size_t{300001}}) {
    Floats values = RandomFloats(count, 8);
    const Floats gradient = RandomFloats(count, 9);
    if (count > 10) values[5] = 0.0f;
    Floats got = values, got_gradient = gradient;
    device_->Relu(static_cast<int64_t>(count), got.data());
    device_->ReluBackward(static_cast<int64_t>(count), got.data(), got_gradient.data());
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(got[i], std::max(0.0f, values[i]));
      ASSERT_EQ(got_gradient[i], values[i] > 0 ? gradient[i] : 0.0f);
    }
  }
}

TEST_P(DeviceTest, ReluDoesNotHideANaN) {
  // Long enough for the vectorised loop and for what is left over.
  Floats values(37, std::numeric_limits<float>::quiet_NaN());
  device_->Relu(37, values.data());
  for (const float value : values) EXPECT_TRUE(std::isnan(value));
}

// Stored values: logits (1, 2, 3), label 0: log(e + e^2 + e^3) - 1 = 2.407605964444380 and
// softmax = 0.09003057317038046, 0.24472847105479767, 0.6652409557748219 (from a desk calculator's 30 digits).
TEST_P(DeviceTest, SoftmaxCrossEntropyGivesTheStoredValues) {
  Floats gradient;
  const Device::LossResult sums = Loss(1, 3, {1, 2, 3}, {0}, &gradient);
  EXPECT_NEAR(sums.loss_sum, 2.407605964444380, 1e-6);
  EXPECT_EQ(sums.correct, 0u);
  EXPECT_NEAR(gradient[0], 0.09003057317038046 - 1, 1e-7);
  EXPECT_NEAR(gradient[1], 0.24472847105479767, 1e-7);
  EXPECT_NEAR(gradient[2], 0.6652409557748219, 1e-7);
}

TEST_P(DeviceTest, SoftmaxCrossEntropyCountsTheRowsWhoseLabelIsLargest) {
  EXPECT_EQ(Loss(4, 2, {1, 0, 0, 1, 2, 2, 2, 2}, {0, 0, 0, 1}).correct, 2u);  // of equal ones the first counts
}

TEST_P(DeviceTest, SoftmaxCrossEntropyStandsLargeLogits) {
  Floats gradient;
  const Device::LossResult sums = Loss(2, 2, {1e4f, -1e4f, 3e38f, 0}, {1, 0}, &gradient);
  EXPECT_NEAR(sums.loss_sum, 2e4, 1e-2);
  for (const float g : gradient) EXPECT_TRUE(std::isfinite(g));
}

TEST_P(DeviceTest, SoftmaxCrossEntropyOfANaNIsANaN) {
  EXPECT_TRUE(std::isnan(Loss(1, 2, {std::numeric_limits<float>::quiet_NaN(), 1}, {0}).loss_sum));
  EXPECT_TRUE(std::isnan(Loss(1, 2, {1, std::numeric_limits<float>::quiet_NaN()}, {0}).loss_sum));
}

// Numerical gradient of the mean loss by central differences of step h = 1/64, exact in float. Their error is h^2 / 6
// times the third derivative, which is below 0.2: 1e-5; the loss sums exponentials in float, 1e-7 / h: 1e-5 again.
TEST_P(DeviceTest, SoftmaxCrossEntropyHasTheGradientOfItsMeanLoss) {
  const int64_t rows = 5, columns = 7;
  const float h = 1.0f / 64;
  Floats logits = RandomFloats(rows * columns, 10);
  for (float& logit : logits) logit = std::round(logit * 256) / 64;  // so that logit +- h is exact
  const std::vector<uint8_t> labels = {0, 6, 3, 3, 1};
  Floats gradient;
  Loss(rows, columns, logits, labels, &gradient);
  for (size_t i = 0; i < logits.size(); ++i) {
    Floats up = logits, down = logits;
    up[i] += h;
    down[i] -= h;
    const double slope =
        (Loss(rows, columns, up, labels).loss_sum - Loss(rows, columns, down, labels).loss_sum) / (2.0 * h) / rows;
    EXPECT_NEAR(gradient[i], slope, 2e-5) << i;
  }
}

TEST_P(DeviceTest, SoftmaxCrossEntropyMayWriteOverTheLogits) {
  const int64_t rows = 300, columns = 100;
  const Floats logits = RandomFloats(rows * columns, 11);
  std::vector<uint8_t> labels(rows);
  for (size_t r = 0; r < labels.size(); ++r) labels[r] = static_cast<uint8_t>(r % columns);
  Floats apart;
  const Device::LossResult expected = Loss(rows, columns, logits, labels, &apart);
  Floats both = logits;
  EXPECT_EQ(device_->SoftmaxCrossEntropy(rows, columns, both.data(), labels.data(), both.data()).loss_sum,
            expected.loss_sum);
  EXPECT_EQ(both, apart);
}

// Stored values: log(1 + e^-2) = 0.126928011042973, sigmoid(2) = 0.880797077977882 (from a desk calculator's 30
// digits).
TEST_P(DeviceTest, SigmoidCrossEntropyGivesTheStoredValues) {
  const Floats logits = {2, 2, -2, -2};
  const std::vector<uint8_t> labels = {1, 0, 0, 1};
  Floats gradient(4);
  const Device::LossResult sums = device_->SigmoidCrossEntropy(4, logits.data(), labels.data(), gradient.data());
  EXPECT_NEAR(sums.loss_sum, 2 * 0.126928011042973 + 2 * 2.126928011042973, 1e-6);
  EXPECT_EQ(sums.correct, 2u);
  EXPECT_NEAR(gradient[0], (0.880797077977882 - 1) / 4, 1e-7);
  EXPECT_NEAR(gradient[1], 0.880797077977882 / 4, 1e-7);
  EXPECT_NEAR(gradient[2], (1 - 0.880797077977882) / 4, 1e-7);
  EXPECT_NEAR(gradient[3], -0.880797077977882 / 4, 1e-7);
}

TEST_P(DeviceTest, SigmoidCrossEntropyIsSoftmaxCrossEntropyBesideALogitOfZero) {
  const int64_t rows = 40;
  Floats logits = RandomFloats(rows, 12), pairs, pair_gradient(2 * rows), gradient(rows);
  for (float& logit : logits) logit *= 20;
  std::vector<uint8_t> labels;
  for (int64_t row = 0; row < rows; ++row) {
    labels.push_back(static_cast<uint8_t>(row % 2));
    pairs.insert(pairs.end(), {0, logits[row]});
  }
  const Device::LossResult expected =
      device_->SoftmaxCrossEntropy(rows, 2, pairs.data(), labels.data(), pair_gradient.data());
  const Device::LossResult alone = device_->SigmoidCrossEntropy(rows, logits.data(), labels.data(), nullptr);
  const Device::LossResult got = device_->SigmoidCrossEntropy(rows, logits.data(), labels.data(), logits.data());
  EXPECT_NEAR(got.loss_sum, expected.loss_sum, 1e-4);
  EXPECT_EQ(got.correct, expected.correct);
  EXPECT_EQ(alone.loss_sum, got.loss_sum);
  for (int64_t row = 0; row < rows; ++row) EXPECT_NEAR(logits[row], pair_gradient[2 * row + 1], 1e-7) << row;
}

TEST_P(DeviceTest, SigmoidCrossEntropyStandsLargeLogitsAndShowsANaN) {
  const Floats logits = {3e38f, -3e38f, 1e4f};
  const std::vector<uint8_t> labels = {1, 0, 0};
  Floats gradient(3);
  EXPECT_NEAR(device_->SigmoidCrossEntropy(3, logits.data(), labels.data(), gradient.data()).loss_sum, 1e4, 1e-2);
  for (const float g : gradient) EXPECT_TRUE(std::isfinite(g));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const uint8_t label : {uint8_t{0}, uint8_t{1}}) {
    EXPECT_TRUE(std::isnan(device_->SigmoidCrossEntropy(1, &nan, &label, nullptr).loss_sum));
  }
}

std::vector<Twin> UsableTwins() { return {{"cpu", "cpu", 1}, {"cpu_two_threads", "cpu", 2}}; }

INSTANTIATE_TEST_SUITE_P(Usable, DeviceTest, testing::ValuesIn(UsableTwins()),
                         [](const testing::TestParamInfo<Twin>& info) { return info.param.name; });

// What the suite above does not reach is no device that anybody can open.
TEST(DeviceSuiteTest, EveryUsableDeviceOfThisMachineIsInTheSuite) {
  for (const DeviceInfo& device : ListDevices()) {
    if (device.viable) {
      EXPECT_EQ(device.name, "cpu");
    }
  }
}

}  // namespace
}  // namespace basin
