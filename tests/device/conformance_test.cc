// One suite for every device that can be used here: each operation against a plain loop in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"
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

  // A copy in the device's memory, which lives as long as the test.
  template <typename T>
  T* In(const std::vector<T>& values) {
    auto memory = device_->Allocate(values.size() * sizeof(T));
    BASIN_CHECK(memory.ok());
    memory_.push_back(*std::move(memory));
    device_->CopyIn(memory_.back().data(), values.data(), values.size() * sizeof(T));
    return static_cast<T*>(memory_.back().data());
  }
  // What stands there after all that was asked for.
  Floats Out(const float* values, size_t count) {
    Floats copy(count, -55.0f);
    device_->CopyOut(copy.data(), values, count * sizeof(float));
    const absl::Status finished = device_->Finish();
    EXPECT_TRUE(finished.ok()) << finished;
    return copy;
  }

  Device::LossResult Softmax(int64_t rows, int64_t columns, const Floats& logits, const std::vector<uint8_t>& labels,
                             Floats* gradient = nullptr) {
    Device::LossResult result;
    float* on_device = gradient == nullptr ? nullptr : In(Floats(logits.size(), 77.0f));
    device_->SoftmaxCrossEntropy(rows, columns, In(logits), In(labels), on_device, &result);
    const Floats got = Out(on_device, gradient == nullptr ? 0 : logits.size());
    if (gradient != nullptr) *gradient = got;
    return result;
  }
  Device::LossResult Sigmoid(const Floats& logits, const std::vector<uint8_t>& labels, Floats* gradient = nullptr) {
    Device::LossResult result;
    float* on_device = gradient == nullptr ? nullptr : In(Floats(logits.size(), 77.0f));
    device_->SigmoidCrossEntropy(static_cast<int64_t>(logits.size()), In(logits), In(labels), on_device, &result);
    const Floats got = Out(on_device, gradient == nullptr ? 0 : logits.size());
    if (gradient != nullptr) *gradient = got;
    return result;
  }

  std::unique_ptr<Device> device_;
  std::vector<DeviceMemory> memory_;
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
        float* const on_device = In(c);
        device_->Gemm(Transpose(ta), Transpose(tb), m, n, k, 1.5f, In(a), In(b), beta, on_device);
        const Floats got = Out(on_device, c.size());
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
  float* const on_device = In(matrix);
  device_->AddBias(rows, columns, In(bias), on_device);
  const Floats got = Out(on_device, matrix.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], matrix[i] + bias[i % columns]) << i;
}

// Tolerance: `rows` additions of numbers up to 1, rounded to 24 bits each, of sums up to `rows`.
TEST_P(DeviceTest, ColumnSumsAreTheSumsOfColumns) {
  const std::pair<int64_t, int64_t> sizes[] = {{1, 1}, {128, 10}, {300, 1030}};
  for (const auto& [rows, columns] : sizes) {
    const Floats matrix = RandomFloats(rows * columns, 7);
    float* const on_device = In(Floats(columns, 99.0f));
    device_->ColumnSums(rows, columns, In(matrix), on_device);
    const Floats got = Out(on_device, columns);
    for (int64_t c = 0; c < columns; ++c) {
      double want = 0;
      for (int64_t r = 0; r < rows; ++r) want += matrix[r * columns + c];
      ASSERT_NEAR(got[c], want, static_cast<double>(rows) * static_cast<double>(rows) * 0x1p-24);
    }
  }
}

// More copies than one kernel takes, some of no column; and one that is large enough for several threads.
TEST_P(DeviceTest, ColumnsArePutBesideEachOtherAndTakenApart) {
  for (const auto& [rows, parts, most] : {std::tuple<int64_t, int64_t, int64_t>{30, 70, 5}, {300, 1, 1001}}) {
    const int64_t width = parts * most;
    const Floats whole = RandomFloats(rows * width, 15);
    float* const joined = In(Floats(whole.size(), 99.0f));
    std::vector<Device::ColumnCopy> split, join;
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t columns = (i + most - 1) % most;
      float* const part = In(Floats(rows * columns, 98.0f));
      split.push_back({In(whole) + i * most, width, part, columns, columns});
      join.push_back({part, columns, joined + i * most, width, columns});
    }
    device_->CopyColumns(rows, split);
    device_->CopyColumns(rows, join);
    const Floats got = Out(joined, whole.size());
    for (int64_t i = 0; i < rows * width; ++i) {
      const int64_t part = i % width / most, column = i % width % most;
      ASSERT_EQ(got[i], column < (part + most - 1) % most ? whole[i] : 99.0f) << i;
    }
  }
}

