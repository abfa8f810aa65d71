// The rules against golden_values.h, which make_golden.py wrote from the papers; and what Apply promises beside them.
#include "common/rules/apply.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "common/base/random.h"
#include "tests/rules/golden_values.h"

namespace basin {
namespace {

using Floats = std::vector<float>;

struct State {
  Floats parameters;
  std::array<Floats, kMaxSlots> slots;

  bool SameBits(const State& other) const {
    const auto same = [](const Floats& a, const Floats& b) {
      return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    };
    return same(parameters, other.parameters) && same(slots[0], other.slots[0]) && same(slots[1], other.slots[1]);
  }
};

State InitialState(const RuleSpec& spec, Floats parameters) {
  State state;
  for (int slot = 0; slot < SlotCount(spec.kind); ++slot) {
    state.slots[slot].assign(parameters.size(), SlotInitialValue(spec, slot));
  }
  state.parameters = std::move(parameters);
  return state;
}

void ApplyTo(const RuleSpec& spec, const Floats& gradient, uint64_t step, const State& in, State& out) {
  ApplyArguments arguments;
  arguments.gradient = gradient;
  arguments.parameters_in = in.parameters;
  arguments.parameters_out = absl::MakeSpan(out.parameters);
  for (int slot = 0; slot < kMaxSlots; ++slot) {
    arguments.slots_in[slot] = in.slots[slot];
    arguments.slots_out[slot] = absl::MakeSpan(out.slots[slot]);
  }
  arguments.step = step;
  arguments.learning_rate = spec.learning_rate;
  Apply(spec, arguments);
}

RuleSpec Rule(RuleKind kind, float learning_rate, bool nesterov = false) {
  RuleSpec spec;
  spec.kind = kind;
  spec.learning_rate = learning_rate;
  spec.nesterov = nesterov;
  return spec;
}

RuleSpec Ftrl() {
  RuleSpec spec = Rule(RuleKind::kFtrl, 0.05f);
  spec.l1 = 0.25f;
  spec.l2 = 0.01f;
  spec.beta = 0.5f;
  return spec;
}

std::vector<RuleSpec> AllRules() {
  return {Rule(RuleKind::kSgd, 0.01f),     Rule(RuleKind::kMomentum, 0.01f), Rule(RuleKind::kMomentum, 0.01f, true),
          Rule(RuleKind::kAdagrad, 0.05f), Rule(RuleKind::kAdam, 0.001f),    Ftrl()};
}

Floats RandomFloats(size_t n, uint64_t seed) {
  Floats values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(UnitAt(seed, i) * 2 - 1);
  return values;
}

// Rounding is relative to the largest value that took part in an element's sums, hence `floor`: values smaller than it
// are compared with that absolute precision. The vector is long enough for all loops' vector bodies and their
// remainders.
template <size_t kParts>
void ExpectGolden(const RuleSpec& spec, const double (&golden)[golden::kSteps][kParts][golden::kElements],
                  double tolerance, double floor) {
  ASSERT_EQ(kParts, 1u + SlotCount(spec.kind));
  constexpr size_t kLength = 16 * golden::kElements + 3;
  Floats start(kLength);
  for (size_t i = 0; i < kLength; ++i) start[i] = static_cast<float>(golden::kStart[i % golden::kElements]);
  State state = InitialState(spec, start);
  for (int step = 0; step < golden::kSteps; ++step) {
    Floats gradient(kLength);
    for (size_t i = 0; i < kLength; ++i)
      gradient[i] = static_cast<float>(golden::kGradients[step][i % golden::kElements]);
    ApplyTo(spec, gradient, step + 1, state, state);
    for (size_t part = 0; part < kParts; ++part) {
      const Floats& found = part == 0 ? state.parameters : state.slots[part - 1];
      for (size_t i = 0; i < kLength; ++i) {
        const double expected = golden[step][part][i % golden::kElements];
        ASSERT_NEAR(found[i], expected, tolerance * std::max(std::abs(expected), floor))
            << ToText(spec) << ", step " << step + 1 << ", part " << part << ", element " << i;
      }
    }
  }
}

// Tolerances: a float's unit roundoff is 6e-8. sgd rounds twice a step; momentum and nesterov up to five times; adagrad
// and adam add a root and a quotient. Six steps add up.
TEST(ApplyTest, SgdGivesTheStoredValues) { ExpectGolden(AllRules()[0], golden::kSgd, 4e-7, 1e-2); }
TEST(ApplyTest, MomentumGivesTheStoredValues) { ExpectGolden(AllRules()[1], golden::kMomentum, 8e-7, 1e-2); }
TEST(ApplyTest, NesterovGivesTheStoredValues) { ExpectGolden(AllRules()[2], golden::kNesterov, 8e-7, 1e-2); }
TEST(ApplyTest, AdagradGivesTheStoredValues) { ExpectGolden(AllRules()[3], golden::kAdagrad, 8e-7, 1e-2); }
// The second moment of small gradients is small itself: the floor is 0, so each moment is right relative to itself.
TEST(ApplyTest, AdamGivesTheStoredValues) { ExpectGolden(AllRules()[4], golden::kAdam, 2e-6, 0); }

// z is a difference of numbers near 10 in this test, and w follows it.
TEST(ApplyTest, FtrlGivesTheStoredValues) { ExpectGolden(AllRules()[5], golden::kFtrl, 2e-6, 1); }

TEST(ApplyTest, FtrlWithALearningRateOfZeroChangesNothing) {
  RuleSpec spec = Ftrl();
  spec.learning_rate = 0;  // of the call: a schedule's end
  State state = InitialState(spec, {1, 2});
  State other = InitialState(spec, {0, 0});
  const State before = state;
  ApplyTo(spec, {5, 6}, 1, state, state);
  ApplyTo(spec, {5, 6}, 1, state, other);
  EXPECT_TRUE(state.SameBits(before));
  EXPECT_TRUE(other.SameBits(before));
}

TEST(ApplyTest, InPlaceAndTwoBlocksGiveTheSameBits) {
  for (const RuleSpec& spec : AllRules()) {
    for (const size_t length : {0, 1, 3, 7, 15, 16, 17, 64, 1000, 1025}) {
      State in_place = InitialState(spec, RandomFloats(length, 1));
      State current = in_place;
      State next = in_place;
      for (uint64_t step = 1; step <= 4; ++step) {
        const Floats gradient = RandomFloats(length, 100 + step);
        const State before = current;
        ApplyTo(spec, gradient, step, in_place, in_place);
        ApplyTo(spec, gradient, step, current, next);
        ASSERT_TRUE(current.SameBits(before)) << ToText(spec) << ": the block that others read was written";
        ASSERT_TRUE(in_place.SameBits(next)) << ToText(spec) << ", length " << length << ", step " << step;
        std::swap(current, next);
      }
    }
  }
}

TEST(ApplyTest, AnElementsResultDoesNotDependOnItsPlace) {
  constexpr size_t kLength = 1000;
  for (const RuleSpec& spec : AllRules()) {
    const Floats gradient = RandomFloats(kLength, 2);
    State whole = InitialState(spec, RandomFloats(kLength, 1));
    const State start = whole;
    ApplyTo(spec, gradient, 3, whole, whole);
    for (size_t i = 0; i < kLength; i += 13) {
      State one = InitialState(spec, {start.parameters[i]});
      ApplyTo(spec, {gradient[i]}, 3, one, one);
      ASSERT_EQ(one.parameters[0], whole.parameters[i]) << ToText(spec) << ", element " << i;
    }
  }
}

TEST(ApplyTest, TheLearningRateOfTheCallCounts) {
  RuleSpec spec = Rule(RuleKind::kSgd, 100);
  State state = InitialState(spec, {1});
  ApplyArguments arguments;
  const Floats gradient = {2};
  arguments.gradient = gradient;
  arguments.parameters_in = state.parameters;
  arguments.parameters_out = absl::MakeSpan(state.parameters);
  arguments.learning_rate = 0.25f;
  Apply(spec, arguments);
  EXPECT_EQ(state.parameters[0], 0.5f);
}

TEST(ApplyTest, AdamStaysFiniteAtZeroGradientsAndHugeSteps) {
  const RuleSpec spec = Rule(RuleKind::kAdam, 0.001f);
  State state = InitialState(spec, {1, -1});
  for (const uint64_t step : {uint64_t{1}, uint64_t{1} << 40, std::numeric_limits<uint64_t>::max()}) {
    ApplyTo(spec, {0, 0}, step, state, state);
    EXPECT_EQ(state.parameters, (Floats{1, -1}));
  }
}

TEST(AllFiniteTest, FindsEachBadValueAtEveryPosition) {
  const float bad[] = {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                       std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::signaling_NaN()};
  Floats values = RandomFloats(133, 5);
  for (size_t i = 0; i < values.size(); ++i) {
    const float kept = values[i];
    for (const float value : bad) {
      values[i] = value;
      EXPECT_FALSE(AllFinite(values)) << value << " at " << i;
    }
    values[i] = kept;
    EXPECT_TRUE(AllFinite(values));
  }
}

TEST(AllFiniteTest, FindsABadValueInEveryPieceOfALongVector) {
  Floats values = RandomFloats(3 * 4096 + 1, 6);
  EXPECT_TRUE(AllFinite(values));
  for (const size_t i : {0, 4095, 4096, 8191, 8192, 12287, 12288}) {
    Floats spoiled = values;
    spoiled[i] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_FALSE(AllFinite(spoiled)) << i;
  }
}

TEST(AllFiniteTest, ExtremesAreFinite) {
  using Limits = std::numeric_limits<float>;
  EXPECT_TRUE(AllFinite(Floats{0.0f, -0.0f, Limits::max(), Limits::lowest(), Limits::min(), Limits::denorm_min()}));
  EXPECT_TRUE(AllFinite({}));
}

TEST(StatisticTest, MeanIsTheMeanOfAllPushesWithoutTheInitialValue) {
  Floats mean = {1000, std::numeric_limits<float>::quiet_NaN()};
  for (int count = 1; count <= 100; ++count) {
    const Floats update = {static_cast<float>(count), 0.1f};
    ApplyStatistic(StatisticKind::kMean, count, update, mean, absl::MakeSpan(mean));
  }
  EXPECT_NEAR(mean[0], 50.5, 1e-4);
  EXPECT_EQ(mean[1], 0.1f);
}

TEST(StatisticTest, SumAddsToTheInitialValueAndLastReplaces) {
  const Floats before = {1, 2, 3};
  const Floats update = {10, -2, 0.5f};
  Floats after(3);
  ApplyStatistic(StatisticKind::kSum, 7, update, before, absl::MakeSpan(after));
  EXPECT_EQ(after, (Floats{11, 0, 3.5f}));
  ApplyStatistic(StatisticKind::kLast, 7, update, before, absl::MakeSpan(after));
  EXPECT_EQ(after, update);
  EXPECT_EQ(before, (Floats{1, 2, 3}));
}

TEST(StatisticTest, InPlaceAndTwoBlocksGiveTheSameBits) {
  for (const StatisticKind statistic : {StatisticKind::kMean, StatisticKind::kSum, StatisticKind::kLast}) {
    for (const uint64_t count : {1, 2, 7}) {
      const Floats before = RandomFloats(101, 8);
      const Floats update = RandomFloats(101, 9);
      Floats in_place = before;
      Floats other(101);
      ApplyStatistic(statistic, count, update, in_place, absl::MakeSpan(in_place));
      ApplyStatistic(statistic, count, update, before, absl::MakeSpan(other));
      EXPECT_EQ(in_place, other) << static_cast<int>(statistic) << ", count " << count;
    }
  }
}

}  // namespace
}  // namespace basin
