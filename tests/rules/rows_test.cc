// Rows of tables against the rules of dense variables, which apply_test.cc holds against stored values; and storage in
// 16 bits.
#include "common/rules/rows.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/base/random.h"
#include "common/rules/apply.h"
#include "common/rules/initializer.h"
#include "common/rules/storage_math.h"
#include "tests/rules/golden_values.h"

namespace basin {
namespace {

using Floats = std::vector<float>;

Floats RandomRow(size_t n, uint64_t seed) {
  Floats values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(UnitAt(seed, i) * 2 - 1);
  return values;
}

Floats Read(const RowRule& rule, const char* row, uint32_t dim) {
  Floats values(dim);
  char* out = reinterpret_cast<char*>(values.data());
  rule.Read(1, &row, &out);
  return values;
}

void ApplyOne(const RowRule& rule, float rate, const Floats& gradient, char* row, uint64_t key = 9) {
  const char* from = reinterpret_cast<const char*>(gradient.data());
  rule.Apply(rate, 1, &row, &from, &key);
}

TEST(RowsTest, RowsInFloat32AreDenseVariablesElementByElement) {
  for (const RuleKind kind :
       {RuleKind::kSgd, RuleKind::kMomentum, RuleKind::kAdagrad, RuleKind::kAdam, RuleKind::kFtrl}) {
    for (const bool nesterov : {false, true}) {
      for (const uint32_t dim : {1u, 2u, 4u, 7u, 16u, 21u, 64u, 4096u}) {
        RuleSpec spec;
        spec.kind = kind;
        spec.nesterov = nesterov;
        spec.l1 = 0.125f;
        const RowRule rule(spec, DType::kF32, dim);
        std::vector<char> bytes(rule.row_bytes() + 1);
        char* row = bytes.data() + 1;
        Floats w = RandomRow(dim, dim);
        rule.Start(w.data(), row);
        std::array<Floats, kMaxSlots> slots;
        for (int slot = 0; slot < SlotCount(kind); ++slot) slots[slot].assign(dim, SlotInitialValue(spec, slot));
        for (uint64_t step = 1; step <= 20; ++step) {
          const Floats gradient = RandomRow(dim, 100 * dim + step);
          ApplyOne(rule, 0.05f, gradient, row);
          ApplyArguments arguments{.gradient = gradient, .parameters_in = w, .parameters_out = absl::MakeSpan(w)};
          for (int slot = 0; slot < kMaxSlots; ++slot) {
            arguments.slots_in[slot] = slots[slot];
            arguments.slots_out[slot] = absl::MakeSpan(slots[slot]);
          }
          arguments.step = step;
          arguments.learning_rate = 0.05f;
          Apply(spec, arguments);
          const Floats found = Read(rule, row, dim);
          for (uint32_t i = 0; i < dim; ++i) {
            // Adam's rate is rounded once more, from a stored correction; the rest is the same to the bit.
            const float tolerance = kind == RuleKind::kAdam ? 1e-6f : 0.0f;
            ASSERT_NEAR(found[i], w[i], tolerance) << ToText(spec) << ", dim " << dim << ", step " << step;
          }
        }
      }
    }
  }
}

TEST(RowsTest, RowwiseAdagradGivesTheStoredValues) {
  RuleSpec spec;
  spec.kind = RuleKind::kRowwiseAdagrad;
  const RowRule rule(spec, DType::kF32, golden::kElements);
  ASSERT_EQ(rule.row_bytes(), 4u * golden::kElements + 4);
  std::vector<char> row(rule.row_bytes());
  const Floats start(std::begin(golden::kStart), std::end(golden::kStart));
  rule.Start(start.data(), row.data());
  for (int step = 0; step < golden::kSteps; ++step) {
    ApplyOne(rule, 0.05f, Floats(std::begin(golden::kGradients[step]), std::end(golden::kGradients[step])), row.data());
    const Floats found = Read(rule, row.data(), golden::kElements);
    float accumulator = 0;
    std::memcpy(&accumulator, row.data() + 4 * golden::kElements, 4);
    EXPECT_NEAR(accumulator / golden::kRowwiseAdagrad[step][1][0], 1, 1e-6);
    for (int i = 0; i < golden::kElements; ++i) EXPECT_NEAR(found[i], golden::kRowwiseAdagrad[step][0][i], 1e-6);
  }
}

TEST(RowsTest, RowwiseAdagradTakesTheMeanOverLongRows) {
  for (const uint32_t dim : {1u, 5u, 16u, 37u, 4096u}) {
    RuleSpec spec;
    spec.kind = RuleKind::kRowwiseAdagrad;
    const RowRule rule(spec, DType::kF32, dim);
    std::vector<char> row(rule.row_bytes());
    rule.Start(Floats(dim, 0).data(), row.data());
    const Floats gradient = RandomRow(dim, 3);
    ApplyOne(rule, 0.5f, gradient, row.data());
    double squares = 0;
    for (const float g : gradient) squares += static_cast<double>(g) * g;
    const double rate = 0.5 / (std::sqrt(static_cast<double>(0.1f) + squares / dim) + 1e-7);
    const Floats found = Read(rule, row.data(), dim);
    for (uint32_t i = 0; i < dim; ++i) ASSERT_NEAR(found[i], -rate * gradient[i], 1e-6) << dim;
  }
}

TEST(RowsTest, AdamBeyondItsStoredCorrectionsIsThatOfDenseVariables) {
  RuleSpec spec;
  spec.kind = RuleKind::kAdam;
  spec.beta2 = 0.9999999f;  // corrections stay below 1 for longer than any are stored
  const RowRule rule(spec, DType::kF32, 1);
  std::vector<char> row(rule.row_bytes());
  const float start = 1;
  rule.Start(&start, row.data());
  Floats w{1}, m{0}, v{0};
  for (uint64_t step = 1; step <= 70'000; ++step) {
    const Floats gradient{step % 2 == 0 ? 1.0f : -0.5f};
    ApplyOne(rule, 1e-5f, gradient, row.data());
    ApplyArguments arguments{.gradient = gradient, .parameters_in = w, .parameters_out = absl::MakeSpan(w)};
    arguments.slots_in = {m, v};
    arguments.slots_out = {absl::MakeSpan(m), absl::MakeSpan(v)};
    arguments.step = step;
    arguments.learning_rate = 1e-5f;
    Apply(spec, arguments);
  }
  EXPECT_NEAR(Read(rule, row.data(), 1)[0], w[0], 2e-5 * std::abs(w[0] - 1) + 1e-6);
}

TEST(RowsTest, ThePlaceAndTheBatchOfARowDoNotMatterIn16Bits) {
  for (const DType storage : {DType::kF16, DType::kBF16}) {
    RuleSpec spec;
    spec.kind = RuleKind::kAdagrad;
    constexpr uint32_t kDim = 21;
    const RowRule rule(spec, storage, kDim);
    ASSERT_EQ(rule.row_bytes(), 2u * kDim + 4u * kDim + 2);
    std::vector<char> one(rule.row_bytes()), two(2 * rule.row_bytes() + 3);
    const Floats start = RandomRow(kDim, 1);
    rule.Start(start.data(), one.data());
    char* rows[] = {two.data() + 3, two.data() + 3 + rule.row_bytes()};
    for (char* row : rows) rule.Start(start.data(), row);
    for (int step = 0; step < 10; ++step) {
      const Floats gradient = RandomRow(kDim, 50 + step);
      ApplyOne(rule, 0.01f, gradient, one.data(), 9);
      const char* from = reinterpret_cast<const char*>(gradient.data());
      const char* gradients[] = {from, from};
      const uint64_t keys[] = {8, 9};
      rule.Apply(0.01f, 2, rows, gradients, keys);
    }
    EXPECT_EQ(std::memcmp(one.data(), rows[1], rule.row_bytes()), 0);
    EXPECT_NE(std::memcmp(rows[0], rows[1], rule.row_bytes()), 0) << "another key rounds otherwise";
  }
}

TEST(StorageTest, EveryFloat16ReadsBackAndIsRight) {
  for (uint32_t stored = 0; stored < 0x10000; ++stored) {
    if ((stored & 0x7c00) == 0x7c00) continue;  // infinities and NaN
    const int exponent = static_cast<int>(stored >> 10 & 31);
    const double fraction = stored & 1023;
    const double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    const float value = FromF16(static_cast<uint16_t>(stored));
    ASSERT_EQ(value, static_cast<float>(stored & 0x8000 ? -magnitude : magnitude)) << stored;
    for (const uint32_t random : {0u, 0x8000u, 0xffffu}) ASSERT_EQ(ToF16(value, random), stored) << random;
  }
}

TEST(StorageTest, EveryBfloat16ReadsBack) {
  for (uint32_t stored = 0; stored < 0x10000; ++stored) {
    if ((stored & 0x7f80) == 0x7f80) continue;
    const float value = FromBf16(static_cast<uint16_t>(stored));
    ASSERT_EQ(std::bit_cast<uint32_t>(value), stored << 16);
    for (const uint32_t random : {0u, 0x8000u, 0xffffu}) ASSERT_EQ(ToBf16(value, random), stored) << random;
  }
}

TEST(StorageTest, NumbersBetweenRoundUpAsOftenAsTheyAreNearTheUpper) {
  for (const float value : {1.0001f, -0.3333f, 1000.7f, 3.1e-6f, -5.05e-8f}) {
    double f16 = 0, bf16 = 0;
    constexpr uint32_t kDraws = 1 << 16;
    for (uint32_t random = 0; random < kDraws; ++random) {
      f16 += FromF16(ToF16(value, random));
      bf16 += FromBf16(ToBf16(value, random));
    }
    const double f16_distance = std::max(std::abs(value) * 0x1p-10, 0x1p-24);
    EXPECT_NEAR(f16 / kDraws, value, f16_distance * 1e-3) << value;
    EXPECT_NEAR(bf16 / kDraws, value, std::abs(value) * 0x1p-7 * 1e-3) << value;
  }
}

TEST(StorageTest, WhatIsTooLargeBecomesTheLargest) {
  for (const uint32_t random : {0u, 0x8000u, 0xffffu}) {
    EXPECT_EQ(FromF16(ToF16(1e6f, random)), 65504.0f);
    EXPECT_EQ(FromF16(ToF16(-3.4e38f, random)), -65504.0f);
    EXPECT_EQ(FromBf16(ToBf16(3.4028234e38f, random)), std::bit_cast<float>(0x7f7f0000u));
  }
}

TEST(FillRowTest, ARowDependsOnSeedAndKeyAloneAndFollowsItsDistribution) {
  const InitSpec uniform{.kind = InitKind::kUniform, .a = -1, .b = 3, .seed = 4};
  const InitSpec normal{.kind = InitKind::kNormal, .a = 2, .b = 0.5f, .seed = 4};
  constexpr size_t kDim = 33;
  double sum[2] = {}, squares[2] = {};
  constexpr uint64_t kKeys = 5000;
  for (uint64_t key = 0; key < kKeys; ++key) {
    Floats row(kDim), again(kDim);
    FillRow(uniform, key, absl::MakeSpan(row));
    FillRow(uniform, key, absl::MakeSpan(again));
    ASSERT_EQ(row, again);
    for (const float x : row) {
      ASSERT_TRUE(x >= -1 && x <= 3);
      sum[0] += x;
      squares[0] += x * x;
    }
    FillRow(normal, key, absl::MakeSpan(row));
    for (const float x : row) {
      sum[1] += x;
      squares[1] += x * x;
    }
  }
  constexpr double kCount = kKeys * kDim;
  EXPECT_NEAR(sum[0] / kCount, 1, 0.02);
  EXPECT_NEAR(squares[0] / kCount - 1, 16.0 / 12, 0.03);
  EXPECT_NEAR(sum[1] / kCount, 2, 0.01);
  EXPECT_NEAR(squares[1] / kCount - 4, 0.25, 0.03);
  Floats a(kDim), b(kDim);
  FillRow(normal, 1, absl::MakeSpan(a));
  FillRow({.kind = InitKind::kNormal, .a = 2, .b = 0.5f, .seed = 5}, 1, absl::MakeSpan(b));
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace basin
