#include "common/codec/half.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/base/random.h"

namespace basin {
namespace {

// What IEEE 754 says of the two formats, in double: where every number of them, and every number between two floats of
// theirs, is exact.
struct Format {
  DType type;
  int mantissa_bits;
  int exponent_bits;

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }

  double Decode(uint16_t half) const {
    const int mantissa = half & ((1 << mantissa_bits) - 1);
    const int exponent = (half >> mantissa_bits) & ((1 << exponent_bits) - 1);
    double magnitude;
    if (exponent == (1 << exponent_bits) - 1) {
      magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
    } else if (exponent == 0) {
      magnitude = std::ldexp(mantissa, 1 - bias() - mantissa_bits);
    } else {
      magnitude = std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias() - mantissa_bits);
    }
    return half & 0x8000 ? -magnitude : magnitude;
  }

  // The nearest number of the format, ties to even.
  double Nearest(float value) const {
    if (!std::isfinite(value) || value == 0) return value;
    const int exponent = std::max(std::ilogb(value), 1 - bias());
    const double rounded =
        std::ldexp(std::nearbyint(std::ldexp(double{value}, mantissa_bits - exponent)), exponent - mantissa_bits);
    return std::abs(rounded) < std::ldexp(1, bias() + 1)
               ? rounded
               : std::copysign(std::numeric_limits<double>::infinity(), value);
  }
};

constexpr Format kFormats[] = {{DType::kF16, 10, 5}, {DType::kBF16, 7, 8}};

// The same number: NaN is NaN, and zeros have signs.
bool Same(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b); }

std::string Hex(float value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%a (%08x)", double{value}, std::bit_cast<uint32_t>(value));
  return text;
}

void ExpectNearest(const Format& format, const std::vector<float>& values) {
  std::vector<uint16_t> halves(values.size());
  const bool finite = Narrow(format.type, values.data(), values.size(), reinterpret_cast<char*>(halves.data()));
  bool expected_finite = true;
  int wrong = 0;
  for (size_t i = 0; i < values.size() && wrong < 10; ++i) {
    const double expected = format.Nearest(values[i]);
    expected_finite = expected_finite && std::isfinite(expected);
    if (Same(format.Decode(halves[i]), expected)) continue;
    ++wrong;
    ADD_FAILURE() << Name(format.type) << " of " << Hex(values[i]) << " is " << format.Decode(halves[i])
                  << ", the nearest is " << expected;
  }
  EXPECT_TRUE(finite == expected_finite || wrong > 0) << Name(format.type);
}

TEST(HalfTest, EveryHalfWidensToItsNumber) {
  std::vector<uint16_t> halves(1 << 16);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  for (const Format& format : kFormats) {
    std::vector<float> values(halves.size());
    Widen(format.type, reinterpret_cast<const char*>(halves.data()), halves.size(), values.data());
    for (size_t i = 0; i < halves.size(); ++i) {
      ASSERT_TRUE(Same(values[i], format.Decode(halves[i]))) << Name(format.type) << " " << i << ": " << values[i];
    }
  }
}

TEST(HalfTest, EveryHalfComesBack) {
  for (const Format& format : kFormats) {
    for (uint32_t i = 0; i < 1 << 16; ++i) {
      const auto half = static_cast<uint16_t>(i);
      float value;
      uint16_t back;
      Widen(format.type, reinterpret_cast<const char*>(&half), 1, &value);
      const bool finite = Narrow(format.type, &value, 1, reinterpret_cast<char*>(&back));
      ASSERT_EQ(finite, std::isfinite(value)) << Name(format.type) << " " << i;
      ASSERT_EQ(HalvesAreFinite(format.type, reinterpret_cast<const char*>(&half), 1), finite) << i;
      if (std::isnan(value)) {
        ASSERT_TRUE(std::isnan(format.Decode(back))) << i;
      } else {
        ASSERT_EQ(back, half) << Name(format.type);
      }
    }
  }
}

// Each number of the format, the middle between it and the next (a tie), and the floats on both sides of the two.
TEST(HalfTest, TiesGoToEven) {
  for (const Format& format : kFormats) {
    std::vector<float> values;
    for (uint32_t half = 0; half < 0x8000; ++half) {
      const double number = format.Decode(static_cast<uint16_t>(half));
      if (!std::isfinite(number)) break;
      double next = format.Decode(static_cast<uint16_t>(half + 1));
      if (!std::isfinite(next)) next = std::ldexp(1, format.bias() + 1);
      for (const double about : {number, number + (next - number) / 2}) {
        const auto at = static_cast<float>(about);
        for (const float value : {at, std::nextafter(at, 0.0f), std::nextafter(at, INFINITY)}) {
          values.push_back(value);
          values.push_back(-value);
        }
      }
    }
    // Those that overflow apart, so that the others' being finite is seen too.
    std::vector<float> finite;
    for (const float value : values) {
      if (std::isfinite(format.Nearest(value))) finite.push_back(value);
    }
    ExpectNearest(format, finite);
    ExpectNearest(format, values);
  }
}