TEST_P(DeviceTest, ReluKeepsWhatIsPositiveAndPassesItsGradientOnly) {
  for (const size_t count : {size_t{1}, size_t{1000}, size_t{300001}}) {
    Floats values = RandomFloats(count, 8);
    const Floats gradient = RandomFloats(count, 9);
    if (count > 10) values[5] = 0.0f;
    float* const on_device = In(values);
    float* const gradient_on_device = In(gradient);
    device_->Relu(static_cast<int64_t>(count), on_device);
    device_->ReluBackward(static_cast<int64_t>(count), on_device, gradient_on_device);
    const Floats got = Out(on_device, count), got_gradient = Out(gradient_on_device, count);
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(got[i], std::max(0.0f, values[i]));
      ASSERT_EQ(got_gradient[i], values[i] > 0 ? gradient[i] : 0.0f);
    }
  }
}

TEST_P(DeviceTest, ReluDoesNotHideANaN) {
  // Long enough for the vectorised loop and for what is left over.
  float* const values = In(Floats(37, std::numeric_limits<float>::quiet_NaN()));
  device_->Relu(37, values);
  for (const float value : Out(values, 37)) EXPECT_TRUE(std::isnan(value));
}

// Stored values: logits (1, 2, 3), label 0: log(e + e^2 + e^3) - 1 = 2.407605964444380 and
// softmax = 0.09003057317038046, 0.24472847105479767, 0.6652409557748219 (from a desk calculator's 30 digits).
TEST_P(DeviceTest, SoftmaxCrossEntropyGivesTheStoredValues) {
  Floats gradient;
  const Device::LossResult sums = Softmax(1, 3, {1, 2, 3}, {0}, &gradient);
  EXPECT_NEAR(sums.loss_sum, 2.407605964444380, 1e-6);
  EXPECT_EQ(sums.correct, 0u);
  EXPECT_NEAR(gradient[0], 0.09003057317038046 - 1, 1e-7);
  EXPECT_NEAR(gradient[1], 0.24472847105479767, 1e-7);
  EXPECT_NEAR(gradient[2], 0.6652409557748219, 1e-7);
}

TEST_P(DeviceTest, SoftmaxCrossEntropyCountsTheRowsWhoseLabelIsLargest) {
  EXPECT_EQ(Softmax(4, 2, {1, 0, 0, 1, 2, 2, 2, 2}, {0, 0, 0, 1}).correct, 2u);  // of equal ones the first counts
}

TEST_P(DeviceTest, SoftmaxCrossEntropyStandsLargeLogits) {
  Floats gradient;
  const Device::LossResult sums = Softmax(2, 2, {1e4f, -1e4f, 3e38f, 0}, {1, 0}, &gradient);
  EXPECT_NEAR(sums.loss_sum, 2e4, 1e-2);
  for (const float g : gradient) EXPECT_TRUE(std::isfinite(g));
}

TEST_P(DeviceTest, SoftmaxCrossEntropyOfANaNIsANaN) {
  EXPECT_TRUE(std::isnan(Softmax(1, 2, {std::numeric_limits<float>::quiet_NaN(), 1}, {0}).loss_sum));
  EXPECT_TRUE(std::isnan(Softmax(1, 2, {1, std::numeric_limits<float>::quiet_NaN()}, {0}).loss_sum));
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
  Softmax(rows, columns, logits, labels, &gradient);
  for (size_t i = 0; i < logits.size(); ++i) {
    Floats up = logits, down = logits;
    up[i] += h;
    down[i] -= h;
    const double slope = (Softmax(rows, columns, up, labels).loss_sum - Softmax(rows, columns, down, labels).loss_sum) /
                         (2.0 * h) / rows;
    EXPECT_NEAR(gradient[i], slope, 2e-5) << i;
  }
}

