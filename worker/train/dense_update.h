// A program's parameters in this process's memory, with the slots of their rule, and the rule applied to them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/rules/rule_spec.h"
#include "worker/train/program.h"

namespace basin {

// Each variable filled by its initializer, as a parameter server does it.
std::vector<std::vector<float>> InitialParameters(const std::vector<VariableDecl>& variables);

class DenseUpdate final {
 public:
  // REQUIRES: Validate(rule) is OK.
  DenseUpdate(const std::vector<VariableDecl>& variables, const RuleSpec& rule);
  DenseUpdate(const DenseUpdate&) = delete;
  DenseUpdate& operator=(const DenseUpdate&) = delete;

  const RuleSpec& rule() const { return rule_; }
  std::vector<std::vector<float>>& parameters() { return parameters_; }
  // The same memory. Valid as long as this object.
  ParameterSpans spans() const { return spans_; }
  // `step` is 1 for the first update. REQUIRES: a gradient of the variable's size.
  void Apply(size_t variable, absl::Span<const float> gradient, uint64_t step, float learning_rate);

 private:
  const RuleSpec rule_;
  std::vector<std::vector<float>> parameters_;          // by variable
  std::vector<absl::Span<const float>> spans_;          // of parameters_
  std::vector<std::vector<std::vector<float>>> slots_;  // by variable and slot
};

}  // namespace basin
