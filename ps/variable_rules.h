// From the wire's rules and initializers to those of common/rules.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/wire/control.pb.h"

namespace basin {

absl::Status CheckRule(const wire::v1::Rule& rule);
absl::Status CheckInitializer(const wire::v1::Initializer& initializer);
// "adam(learning_rate 0.001, beta1 0.9, beta2 0.999, epsilon 1e-08)", for messages.
std::string RuleText(const wire::v1::Rule& rule);
std::string InitializerText(const wire::v1::Initializer& initializer);

}  // namespace basin
