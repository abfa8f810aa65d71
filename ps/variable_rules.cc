#include "ps/variable_rules.h"

#include "absl/strings/str_cat.h"

namespace basin {
namespace {

static_assert(static_cast<int>(RuleKind::kSgd) == wire::v1::RULE_KIND_SGD &&
              static_cast<int>(RuleKind::kAdam) == wire::v1::RULE_KIND_ADAM &&
              static_cast<int>(RuleKind::kFtrl) == wire::v1::RULE_KIND_FTRL &&
              static_cast<int>(RuleKind::kRowwiseAdagrad) == wire::v1::RULE_KIND_ROWWISE_ADAGRAD);
static_assert(static_cast<int>(InitKind::kZeros) == wire::v1::INIT_KIND_ZEROS &&
              static_cast<int>(InitKind::kAssigned) == wire::v1::INIT_KIND_ASSIGNED);

}  // namespace

RuleSpec RuleOf(const wire::v1::Rule& rule) {
  return {.kind = static_cast<RuleKind>(rule.kind()),
          .learning_rate = rule.learning_rate(),
          .momentum = rule.momentum(),
          .nesterov = rule.nesterov(),
          .beta1 = rule.beta1(),
          .beta2 = rule.beta2(),
          .epsilon = rule.epsilon(),
          .initial_accumulator = rule.initial_accumulator(),
          .l1 = rule.l1(),
          .l2 = rule.l2(),
          .beta = rule.beta()};
}

InitSpec InitOf(const wire::v1::Initializer& initializer) {
  return {.kind = static_cast<InitKind>(initializer.kind()),
          .a = initializer.a(),
          .b = initializer.b(),
          .seed = initializer.seed()};
}

absl::Status CheckRule(const wire::v1::Rule& rule) {
  if (rule.kind() == wire::v1::RULE_KIND_UNSPECIFIED) {
    return absl::InvalidArgumentError("no rule trains it; give the model or the variable one");
  }
  if (rule.kind() < wire::v1::RULE_KIND_SGD || rule.kind() > wire::v1::RULE_KIND_ROWWISE_ADAGRAD) {
    return absl::UnimplementedError(absl::StrCat("rule ", static_cast<int>(rule.kind()), " is not in this version"));
  }
  return Validate(RuleOf(rule));
}

absl::Status CheckInitializer(const wire::v1::Initializer& initializer) {
  if (initializer.kind() == wire::v1::INIT_KIND_UNSPECIFIED)
    return absl::InvalidArgumentError("it has no initializer; choose one");
  if (initializer.kind() < wire::v1::INIT_KIND_ZEROS || initializer.kind() > wire::v1::INIT_KIND_ASSIGNED) {
    return absl::UnimplementedError(
        absl::StrCat("initializer ", static_cast<int>(initializer.kind()), " is not in this version"));
  }
  return Validate(InitOf(initializer));
}

std::string RuleText(const wire::v1::Rule& rule) {
  return rule.kind() == wire::v1::RULE_KIND_UNSPECIFIED ? "none" : ToText(RuleOf(rule));
}

std::string InitializerText(const wire::v1::Initializer& initializer) {
  switch (initializer.kind()) {
    case wire::v1::INIT_KIND_ZEROS:
      return "zeros";
    case wire::v1::INIT_KIND_CONSTANT:
      return absl::StrCat("constant(", initializer.a(), ")");
    case wire::v1::INIT_KIND_UNIFORM:
      return absl::StrCat("uniform(", initializer.a(), ", ", initializer.b(), ", seed ", initializer.seed(), ")");
    case wire::v1::INIT_KIND_NORMAL:
      return absl::StrCat("normal(", initializer.a(), ", ", initializer.b(), ", seed ", initializer.seed(), ")");
    case wire::v1::INIT_KIND_GLOROT_UNIFORM:
      return absl::StrCat("glorot_uniform(seed ", initializer.seed(), ")");
    case wire::v1::INIT_KIND_HE_NORMAL:
      return absl::StrCat("he_normal(seed ", initializer.seed(), ")");
    case wire::v1::INIT_KIND_ASSIGNED:
      return "assigned";
    default:
      return absl::StrCat("initializer ", static_cast<int>(initializer.kind()));
  }
}

}  // namespace basin