TEST(HalfTest, AnyFloatGoesToTheNearest) {
  for (const Format& format : kFormats) {
    std::vector<float> values;
    for (uint64_t i = 0; i < 2'000'000; ++i) {
      values.push_back(std::bit_cast<float>(static_cast<uint32_t>(RandomAt(6, i))));
    }
    ExpectNearest(format, values);
    // The range in which float16 has normal and subnormal numbers.
    values.clear();
    for (uint64_t i = 0; i < 2'000'000; ++i) {
      const double exponent = -28 + 46 * UnitAt(7, 2 * i);
      values.push_back(static_cast<float>(std::exp2(exponent) * (i % 2 == 0 ? 1 : -1) * (1 + UnitAt(7, 2 * i + 1))));
    }
    ExpectNearest(format, values);
  }
}

TEST(HalfTest, SpecialNumbersStaySpecial) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const Format& format : kFormats) {
    ExpectNearest(format, {0.0f, -0.0f, 1.0f, std::numeric_limits<float>::denorm_min(), -1e-40f, 1e-7f});
    ExpectNearest(format, {inf});
    ExpectNearest(format, {-inf});
    ExpectNearest(format, {std::numeric_limits<float>::max()});
    // NaN in whichever bits: those that are cut off among them.
    for (const uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fc00000u, 0x7fffffffu, 0xffffffffu, 0x7f801000u}) {
      ExpectNearest(format, {std::bit_cast<float>(bits)});
    }
  }
}

TEST(HalfTest, OverflowBeginsWhereItIsSaidTo) {
  for (const Format& format : kFormats) {
    const float from = OverflowsFrom(format.type), below = std::nextafter(from, 0.0f);
    uint16_t half;
    EXPECT_FALSE(Narrow(format.type, &from, 1, reinterpret_cast<char*>(&half)));
    EXPECT_TRUE(std::isinf(format.Decode(half)));
    EXPECT_TRUE(Narrow(format.type, &below, 1, reinterpret_cast<char*>(&half)));
    EXPECT_EQ(format.Decode(half), double{LargestFinite(format.type)});
  }
  EXPECT_EQ(LargestFinite(DType::kF16), 65504.0f);
}

// One element that is not finite anywhere in an array of any length and at any address is seen, and where it stands
// changes nothing for the others.
TEST(HalfTest, OneBadElementIsSeenWhereverItIs) {
  for (const Format& format : kFormats) {
    for (const size_t n : {1, 7, 16, 33, 100, 8192, 8193, 20000}) {
      std::vector<float> values(n);
      for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(UnitAt(9, i) - 0.5);
      std::vector<char> room(2 * n + 1), expected(2 * n + 1);
      char* const halves = room.data() + 1;  // an odd address
      EXPECT_TRUE(Narrow(format.type, values.data(), n, halves));
      EXPECT_TRUE(HalvesAreFinite(format.type, halves, n));
      for (const size_t at : {size_t{0}, n / 2, n - 1}) {
        std::vector<float> bad = values;
        bad[at] = at % 2 == 0 ? NAN : -INFINITY;
        EXPECT_FALSE(Narrow(format.type, bad.data(), n, expected.data() + 1));
        EXPECT_FALSE(HalvesAreFinite(format.type, expected.data() + 1, n));
        std::memcpy(expected.data() + 1 + 2 * at, halves + 2 * at, 2);
        EXPECT_EQ(std::memcmp(expected.data() + 1, halves, 2 * n), 0);
      }
      std::vector<float> back(n);
      Widen(format.type, halves, n, back.data());
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(back[i], format.Nearest(values[i])) << i;
    }
    EXPECT_TRUE(Narrow(format.type, nullptr, 0, nullptr));
    EXPECT_TRUE(HalvesAreFinite(format.type, nullptr, 0));
  }
}

TEST(HalfTest, TheFirstThatDoesNotFitIsFoundWithItsValue) {
  std::vector<float> values(1000, -65519.0f);
  EXPECT_EQ(FindUnfit(DType::kF32, DType::kF16, reinterpret_cast<const char*>(values.data()), 1000).element,
            Unfit::kNone);
  values[999] = NAN;
  values[70] = -65520.0f;
  const Unfit too_large = FindUnfit(DType::kF32, DType::kF16, reinterpret_cast<const char*>(values.data()), 1000);
  EXPECT_EQ(too_large.element, 70u);
  EXPECT_EQ(too_large.value, -65520.0f);
  const Unfit nan = FindUnfit(DType::kF32, DType::kBF16, reinterpret_cast<const char*>(values.data()), 1000);
  EXPECT_EQ(nan.element, 999u);
  EXPECT_TRUE(std::isnan(nan.value));
  for (const auto& [type, infinity] :
       {std::pair(DType::kF16, uint16_t{0xfc00}), std::pair(DType::kBF16, uint16_t{0xff80})}) {
    std::vector<uint16_t> halves(9, 0x0001);
    const auto* const bytes = reinterpret_cast<const char*>(halves.data());
    EXPECT_EQ(FindUnfit(type, type, bytes, 9).element, Unfit::kNone);
    halves[8] = infinity;
    EXPECT_EQ(FindUnfit(type, type, bytes, 9).element, 8u);
    EXPECT_EQ(FindUnfit(type, type, bytes, 9).value, -INFINITY);
    EXPECT_EQ(FindUnfit(type, type, bytes, 8).element, Unfit::kNone);
  }
}

}  // namespace
}  // namespace basin
