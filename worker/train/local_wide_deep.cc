#include "worker/train/local_wide_deep.h"

#include "common/rules/apply.h"

namespace basin {

LocalWideDeepParameters::LocalWideDeepParameters(const WideDeep& model, const RuleSpec& rule) : rule_(rule) {
  for (const VariableDecl& variable : model.variables()) {
    dense_.emplace_back(variable.elements());
    Fill(variable.init, FansOf(variable.shape), 0, absl::MakeSpan(dense_.back()));
    slots_.emplace_back();
    for (int slot = 0; slot < SlotCount(rule.kind); ++slot) {
      slots_.back().emplace_back(variable.elements(), SlotInitialValue(rule, slot));
    }
  }
  for (const TableDecl& table : model.tables()) tables_.push_back(std::make_unique<LocalTable>(table));
}

absl::Status LocalWideDeepParameters::StartPull(const std::vector<TableKeys>& keys, WideDeepValues* values) {
  values->dense = dense_;
  for (size_t i = 0; i < tables_.size(); ++i) tables_[i]->Pull(keys[i].keys, values->rows[i].data());
  return absl::OkStatus();
}

absl::Status LocalWideDeepParameters::StartPush(const std::vector<TableKeys>& keys, const WideDeepValues& gradients,
                                                float rate_factor) {
  ++step_;
  for (size_t i = 0; i < dense_.size(); ++i) {
    ApplyArguments apply;
    apply.gradient = gradients.dense[i];
    apply.parameters_in = dense_[i];
    apply.parameters_out = absl::MakeSpan(dense_[i]);
    for (size_t slot = 0; slot < slots_[i].size(); ++slot) {
      apply.slots_in[slot] = slots_[i][slot];
      apply.slots_out[slot] = absl::MakeSpan(slots_[i][slot]);
    }
    apply.step = step_;
    apply.learning_rate = rule_.learning_rate * rate_factor;
    Apply(rule_, apply);
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    tables_[i]->Push(keys[i].keys, gradients.rows[i].data(), tables_[i]->declared().rule.learning_rate * rate_factor);
  }
  return absl::OkStatus();
}

}  // namespace basin
