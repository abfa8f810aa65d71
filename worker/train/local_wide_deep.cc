#include "worker/train/local_wide_deep.h"

namespace basin {

LocalWideDeepParameters::LocalWideDeepParameters(const WideDeep& model, const RuleSpec& rule)
    : update_(model.variables(), rule) {
  for (const TableDecl& table : model.tables()) tables_.push_back(std::make_unique<LocalTable>(table));
}

absl::Status LocalWideDeepParameters::StartPull(const std::vector<TableKeys>& keys, WideDeepValues* values) {
  values->dense = update_.parameters();
  for (size_t i = 0; i < tables_.size(); ++i) tables_[i]->Pull(keys[i].keys, values->rows[i].data());
  return absl::OkStatus();
}

absl::Status LocalWideDeepParameters::StartPush(const std::vector<TableKeys>& keys, const WideDeepValues& gradients,
                                                float rate_factor) {
  ++step_;
  for (size_t i = 0; i < gradients.dense.size(); ++i) {
    update_.Apply(i, gradients.dense[i], step_, update_.rule().learning_rate * rate_factor);
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    tables_[i]->Push(keys[i].keys, gradients.rows[i].data(), tables_[i]->declared().rule.learning_rate * rate_factor);
  }
  return absl::OkStatus();
}

}  // namespace basin
