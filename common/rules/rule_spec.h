// Which optimiser rule trains a variable, with its numbers; and what state ("slots") the rule keeps beside it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace basin {

// The numbers are those of RuleKind in common/wire/control.proto.
enum class RuleKind : uint8_t {
  kSgd = 1,
  kMomentum = 2,
  kAdagrad = 3,
  kAdam = 4,
  kFtrl = 5,
  kRowwiseAdagrad = 6,  // one accumulator a row: tables only
};

// A rule's formula is in rule_math.h. Fields that the kind does not use are ignored by everything but operator==.
struct RuleSpec {
  RuleKind kind = RuleKind::kSgd;
  float learning_rate = 0.01f;       // all; >= 0 (0 freezes the variable; ftrl: > 0)
  float momentum = 0.9f;             // momentum; in [0, 1)
  bool nesterov = false;             // momentum
  float beta1 = 0.9f;                // adam; in [0, 1)
  float beta2 = 0.999f;              // adam; in [0, 1)
  float epsilon = 1e-7f;             // adam: > 0; adagrad (both): >= 0
  float initial_accumulator = 0.1f;  // adagrad (both); >= 0, and > 0 where epsilon is 0. ftrl: > 0 where beta is 0
  float l1 = 0;                      // ftrl; >= 0
  float l2 = 0;                      // ftrl; >= 0
  float beta = 0;                    // ftrl; >= 0

  bool operator==(const RuleSpec&) const = default;
};

inline constexpr int kMaxSlots = 2;

// InvalidArgument names the rule, the field, what was found and what was expected.
absl::Status Validate(const RuleSpec& spec);

// Whether the rule works on rows of tables alone, and not on dense variables.
bool IsForTablesOnly(RuleKind kind);

// How many slots the rule keeps: sgd 0, momentum 1, adagrad (both) 1, adam 2, ftrl 2; 0 for a number that is no
// RuleKind. A slot is as large as the variable; that of row-wise Adagrad has one number a row.
int SlotCount(RuleKind kind);

// "velocity" (momentum), "accumulator" (adagrad, both), "m" and "v" (adam), "accumulator" and "linear" (ftrl).
// REQUIRES: 0 <= slot < SlotCount(kind).
absl::string_view SlotName(RuleKind kind, int slot);

// What every element of a new slot holds. REQUIRES: 0 <= slot < SlotCount(spec.kind).
float SlotInitialValue(const RuleSpec& spec, int slot);

// "sgd", "momentum", "adagrad", "adam", "ftrl", "adagrad_rowwise"; "unknown" for a number that is none of them.
absl::string_view Name(RuleKind kind);
// The reverse of Name, exact; nothing for an unknown name.
std::optional<RuleKind> RuleKindFromName(absl::string_view name);

// The rule and the numbers it uses, for messages: "adam(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-07)".
// Each number is the shortest that reads back as the same float.
std::string ToText(const RuleSpec& spec);

}  // namespace basin
