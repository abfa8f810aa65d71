#include "bench/harness/exact_sums.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>

#include "common/rules/apply.h"

namespace basin::bench {
namespace {

TEST(ExactSumsTest, GradientsAreSmallWholeNumbersThatDifferFromPlaceToPlace) {
  std::set<float> seen;
  std::vector<float> first(1000), second(1000);
  FillGradient(0, absl::MakeSpan(first));
  FillGradient(1, absl::MakeSpan(second));
  seen.insert(first.begin(), first.end());
  EXPECT_EQ(seen, (std::set<float>{1, 2, 3, 4}));
  EXPECT_NE(first, second);
  EXPECT_NE(std::vector<float>(first.begin(), first.begin() + 500),
            std::vector<float>(first.begin() + 500, first.end()));
}

TEST(ExactSumsTest, SgdIsExactUpToTheBound) {
  const RuleSpec sgd = ExactRule(RuleKind::kSgd);
  EXPECT_EQ(ExpectedAfter(sgd, 0), (std::vector<float>{0, 0, 0, 0}));
  EXPECT_EQ(ExpectedAfter(sgd, 3), (std::vector<float>{-3, -6, -9, -12}));
  EXPECT_EQ(ExpectedAfter(sgd, kMostPushes)[3], -4.0f * kMostPushes);
  EXPECT_LT(4 * kMostPushes, kExactBelow);
}

// The rule applied to a block, as a server does it, is what the one element predicts, bit by bit.
TEST(ExactSumsTest, EveryRulePredictsWhatABlockBecomes) {
  for (const RuleKind kind : {RuleKind::kSgd, RuleKind::kMomentum, RuleKind::kAdagrad, RuleKind::kAdam}) {
    const RuleSpec rule = ExactRule(kind);
    std::vector<float> gradient(1000), parameters(1000, 0.0f);
    FillGradient(5, absl::MakeSpan(gradient));
    std::array<std::vector<float>, kMaxSlots> slots;
    ApplyArguments arguments;
    arguments.gradient = gradient;
    arguments.parameters_in = parameters;
    arguments.parameters_out = absl::MakeSpan(parameters);
    for (int slot = 0; slot < SlotCount(kind); ++slot) {
      slots[slot].assign(1000, SlotInitialValue(rule, slot));
      arguments.slots_in[slot] = slots[slot];
      arguments.slots_out[slot] = absl::MakeSpan(slots[slot]);
    }
    arguments.learning_rate = rule.learning_rate;
    for (arguments.step = 1; arguments.step <= 37; ++arguments.step) Apply(rule, arguments);
    EXPECT_TRUE(CheckVariable("v", 5, ExpectedAfter(rule, 37), parameters).ok()) << Name(kind);
    EXPECT_FALSE(CheckVariable("v", 5, ExpectedAfter(rule, 36), parameters).ok()) << Name(kind);
  }
}

TEST(ExactSumsTest, OneWrongElementIsNamed) {
  std::vector<float> values(100);
  FillGradient(2, absl::MakeSpan(values));
  for (float& value : values) value *= -7;
  const std::vector<float> expected = ExpectedAfter(ExactRule(RuleKind::kSgd), 7);
  EXPECT_TRUE(CheckVariable("w", 2, expected, values).ok());
  values[63] -= 1;
  const absl::Status status = CheckVariable("w", 2, expected, values);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("variable w"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("element 63"), absl::string_view::npos) << status;
}

TEST(ExactSumsTest, WhatWasNeverFilledIsWrong) {
  const std::vector<float> unfilled(10, NAN);
  EXPECT_FALSE(CheckVariable("w", 0, ExpectedAfter(ExactRule(RuleKind::kSgd), 1), unfilled).ok());
}

TEST(ExactSumsTest, CountsMustBeEqual) {
  EXPECT_TRUE(CheckApplied(10, 10).ok());
  EXPECT_EQ(CheckApplied(9, 10).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CheckApplied(11, 10).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace basin::bench