TEST_P(DeviceTest, SoftmaxCrossEntropyMayWriteOverTheLogits) {
  const int64_t rows = 300, columns = 100;
  const Floats logits = RandomFloats(rows * columns, 11);
  std::vector<uint8_t> labels(rows);
  for (size_t r = 0; r < labels.size(); ++r) labels[r] = static_cast<uint8_t>(r % columns);
  Floats apart;
  const Device::LossResult expected = Softmax(rows, columns, logits, labels, &apart);
  float* const both = In(logits);
  Device::LossResult over;
  device_->SoftmaxCrossEntropy(rows, columns, both, In(labels), both, &over);
  EXPECT_EQ(Out(both, logits.size()), apart);
  EXPECT_EQ(over.loss_sum, expected.loss_sum);
}

// Stored values: log(1 + e^-2) = 0.126928011042973, sigmoid(2) = 0.880797077977882 (from a desk calculator's 30
// digits).
TEST_P(DeviceTest, SigmoidCrossEntropyGivesTheStoredValues) {
  const Floats logits = {2, 2, -2, -2};
  const std::vector<uint8_t> labels = {1, 0, 0, 1};
  Floats gradient;
  const Device::LossResult sums = Sigmoid(logits, labels, &gradient);
  EXPECT_NEAR(sums.loss_sum, 2 * 0.126928011042973 + 2 * 2.126928011042973, 1e-6);
  EXPECT_EQ(sums.correct, 2u);
  EXPECT_NEAR(gradient[0], (0.880797077977882 - 1) / 4, 1e-7);
  EXPECT_NEAR(gradient[1], 0.880797077977882 / 4, 1e-7);
  EXPECT_NEAR(gradient[2], (1 - 0.880797077977882) / 4, 1e-7);
  EXPECT_NEAR(gradient[3], -0.880797077977882 / 4, 1e-7);
}

TEST_P(DeviceTest, SigmoidCrossEntropyIsSoftmaxCrossEntropyBesideALogitOfZero) {
  const int64_t rows = 40;
  Floats logits = RandomFloats(rows, 12), pairs, pair_gradient, gradient;
  for (float& logit : logits) logit *= 20;
  std::vector<uint8_t> labels;
  for (int64_t row = 0; row < rows; ++row) {
    labels.push_back(static_cast<uint8_t>(row % 2));
    pairs.insert(pairs.end(), {0, logits[row]});
  }
  const Device::LossResult expected = Softmax(rows, 2, pairs, labels, &pair_gradient);
  const Device::LossResult alone = Sigmoid(logits, labels);
  float* const over = In(logits);
  Device::LossResult got;
  device_->SigmoidCrossEntropy(rows, over, In(labels), over, &got);
  gradient = Out(over, rows);
  EXPECT_NEAR(got.loss_sum, expected.loss_sum, 1e-4);
  EXPECT_EQ(got.correct, expected.correct);
  EXPECT_EQ(alone.loss_sum, got.loss_sum);
  for (int64_t row = 0; row < rows; ++row) EXPECT_NEAR(gradient[row], pair_gradient[2 * row + 1], 1e-7) << row;
}

TEST_P(DeviceTest, SigmoidCrossEntropyStandsLargeLogitsAndShowsANaN) {
  const Floats logits = {3e38f, -3e38f, 1e4f};
  const std::vector<uint8_t> labels = {1, 0, 0};
  Floats gradient;
  EXPECT_NEAR(Sigmoid(logits, labels, &gradient).loss_sum, 1e4, 1e-2);
  for (const float g : gradient) EXPECT_TRUE(std::isfinite(g));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const uint8_t label : {uint8_t{0}, uint8_t{1}}) {
    EXPECT_TRUE(std::isnan(Sigmoid({nan}, {label}).loss_sum));
  }
}

TEST_P(DeviceTest, ManyLossesMayBeAskedForBeforeTheyAreThere) {
  std::vector<Device::LossResult> results(200);
  const uint8_t* const label = In(std::vector<uint8_t>{1});
  for (size_t i = 0; i < results.size(); ++i) {
    device_->SigmoidCrossEntropy(1, In(Floats{static_cast<float>(i)}), label, nullptr, &results[i]);
  }
  ASSERT_TRUE(device_->Finish().ok());
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_NEAR(results[i].loss_sum, std::log1p(std::exp(-static_cast<double>(i))), 1e-7) << i;
  }
}

