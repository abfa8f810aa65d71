#include "worker/train/dense_update.h"

#include "common/rules/apply.h"

namespace basin {

std::vector<std::vector<float>> InitialParameters(const std::vector<VariableDecl>& variables) {
  std::vector<std::vector<float>> parameters;
  for (const VariableDecl& variable : variables) {
    parameters.emplace_back(variable.elements());
    Fill(variable.init, FansOf(variable.shape), 0, absl::MakeSpan(parameters.back()));
  }
  return parameters;
}

DenseUpdate::DenseUpdate(const std::vector<VariableDecl>& variables, const RuleSpec& rule)
    : rule_(rule), parameters_(InitialParameters(variables)), slots_(variables.size()) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    spans_.emplace_back(parameters_[i].data(), parameters_[i].size());
    for (int slot = 0; slot < SlotCount(rule.kind); ++slot) {
      slots_[i].emplace_back(parameters_[i].size(), SlotInitialValue(rule, slot));
    }
  }
}

void DenseUpdate::Apply(size_t variable, absl::Span<const float> gradient, uint64_t step, float learning_rate) {
  ApplyArguments apply;
  apply.gradient = gradient;
  apply.parameters_in = parameters_[variable];
  apply.parameters_out = absl::MakeSpan(parameters_[variable]);
  for (size_t slot = 0; slot < slots_[variable].size(); ++slot) {
    apply.slots_in[slot] = slots_[variable][slot];
    apply.slots_out[slot] = absl::MakeSpan(slots_[variable][slot]);
  }
  apply.step = step;
  apply.learning_rate = learning_rate;
  basin::Apply(rule_, apply);
}

}  // namespace basin
