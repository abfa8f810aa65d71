// From the rules and initializers of the wire to those of common/rules.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/rules/initializer.h"
#include "common/rules/rule_spec.h"
#include "common/wire/control.pb.h"

namespace basin {

// As they stand, valid or not.
RuleSpec RuleOf(const wire::v1::Rule& rule);
InitSpec InitOf(const wire::v1::Initializer& initializer);

absl::Status CheckRule(const wire::v1::Rule& rule);
absl::Status CheckInitializer(const wire::v1::Initializer& initializer);
// For messages.
std::string RuleText(const wire::v1::Rule& rule);
std::string InitializerText(const wire::v1::Initializer& initializer);

}  // namespace basin
