#include "common/rules/rule_spec.h"

#include <gtest/gtest.h>

#include <limits>

namespace basin {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr RuleKind kKinds[] = {RuleKind::kSgd,  RuleKind::kMomentum, RuleKind::kAdagrad,
                               RuleKind::kAdam, RuleKind::kFtrl,     RuleKind::kRowwiseAdagrad};

RuleSpec Of(RuleKind kind) {
  RuleSpec spec;
  spec.kind = kind;
  return spec;
}

TEST(RuleSpecTest, DefaultsOfEveryKindAreValid) {
  for (const RuleKind kind : kKinds) EXPECT_TRUE(Validate(Of(kind)).ok()) << Name(kind);
}

TEST(RuleSpecTest, NamesReadBack) {
  for (const RuleKind kind : kKinds) EXPECT_EQ(RuleKindFromName(Name(kind)), kind);
  EXPECT_FALSE(RuleKindFromName("Adam").has_value());
  EXPECT_FALSE(RuleKindFromName("").has_value());
  EXPECT_FALSE(RuleKindFromName("unknown").has_value());
  EXPECT_EQ(Name(static_cast<RuleKind>(9)), "unknown");
}

TEST(RuleSpecTest, SlotsHaveNamesAndInitialValues) {
  EXPECT_EQ(SlotCount(RuleKind::kSgd), 0);
  EXPECT_EQ(SlotCount(RuleKind::kMomentum), 1);
  EXPECT_EQ(SlotCount(RuleKind::kAdagrad), 1);
  EXPECT_EQ(SlotCount(RuleKind::kAdam), 2);
  EXPECT_EQ(SlotCount(static_cast<RuleKind>(0)), 0);
  EXPECT_EQ(SlotName(RuleKind::kMomentum, 0), "velocity");
  EXPECT_EQ(SlotName(RuleKind::kAdagrad, 0), "accumulator");
  EXPECT_EQ(SlotName(RuleKind::kAdam, 0), "m");
  EXPECT_EQ(SlotName(RuleKind::kAdam, 1), "v");
  EXPECT_EQ(SlotCount(RuleKind::kFtrl), 2);
  EXPECT_EQ(SlotName(RuleKind::kFtrl, 0), "accumulator");
  EXPECT_EQ(SlotName(RuleKind::kFtrl, 1), "linear");
  EXPECT_EQ(SlotInitialValue(Of(RuleKind::kFtrl), 0), 0.1f);
  EXPECT_EQ(SlotInitialValue(Of(RuleKind::kFtrl), 1), 0.0f);
  EXPECT_EQ(SlotName(RuleKind::kRowwiseAdagrad, 0), "accumulator");
  EXPECT_EQ(SlotInitialValue(Of(RuleKind::kRowwiseAdagrad), 0), 0.1f);
  RuleSpec adagrad = Of(RuleKind::kAdagrad);
  adagrad.initial_accumulator = 0.25f;
  EXPECT_EQ(SlotInitialValue(adagrad, 0), 0.25f);
  EXPECT_EQ(SlotInitialValue(Of(RuleKind::kAdam), 1), 0.0f);
  EXPECT_EQ(SlotInitialValue(Of(RuleKind::kMomentum), 0), 0.0f);
}

TEST(RuleSpecTest, TextShowsTheNumbersThatTheRuleUses) {
  RuleSpec spec = Of(RuleKind::kAdam);
  spec.learning_rate = 0.001f;
  EXPECT_EQ(ToText(spec), "adam(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-07)");
  EXPECT_EQ(ToText(Of(RuleKind::kSgd)), "sgd(learning_rate=0.01)");
  EXPECT_EQ(ToText(Of(RuleKind::kMomentum)), "momentum(learning_rate=0.01, momentum=0.9, nesterov=false)");
  EXPECT_EQ(ToText(Of(RuleKind::kFtrl)), "ftrl(learning_rate=0.01, l1=0, l2=0, beta=0, initial_accumulator=0.1)");
  EXPECT_EQ(ToText(Of(RuleKind::kRowwiseAdagrad)),
            "adagrad_rowwise(learning_rate=0.01, epsilon=1e-07, initial_accumulator=0.1)");
  EXPECT_EQ(ToText(Of(RuleKind::kAdagrad)), "adagrad(learning_rate=0.01, epsilon=1e-07, initial_accumulator=0.1)");
}

TEST(RuleSpecTest, ValidateNamesTheFieldWhatWasFoundAndWhatWasExpected) {
  RuleSpec spec = Of(RuleKind::kAdam);
  spec.beta2 = 1.5f;
  EXPECT_EQ(Validate(spec).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Validate(spec).message(), "rule adam: beta2 is 1.5, expected a number in [0, 1); set beta2 in the rule");
  spec.kind = static_cast<RuleKind>(9);
  EXPECT_EQ(Validate(spec).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Validate(spec).message().find("kind is 9, expected 1 (sgd)"), absl::string_view::npos);
}

TEST(RuleSpecTest, NumbersOutOfRangeAreRefused) {
  struct Case {
    RuleKind kind;
    float RuleSpec::*field;
    float value;
  };
  const Case cases[] = {
      {RuleKind::kSgd, &RuleSpec::learning_rate, -0.1f},
      {RuleKind::kSgd, &RuleSpec::learning_rate, kNan},
      {RuleKind::kAdam, &RuleSpec::learning_rate, kInfinity},
      {RuleKind::kMomentum, &RuleSpec::momentum, 1.0f},
      {RuleKind::kMomentum, &RuleSpec::momentum, -0.5f},
      {RuleKind::kMomentum, &RuleSpec::momentum, kNan},
      {RuleKind::kAdagrad, &RuleSpec::epsilon, -1e-7f},
      {RuleKind::kAdagrad, &RuleSpec::initial_accumulator, -1.0f},
      {RuleKind::kAdam, &RuleSpec::beta1, 1.0f},
      {RuleKind::kAdam, &RuleSpec::beta2, kNan},
      {RuleKind::kAdam, &RuleSpec::epsilon, 0.0f},
      {RuleKind::kAdam, &RuleSpec::epsilon, kInfinity},
      {RuleKind::kFtrl, &RuleSpec::learning_rate, 0.0f},
      {RuleKind::kFtrl, &RuleSpec::l1, -1.0f},
      {RuleKind::kFtrl, &RuleSpec::l2, kNan},
      {RuleKind::kFtrl, &RuleSpec::beta, kInfinity},
      {RuleKind::kFtrl, &RuleSpec::initial_accumulator, 0.0f},
      {RuleKind::kRowwiseAdagrad, &RuleSpec::epsilon, -1.0f},
  };
  for (const Case& wrong : cases) {
    RuleSpec spec = Of(wrong.kind);
    spec.*wrong.field = wrong.value;
    EXPECT_EQ(Validate(spec).code(), absl::StatusCode::kInvalidArgument) << ToText(spec);
  }
}

TEST(RuleSpecTest, AdagradNeedsAnEpsilonOrAnAccumulator) {
  RuleSpec spec = Of(RuleKind::kAdagrad);
  spec.epsilon = 0;
  EXPECT_TRUE(Validate(spec).ok());
  spec.initial_accumulator = 0;
  EXPECT_FALSE(Validate(spec).ok());
  spec.epsilon = 1e-7f;
  EXPECT_TRUE(Validate(spec).ok());
}

TEST(RuleSpecTest, RowwiseAdagradAloneIsForTablesOnly) {
  for (const RuleKind kind : kKinds) EXPECT_EQ(IsForTablesOnly(kind), kind == RuleKind::kRowwiseAdagrad) << Name(kind);
}

TEST(RuleSpecTest, UnusedNumbersAreIgnored) {
  RuleSpec spec = Of(RuleKind::kSgd);
  spec.momentum = 7;
  spec.beta1 = kNan;
  spec.epsilon = -1;
  EXPECT_TRUE(Validate(spec).ok());
}

}  // namespace
}  // namespace basin
