// Which optimiser rule trains a variable, with its numbers; and what state ("slots") the rule keeps beside it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace basin {

// The numbers are those of RuleKind in common/wire/control.proto.
enum class RuleKind : uint8_t { kSgd = 1, kMomentum = 2, kAdagrad = 3, kAdam = 4 };

// A rule's formula is in rule_math.h. Fields that the kind does not use are ignored by everything but operator==.
struct RuleSpec {
  RuleKind kind = RuleKind::kSgd;
  float learning_rate = 0.01f;       // all; >= 0 (0 freezes the variable)
  float momentum = 0.9f;             // momentum; in [0, 1)
  bool nesterov = false;             // momentum
  float beta1 = 0.9f;                // adam; in [0, 1)
  float beta2 = 0.999f;              // adam; in [0, 1)
  float epsilon = 1e-7f;             // adam: > 0; adagrad: >= 0
  float initial_accumulator = 0.1f;  // adagrad; >= 0, and > 0 where epsilon is 0

  bool operator==(const RuleSpec&) const = default;
};

inline constexpr int kMaxSlots = 2;

// InvalidArgument names the rule, the field, what was found and what was expected.
absl::Status Validate(const RuleSpec& spec);

// How many slots, each as large as the variable, the rule keeps: sgd 0, momentum 1, adagrad 1, adam 2.
// 0 for a number that is no RuleKind.
int SlotCount(RuleKind kind);

// "velocity" (momentum), "accumulator" (adagrad), "m" and "v" (adam). REQUIRES: 0 <= slot < SlotCount(kind).
absl::string_view SlotName(RuleKind kind, int slot);

// What every element of a new slot holds. REQUIRES: 0 <= slot < SlotCount(spec.kind).
float SlotInitialValue(const RuleSpec& spec, int slot);

// "sgd", "momentum", "adagrad", "adam"; "unknown" for a number that is none of them.
absl::string_view Name(RuleKind kind);
// The reverse of Name, exact; nothing for an unknown name.
std::optional<RuleKind> RuleKindFromName(absl::string_view name);

// The rule and the numbers it uses, for messages: "adam(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-07)".
// Each number is the shortest that reads back as the same float.
std::string ToText(const RuleSpec& spec);

}  // namespace basin
