// What the parameters must be, exactly, after known pushes. Pure.
//
// Every element of every variable has a small whole number as its gradient, a function of the variable and the element,
// the same in each push. So after n pushes, in whatever order and by whomever, SGD with rate 1 has led from 0 to
// -n * gradient, exact below 2^24; and any other rule to what it gives when it is applied n times to one element alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/random.h"
#include "common/rules/rule_spec.h"

namespace basin::bench {

// Gradients are 1 to kGradients.
inline constexpr uint32_t kGradients = 4;
// With whole numbers up to here, float32 adds exactly.
inline constexpr uint64_t kExactBelow = uint64_t{1} << 24;
inline constexpr uint64_t kMostPushes = (kExactBelow - 1) / kGradients;

constexpr float GradientAt(uint32_t variable, uint64_t element) {
  return static_cast<float>(1 + (Mix64((uint64_t{variable} << 40) ^ element) >> 62));
}
void FillGradient(uint32_t variable, absl::Span<float> out);

// The rule for exact sums: SGD has rate 1; the others their usual settings and a rate of 1/1024.
RuleSpec ExactRule(RuleKind kind);

// What an element with gradient g (1 to kGradients) is after `pushes` pushes, for all g: [g - 1].
std::vector<float> ExpectedAfter(const RuleSpec& rule, uint64_t pushes);

// OK, or DATA_LOSS naming variable, element, what was found and what was expected.
absl::Status CheckVariable(const std::string& name, uint32_t variable, const std::vector<float>& expected,
                           absl::Span<const float> found);

// OK, or DATA_LOSS: the servers' count of applied updates is not that of the updates sent.
absl::Status CheckApplied(uint64_t applied, uint64_t sent);

}  // namespace basin::bench
