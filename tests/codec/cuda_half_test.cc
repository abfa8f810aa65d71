// The kernels against the host's loops: the same bits.
#include "common/codec/cuda_half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/random.h"
#include "common/codec/half.h"
#include "tests/device/on_device.h"

namespace basin {
namespace {

class CudaHalfTest : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU: " << cudaGetErrorString(error);
  }

  void ExpectNarrowAsOnTheHost(const std::vector<float>& values) {
    std::vector<uint16_t> expected(values.size());
    const bool finite = Narrow(GetParam(), values.data(), values.size(), reinterpret_cast<char*>(expected.data()));
    const OnDevice<float> in(values);
    const OnDevice<uint16_t> out(std::vector<uint16_t>(values.size(), 0x1234));
    const OnDevice<uint32_t> flag(std::vector<uint32_t>(1, 0));
    ExpectCuda(StartNarrow(nullptr, GetParam(), in.data(), values.size(), out.data(), flag.data()));
    ExpectCuda(cudaDeviceSynchronize());
    EXPECT_EQ(out.Copy(), expected);
    EXPECT_EQ(flag.Copy()[0], finite ? 0u : 1u) << values.size();
  }
};

TEST_P(CudaHalfTest, NarrowsAsTheHost) {
  for (const size_t n : {0, 1, 3, 4, 5, 1023, 4096, 100'003}) {
    std::vector<float> small(n), any(n);
    for (size_t i = 0; i < n; ++i) {
      small[i] = static_cast<float>(std::exp2(-30 + 40 * UnitAt(3, i)) * (i % 2 == 0 ? 1 : -1));
      any[i] = std::bit_cast<float>(static_cast<uint32_t>(RandomAt(4, i)));
    }
    ExpectNarrowAsOnTheHost(small);
    ExpectNarrowAsOnTheHost(any);
    if (n == 0) continue;
    small[n - 1] = NAN;
    ExpectNarrowAsOnTheHost(small);
  }
}

TEST_P(CudaHalfTest, NarrowsAtAnyAddressOfAnElement) {
  std::vector<float> values(1030);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 3;
  const OnDevice<float> in(values);
  for (const size_t from : {0, 1, 2, 3, 1027}) {
    for (const size_t to : {0, 1, 3}) {
      const size_t n = values.size() - from;
      std::vector<uint16_t> expected(values.size() + to, 0x1234);
      Narrow(GetParam(), values.data() + from, n, reinterpret_cast<char*>(expected.data() + to));
      const OnDevice<uint16_t> out(std::vector<uint16_t>(expected.size(), 0x1234));
      ExpectCuda(StartNarrow(nullptr, GetParam(), in.data() + from, n, out.data() + to, nullptr));
      EXPECT_EQ(out.Copy(), expected) << from << ", " << to;
    }
  }
}

TEST_P(CudaHalfTest, FindsTheFirstThatDoesNotFitAsTheHost) {
  const float too_large = OverflowsFrom(GetParam());
  struct Case {
    size_t from, n;
    std::vector<std::pair<size_t, float>> bad;
  };
  for (const Case& one : std::vector<Case>{{0, 0, {}},
                                           {0, 1, {{0, NAN}}},
                                           {3, 7, {}},
                                           {1, 9, {{8, too_large}}},
                                           {2, 100'003, {{100'000, -INFINITY}, {99'999, -too_large}}},
                                           {0, 700'001, {{700'000, NAN}, {3, too_large}, {4, NAN}}},
                                           {1, 700'001, {{699'999, INFINITY}}}}) {
    // Those before the first are not looked at.
    std::vector<float> values(one.from, NAN);
    values.resize(one.from + one.n, std::nextafter(too_large, 0.0f));
    for (const auto& [at, value] : one.bad) values[one.from + at] = value;
    std::vector<uint16_t> halves(values.size());
    Narrow(GetParam(), values.data(), values.size(), reinterpret_cast<char*>(halves.data()));
    const OnDevice<float> floats_there(values);
    const OnDevice<uint16_t> halves_there(halves);
    for (const DType from : {DType::kF32, GetParam()}) {
      const char* const at = from == DType::kF32 ? reinterpret_cast<const char*>(values.data() + one.from)
                                                 : reinterpret_cast<const char*>(halves.data() + one.from);
      const void* const there = from == DType::kF32 ? static_cast<const void*>(floats_there.data() + one.from)
                                                    : static_cast<const void*>(halves_there.data() + one.from);
      const Unfit expected = FindUnfit(from, GetParam(), at, one.n);
      const OnDevice<Unfit> found(std::vector<Unfit>(1, {.element = 5, .value = 5}));
      ExpectCuda(StartFindUnfit(nullptr, from, GetParam(), there, one.n, found.data()));
      const Unfit unfit = found.Copy()[0];
      EXPECT_EQ(unfit.element, expected.element) << one.from << ", " << one.n;
      EXPECT_EQ(unfit.element == Unfit::kNone, one.bad.empty());
      EXPECT_TRUE(unfit.value == expected.value || (std::isnan(unfit.value) && std::isnan(expected.value)));
    }
  }
}

TEST_P(CudaHalfTest, WidensEveryHalfAsTheHost) {
  for (const uint32_t most : {1u, 0x7bffu, 0x10000u}) {
    std::vector<uint16_t> halves(most);
    for (uint32_t i = 0; i < most; ++i) halves[i] = static_cast<uint16_t>(i);
    std::vector<float> expected(most);
    const auto* bytes = reinterpret_cast<const char*>(halves.data());
    Widen(GetParam(), bytes, most, expected.data());
    const OnDevice<uint16_t> in(halves);
    const OnDevice<float> out(std::vector<float>(most, -77.0f));
    const OnDevice<uint32_t> flag(std::vector<uint32_t>(1, 0));
    ExpectCuda(StartWiden(nullptr, GetParam(), in.data(), most, out.data(), flag.data()));
    ExpectCuda(cudaDeviceSynchronize());
    EXPECT_EQ(std::memcmp(out.Copy().data(), expected.data(), most * sizeof(float)), 0);
    EXPECT_EQ(flag.Copy()[0], HalvesAreFinite(GetParam(), bytes, most) ? 0u : 1u);
  }
}

TEST_P(CudaHalfTest, TheFlagIsNeverTakenBack) {
  const OnDevice<float> in(std::vector<float>(8, 1.0f));
  const OnDevice<uint16_t> out(std::vector<uint16_t>(8, 0));
  const OnDevice<uint32_t> flag(std::vector<uint32_t>(1, 1));
  ExpectCuda(StartNarrow(nullptr, GetParam(), in.data(), 8, out.data(), flag.data()));
  ExpectCuda(cudaDeviceSynchronize());
  EXPECT_EQ(flag.Copy()[0], 1u);
}

INSTANTIATE_TEST_SUITE_P(Types, CudaHalfTest, testing::Values(DType::kF16, DType::kBF16),
                         [](const testing::TestParamInfo<DType>& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace basin
