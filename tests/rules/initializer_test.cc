#include "common/rules/initializer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace basin {
namespace {

constexpr InitKind kAll[] = {InitKind::kZeros,         InitKind::kConstant, InitKind::kUniform, InitKind::kNormal,
                             InitKind::kGlorotUniform, InitKind::kHeNormal, InitKind::kAssigned};

std::vector<float> Filled(const InitSpec& spec, Fans fans, size_t n) {
  std::vector<float> values(n, -7.0f);
  Fill(spec, fans, 0, absl::MakeSpan(values));
  return values;
}

double Mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double Deviation(const std::vector<float>& values) {
  const double mean = Mean(values);
  double sum = 0;
  for (const float value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

constexpr size_t kMany = 100000;
// 100000 draws: the mean is within 5 standard errors of the true one, the deviation within 2%. The seed is fixed.
void ExpectMoments(const std::vector<float>& values, double mean, double deviation) {
  EXPECT_NEAR(Mean(values), mean, 5 * deviation / std::sqrt(static_cast<double>(values.size())));
  EXPECT_NEAR(Deviation(values), deviation, 0.02 * deviation);
}

TEST(InitializerTest, ValuesAreTheSameWhateverTheSplit) {
  constexpr size_t kLength = 1000;
  for (const InitKind kind : kAll) {
    const InitSpec spec = {.kind = kind, .a = -0.5f, .b = 2.0f, .seed = 42};
    const std::vector<float> whole = Filled(spec, {30, 50}, kLength);
    for (const size_t piece : {1, 7, 64, 333, 999}) {
      std::vector<float> split(kLength);
      // From the last piece to the first: the order must not count either.
      for (size_t end = kLength; end > 0;) {
        const size_t begin = end - std::min(piece, end);
        Fill(spec, {30, 50}, begin, absl::MakeSpan(split).subspan(begin, end - begin));
        end = begin;
      }
      EXPECT_EQ(split, whole) << "kind " << static_cast<int>(kind) << ", pieces of " << piece;
    }
  }
}

TEST(InitializerTest, SeedsGiveDifferentValues) {
  for (const InitKind kind : {InitKind::kUniform, InitKind::kNormal, InitKind::kGlorotUniform, InitKind::kHeNormal}) {
    const auto one = Filled({.kind = kind, .a = 0, .b = 1, .seed = 1}, {}, 100);
    const auto two = Filled({.kind = kind, .a = 0, .b = 1, .seed = 2}, {}, 100);
    size_t equal = 0;
    for (size_t i = 0; i < one.size(); ++i) equal += one[i] == two[i];
    EXPECT_LT(equal, 3u) << static_cast<int>(kind);
  }
}

TEST(InitializerTest, FixedValuesFillEveryElement) {
  EXPECT_EQ(Filled({.kind = InitKind::kZeros}, {}, 9), std::vector<float>(9, 0.0f));
  EXPECT_EQ(Filled({.kind = InitKind::kAssigned, .a = 3}, {}, 9), std::vector<float>(9, 0.0f));
  EXPECT_EQ(Filled({.kind = InitKind::kConstant, .a = 1.5f}, {}, 9), std::vector<float>(9, 1.5f));
}

TEST(InitializerTest, UniformStaysInItsBoundsAndFillsThem) {
  const auto values = Filled({.kind = InitKind::kUniform, .a = -1, .b = 3, .seed = 11}, {}, kMany);
  ExpectMoments(values, 1, 4 / std::sqrt(12.0));
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  EXPECT_GE(*low, -1);
  EXPECT_LE(*high, 3);
  EXPECT_LT(*low, -0.99f);
  EXPECT_GT(*high, 2.99f);
}

TEST(InitializerTest, NormalHasItsMeanItsDeviationAndItsTails) {
  const auto values = Filled({.kind = InitKind::kNormal, .a = 2, .b = 0.5f, .seed = 12}, {}, kMany);
  ExpectMoments(values, 2, 0.5);
  size_t beyond_two = 0;
  for (const float value : values) beyond_two += std::abs(value - 2) > 1;
  EXPECT_NEAR(static_cast<double>(beyond_two) / kMany, 0.0455, 0.004);
}

TEST(InitializerTest, NeighboursAreNotCorrelated) {
  const auto values = Filled({.kind = InitKind::kNormal, .a = 0, .b = 1, .seed = 13}, {}, kMany);
  double sum = 0;
  for (size_t i = 0; i + 1 < values.size(); ++i) sum += values[i] * values[i + 1];
  EXPECT_NEAR(sum / kMany, 0, 5 / std::sqrt(static_cast<double>(kMany)));
}

TEST(InitializerTest, GlorotUniformHasItsLimit) {
  const auto values = Filled({.kind = InitKind::kGlorotUniform, .seed = 14}, {300, 100}, kMany);
  const double limit = std::sqrt(6.0 / 400);
  ExpectMoments(values, 0, limit / std::sqrt(3.0));
  for (const float value : values) ASSERT_LE(std::abs(value), static_cast<float>(limit));
}

TEST(InitializerTest, HeNormalHasItsDeviation) {
  ExpectMoments(Filled({.kind = InitKind::kHeNormal, .seed = 15}, {128, 10}, kMany), 0, std::sqrt(2.0 / 128));
}

TEST(InitializerTest, FansFollowKeras) {
  const auto expect = [](std::vector<int64_t> shape, double in, double out) {
    const Fans fans = FansOf(shape);
    EXPECT_EQ(fans.in, in);
    EXPECT_EQ(fans.out, out);
  };
  expect({}, 1, 1);
  expect({7}, 7, 7);
  expect({784, 128}, 784, 128);
  expect({3, 3, 16, 32}, 9 * 16, 9 * 32);
  expect({5, 8, 4}, 40, 20);
  expect({0, 4}, 1, 4);  // never a division by 0
  expect({int64_t{1} << 40, int64_t{1} << 40, 2, 1}, 0x1p81, 0x1p80);
}

TEST(InitializerTest, ValidateNamesTheFieldAndWhatWasExpected) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const InitKind kind : kAll) {
    EXPECT_TRUE(Validate(InitSpec{.kind = kind, .a = -1, .b = 1}).ok()) << static_cast<int>(kind);
  }
  const auto message = [](const InitSpec& spec) { return std::string(Validate(spec).message()); };
  EXPECT_EQ(message({.kind = InitKind::kUniform, .a = 2, .b = 1}),
            "initializer uniform: high is 1, expected at least low, which is 2; correct the variable's initializer");
  EXPECT_NE(message({.kind = InitKind::kNormal, .a = 0, .b = -1}).find("standard deviation is -1"), std::string::npos);
  EXPECT_NE(message({.kind = InitKind::kConstant, .a = kNan}).find("value is nan"), std::string::npos);
  EXPECT_NE(message({.kind = static_cast<InitKind>(0)}).find("kind is 0, expected 1 to 7"), std::string::npos);
  // What a kind does not use is not looked at.
  EXPECT_TRUE(Validate(InitSpec{.kind = InitKind::kZeros, .a = kNan, .b = kNan}).ok());
}

}  // namespace
}  // namespace basin