TEST_P(DeviceTest, PinnedMemoryIsCopiedLikeOther) {
  Floats from = RandomFloats(100001, 13), to(from.size());
  const PinnedMemory pinned_from = device_->Pin(from.data(), from.size() * sizeof(float));
  const PinnedMemory pinned_to = device_->Pin(to.data(), to.size() * sizeof(float));
  float* const on_device = In(Floats(from.size()));
  device_->CopyIn(on_device, from.data(), from.size() * sizeof(float));
  device_->CopyOut(to.data(), on_device, to.size() * sizeof(float));
  ASSERT_TRUE(device_->Finish().ok());
  EXPECT_EQ(to, from);
}

TEST_P(DeviceTest, WhoeverCopiesByHimselfLearnsItsNumberAndStreams) {
  const uint64_t mark = device_->Mark();
  const auto at = device_->StreamAt(mark);
  ASSERT_TRUE(at.ok()) << at.status();
  if (device_->is_host()) {
    EXPECT_EQ(device_->number(), -1);
    EXPECT_EQ(device_->stream(), nullptr);
    EXPECT_EQ(*at, nullptr);
    return;
  }
  EXPECT_EQ(absl::StrCat("cuda:", device_->number()), device_->name());
  EXPECT_NE(device_->stream(), nullptr);
  EXPECT_NE(*at, nullptr);
  EXPECT_NE(*at, device_->stream());
}

TEST_P(DeviceTest, TooMuchMemoryIsRefusedAndHarmsNothing) {
  if (device_->is_host()) return;  // a sanitizer's allocator ends the process instead
  const auto refused = device_->Allocate(size_t{1} << 60);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
  EXPECT_EQ(Out(In(Floats{1, 2, 3}), 3), (Floats{1, 2, 3}));
}

TEST_P(DeviceTest, AVectorGrowsAndKeepsItsMemoryWhenItShrinks) {
  DeviceVector<float> values;
  ASSERT_TRUE(values.Resize(*device_, 1000).ok());
  const float* const first = values.data();
  ASSERT_TRUE(values.Resize(*device_, 10).ok());
  EXPECT_EQ(values.data(), first);
  EXPECT_EQ(values.size(), 10u);
  ASSERT_TRUE(values.Resize(*device_, 2000).ok());
  const Floats numbers = RandomFloats(2000, 14);
  device_->CopyIn(values.data(), numbers.data(), numbers.size() * sizeof(float));
  EXPECT_EQ(Out(values.data(), 2000), numbers);
}

std::vector<Twin> CpuTwins() { return {{"cpu", "cpu", 1}, {"cpu_two_threads", "cpu", 2}}; }
INSTANTIATE_TEST_SUITE_P(Cpu, DeviceTest, testing::ValuesIn(CpuTwins()),
                         [](const testing::TestParamInfo<Twin>& info) { return info.param.name; });

// All others that can be used on this machine; the test gpu_device_test runs these alone, and skips with the reason
// where there are none.
std::vector<Twin> OtherTwins() {
  std::vector<Twin> twins;
  for (const DeviceInfo& device : ListDevices()) {
    if (!device.viable || device.name == "cpu") continue;
    twins.push_back({absl::StrReplaceAll(device.name, {{":", "_"}}), device.name, 1});
  }
  return twins;
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeviceTest);
INSTANTIATE_TEST_SUITE_P(Gpu, DeviceTest, testing::ValuesIn(OtherTwins()),
                         [](const testing::TestParamInfo<Twin>& info) { return info.param.name; });

TEST(GpuSuiteTest, RunsWhereThereIsAGpu) {
  std::vector<std::string> reasons;
  for (const DeviceInfo& device : ListDevices()) {
    if (device.viable && device.name != "cpu") return;
    if (!device.viable) reasons.push_back(absl::StrCat(device.name, ": ", device.reason));
  }
  GTEST_SKIP() << absl::StrJoin(reasons, "; ");
}

}  // namespace
}  // namespace basin
