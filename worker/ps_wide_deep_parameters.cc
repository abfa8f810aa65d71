#include "worker/ps_wide_deep_parameters.h"

#include "common/base/status_macros.h"
#include "worker/declare_rules.h"
#include "worker/model_file.h"

namespace basin {

absl::StatusOr<PsWideDeepParameters> PsWideDeepParameters::Declare(Client& client, const WideDeep& model,
                                                                   const TaskOptions& options, uint64_t examples) {
  PsWideDeepParameters parameters(client);
  Model declared;
  for (const VariableDecl& variable : model.variables()) {
    parameters.variables_.emplace_back(variable.name,
                                       declared.Dense(variable.name, variable.shape, ToInitializer(variable.init)));
  }
  for (const TableDecl& table : model.tables()) {
    TableOptions of_table;
    of_table.dim = table.dim;
    of_table.initializer = ToInitializer(table.init);
    of_table.rule = ToRule(table.rule);
    parameters.tables_.push_back(declared.Table(table.name, of_table));
    parameters.table_rates_.push_back(table.rule.learning_rate);
  }
  declared.SetRule(ToRule(options.rule));
  parameters.dense_rate_ = options.rule.learning_rate;
  declared.AddInput("train", examples, options.batch_size * options.piece_batches, options.epochs, options.seed);
  declared.SetMaxSteps(options.max_steps);
  BASIN_RETURN_IF_ERROR(ToAbslStatus(client.Declare(declared)));
  return parameters;
}

absl::Status PsWideDeepParameters::StartPull(const std::vector<TableKeys>& keys, WideDeepValues* values) {
  std::vector<Target> targets;
  for (size_t i = 0; i < variables_.size(); ++i) targets.emplace_back(variables_[i].second, values->dense[i]);
  std::vector<Rows> rows;
  for (size_t i = 0; i < tables_.size(); ++i) {
    if (keys[i].keys.empty()) continue;
    rows.push_back({&tables_[i], keys[i].keys.data(), keys[i].keys.size(), nullptr, values->rows[i].data()});
  }
  under_way_.push_back(client_->Pull(targets));
  if (!rows.empty()) under_way_.push_back(client_->Start(rows));
  return absl::OkStatus();
}

absl::Status PsWideDeepParameters::StartPush(const std::vector<TableKeys>& keys, const WideDeepValues& gradients,
                                             float rate_factor) {
  // A learning rate is set for all pushes that follow, so each table's comes before its push.
  BASIN_RETURN_IF_ERROR(ToAbslStatus(client_->SetLearningRate(dense_rate_ * rate_factor)));
  std::vector<Source> sources;
  for (size_t i = 0; i < variables_.size(); ++i) sources.emplace_back(variables_[i].second, gradients.dense[i]);
  under_way_.push_back(client_->Push(sources));
  for (size_t begin = 0; begin < tables_.size();) {
    const float rate = table_rates_[begin];
    std::vector<Rows> rows;
    for (; begin < tables_.size() && table_rates_[begin] == rate; ++begin) {
      rows.push_back({&tables_[begin], keys[begin].keys.data(), keys[begin].keys.size(), gradients.rows[begin].data()});
    }
    BASIN_RETURN_IF_ERROR(ToAbslStatus(client_->SetLearningRate(rate * rate_factor)));
    under_way_.push_back(client_->Start(rows));
  }
  return absl::OkStatus();
}

absl::Status PsWideDeepParameters::Settle() {
  absl::Status first;
  for (Call& call : under_way_) {
    const absl::Status status = ToAbslStatus(call.Wait());
    if (first.ok()) first = status;
  }
  under_way_.clear();
  return first;
}

}  // namespace basin
