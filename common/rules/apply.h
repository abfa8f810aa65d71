// Applies one push to one block of float parameters on the host. No allocation, no locks: whoever owns the memory
// calls.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "common/rules/rule_spec.h"

namespace basin {

// All spans that the rule uses have the gradient's length; slots beyond SlotCount are ignored. An input and its output
// are either the same memory (in place) or do not overlap (a new block, while someone still reads the old one); this
// may differ from one pair to the next. Outputs overlap nothing else.
struct ApplyArguments {
  absl::Span<const float> gradient;
  absl::Span<const float> parameters_in;
  absl::Span<float> parameters_out;
  std::array<absl::Span<const float>, kMaxSlots> slots_in;
  std::array<absl::Span<float>, kMaxSlots> slots_out;
  uint64_t step = 1;           // applications on this shard, this one included
  float learning_rate = 0.0f;  // instead of the spec's, for schedules
};

// REQUIRES: Validate(spec) is OK and the rule is not for tables only; lengths as above; step >= 1. Both variants, and
// all machines, give the same bits.
void Apply(const RuleSpec& spec, const ApplyArguments& arguments);

// False if any element is NaN or infinite.
bool AllFinite(absl::Span<const float> values);
// The same of n floats at any address.
bool AllFinite(const char* floats, size_t n);

// What a push does to a variable that the rule does not train. The numbers are those of control.proto.
enum class StatisticKind : uint8_t {
  kMean = 1,  // running mean over all pushes; the initial value does not count
  kSum = 2,   // the initial value plus all pushes
  kLast = 3,  // the last push
};

// `count` is the number of pushes, this one included. in and out are the same memory or do not overlap.
// REQUIRES: equal lengths, count >= 1.
void ApplyStatistic(StatisticKind statistic, uint64_t count, absl::Span<const float> update, absl::Span<const float> in,
                    absl::Span<float> out);

}  // namespace basin
