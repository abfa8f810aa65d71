// Rules and initial values of the built-in programs, as the client library takes them.
#pragma once

#include "basin/client.h"
#include "common/rules/initializer.h"
#include "common/rules/rule_spec.h"

namespace basin {

inline Rule ToRule(const RuleSpec& spec) {
  switch (spec.kind) {
    case RuleKind::kMomentum:
      return Momentum{spec.learning_rate, spec.momentum, spec.nesterov};
    case RuleKind::kAdagrad:
      return Adagrad{spec.learning_rate, spec.initial_accumulator, spec.epsilon};
    case RuleKind::kAdam:
      return Adam{spec.learning_rate, spec.beta1, spec.beta2, spec.epsilon};
    case RuleKind::kFtrl:
      return Ftrl{spec.learning_rate, spec.l1, spec.l2, spec.beta, spec.initial_accumulator};
    case RuleKind::kRowwiseAdagrad:
      return RowwiseAdagrad{spec.learning_rate, spec.initial_accumulator, spec.epsilon};
    case RuleKind::kSgd:
      break;
  }
  return Sgd{spec.learning_rate};
}

inline Initializer ToInitializer(const InitSpec& spec) {
  return {static_cast<int32_t>(spec.kind), spec.a, spec.b, spec.seed};
}

}  // namespace basin
