#include "bench/harness/exact_sums.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "common/rules/apply.h"

namespace basin::bench {

static_assert((UINT64_MAX >> 62) + 1 == kGradients);

void FillGradient(uint32_t variable, absl::Span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = GradientAt(variable, i);
}

RuleSpec ExactRule(RuleKind kind) {
  RuleSpec rule;
  rule.kind = kind;
  rule.learning_rate = kind == RuleKind::kSgd ? 1.0f : 1.0f / 1024;
  return rule;
}

std::vector<float> ExpectedAfter(const RuleSpec& rule, uint64_t pushes) {
  std::array<float, kGradients> gradient, parameter = {};
  for (uint32_t g = 0; g < kGradients; ++g) gradient[g] = static_cast<float>(g + 1);
  std::array<std::array<float, kGradients>, kMaxSlots> slots;
  if (rule.kind == RuleKind::kSgd && rule.learning_rate == 1.0f && pushes <= kMostPushes) {
    for (uint32_t g = 0; g < kGradients; ++g) parameter[g] = -static_cast<float>(pushes) * gradient[g];
    return {parameter.begin(), parameter.end()};
  }
  ApplyArguments arguments;
  arguments.gradient = gradient;
  arguments.parameters_in = parameter;
  arguments.parameters_out = absl::MakeSpan(parameter);
  for (int slot = 0; slot < SlotCount(rule.kind); ++slot) {
    auto& values = slots[static_cast<size_t>(slot)];
    values.fill(SlotInitialValue(rule, slot));
    arguments.slots_in[static_cast<size_t>(slot)] = values;
    arguments.slots_out[static_cast<size_t>(slot)] = absl::MakeSpan(values);
  }
  arguments.learning_rate = rule.learning_rate;
  for (arguments.step = 1; arguments.step <= pushes; ++arguments.step) Apply(rule, arguments);
  return {parameter.begin(), parameter.end()};
}

absl::Status CheckVariable(const std::string& name, uint32_t variable, const std::vector<float>& expected,
                           absl::Span<const float> found) {
  for (size_t i = 0; i < found.size(); ++i) {
    const float wanted = expected[static_cast<size_t>(GradientAt(variable, i)) - 1];
    if (found[i] == wanted) continue;
    return absl::DataLossError(absl::StrCat("variable ", name, " has ", found[i], " at element ", i, " of ",
                                            found.size(), "; the pushes that were sent make exactly ", wanted));
  }
  return absl::OkStatus();
}

absl::Status CheckApplied(uint64_t applied, uint64_t sent) {
  if (applied == sent) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("the parameter servers counted ", applied, " applied updates of shards, and ", sent, " were sent"));
}

}  // namespace basin::bench
