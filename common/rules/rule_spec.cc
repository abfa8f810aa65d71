#include "common/rules/rule_spec.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr RuleKind kKinds[] = {RuleKind::kSgd,  RuleKind::kMomentum, RuleKind::kAdagrad,
                               RuleKind::kAdam, RuleKind::kFtrl,     RuleKind::kRowwiseAdagrad};

std::string Shortest(float value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  return std::string(buffer, end);
}

absl::Status Wrong(const RuleSpec& spec, absl::string_view field, float found, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("rule ", Name(spec.kind), ": ", field, " is ", Shortest(found),
                                                 ", expected ", expected, "; set ", field, " in the rule"));
}

// The comparisons are written so that NaN fails them.
absl::Status AtLeastZero(const RuleSpec& spec, absl::string_view field, float value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return Wrong(spec, field, value, "a finite number of at least 0");
}

absl::Status DecayRate(const RuleSpec& spec, absl::string_view field, float value) {
  if (value >= 0 && value < 1) return absl::OkStatus();
  return Wrong(spec, field, value, "a number in [0, 1)");
}

}  // namespace

absl::Status Validate(const RuleSpec& spec) {
  if (!RuleKindFromName(Name(spec.kind)).has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rule: kind is ", static_cast<int>(spec.kind),
                     ", expected 1 (sgd), 2 (momentum), 3 (adagrad), 4 (adam), 5 (ftrl) or 6 (adagrad_rowwise); "
                     "a newer client may know rules that this build does not"));
  }
  BASIN_RETURN_IF_ERROR(AtLeastZero(spec, "learning_rate", spec.learning_rate));
  switch (spec.kind) {
    case RuleKind::kSgd:
      break;
    case RuleKind::kMomentum:
      return DecayRate(spec, "momentum", spec.momentum);
    case RuleKind::kAdagrad:
    case RuleKind::kRowwiseAdagrad:
      BASIN_RETURN_IF_ERROR(AtLeastZero(spec, "epsilon", spec.epsilon));
      BASIN_RETURN_IF_ERROR(AtLeastZero(spec, "initial_accumulator", spec.initial_accumulator));
      // A gradient of 0 on an accumulator of 0 would divide 0 by 0.
      if (spec.epsilon == 0 && spec.initial_accumulator == 0) {
        return Wrong(spec, "initial_accumulator", 0, "a finite number above 0 where epsilon is 0");
      }
      break;
    case RuleKind::kAdam:
      BASIN_RETURN_IF_ERROR(DecayRate(spec, "beta1", spec.beta1));
      BASIN_RETURN_IF_ERROR(DecayRate(spec, "beta2", spec.beta2));
      // Both moments start at 0: a gradient of 0 would divide 0 by 0.
      if (!(std::isfinite(spec.epsilon) && spec.epsilon > 0)) {
        return Wrong(spec, "epsilon", spec.epsilon, "a finite number above 0");
      }
      break;
    case RuleKind::kFtrl:
      // The formula divides by it.
      if (!(spec.learning_rate > 0)) {
        return Wrong(spec, "learning_rate", spec.learning_rate, "a finite number above 0");
      }
      BASIN_RETURN_IF_ERROR(AtLeastZero(spec, "l1", spec.l1));
      BASIN_RETURN_IF_ERROR(AtLeastZero(spec, "l2", spec.l2));
      BASIN_RETURN_IF_ERROR(AtLeastZero(spec, "beta", spec.beta));
      BASIN_RETURN_IF_ERROR(AtLeastZero(spec, "initial_accumulator", spec.initial_accumulator));
      // A gradient of 0 on an accumulator of 0 would divide 0 by 0.
      if (spec.beta == 0 && spec.initial_accumulator == 0) {
        return Wrong(spec, "initial_accumulator", 0, "a finite number above 0 where beta is 0");
      }
      break;
  }
  return absl::OkStatus();
}

int SlotCount(RuleKind kind) {
  switch (kind) {
    case RuleKind::kSgd:
      return 0;
    case RuleKind::kMomentum:
      return 1;
    case RuleKind::kAdagrad:
    case RuleKind::kRowwiseAdagrad:
      return 1;
    case RuleKind::kAdam:
    case RuleKind::kFtrl:
      return 2;
  }
  return 0;
}

bool IsForTablesOnly(RuleKind kind) { return kind == RuleKind::kRowwiseAdagrad; }

absl::string_view SlotName(RuleKind kind, int slot) {
  BASIN_CHECK(slot >= 0 && slot < SlotCount(kind));
  switch (kind) {
    case RuleKind::kMomentum:
      return "velocity";
    case RuleKind::kAdagrad:
    case RuleKind::kRowwiseAdagrad:
      return "accumulator";
    case RuleKind::kFtrl:
      return slot == 0 ? "accumulator" : "linear";
    default:
      return slot == 0 ? "m" : "v";
  }
}

float SlotInitialValue(const RuleSpec& spec, int slot) {
  BASIN_CHECK(slot >= 0 && slot < SlotCount(spec.kind));
  return SlotName(spec.kind, slot) == "accumulator" ? spec.initial_accumulator : 0;
}

absl::string_view Name(RuleKind kind) {
  switch (kind) {
    case RuleKind::kSgd:
      return "sgd";
    case RuleKind::kMomentum:
      return "momentum";
    case RuleKind::kAdagrad:
      return "adagrad";
    case RuleKind::kAdam:
      return "adam";
    case RuleKind::kFtrl:
      return "ftrl";
    case RuleKind::kRowwiseAdagrad:
      return "adagrad_rowwise";
  }
  return "unknown";
}

std::optional<RuleKind> RuleKindFromName(absl::string_view name) {
  for (const RuleKind kind : kKinds) {
    if (Name(kind) == name) return kind;
  }
  return std::nullopt;
}

std::string ToText(const RuleSpec& spec) {
  std::string text = absl::StrCat(Name(spec.kind), "(learning_rate=", Shortest(spec.learning_rate));
  const auto add = [&text](absl::string_view field, absl::string_view value) {
    absl::StrAppend(&text, ", ", field, "=", value);
  };
  switch (spec.kind) {
    case RuleKind::kSgd:
      break;
    case RuleKind::kMomentum:
      add("momentum", Shortest(spec.momentum));
      add("nesterov", spec.nesterov ? "true" : "false");
      break;
    case RuleKind::kAdagrad:
    case RuleKind::kRowwiseAdagrad:
      add("epsilon", Shortest(spec.epsilon));
      add("initial_accumulator", Shortest(spec.initial_accumulator));
      break;
    case RuleKind::kAdam:
      add("beta1", Shortest(spec.beta1));
      add("beta2", Shortest(spec.beta2));
      add("epsilon", Shortest(spec.epsilon));
      break;
    case RuleKind::kFtrl:
      add("l1", Shortest(spec.l1));
      add("l2", Shortest(spec.l2));
      add("beta", Shortest(spec.beta));
      add("initial_accumulator", Shortest(spec.initial_accumulator));
      break;
  }
  text += ')';
  return text;
}

}  // namespace basin
