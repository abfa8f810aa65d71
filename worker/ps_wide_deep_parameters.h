// A wide & deep model's parameters on parameter servers, moved by way of host memory.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "basin/client.h"
#include "worker/task_options.h"
#include "worker/train/wide_deep_parameters.h"

namespace basin {

class PsWideDeepParameters final : public WideDeepParameters {
 public:
  // Declares the model's variables and tables, their rules, and the input "train" of `examples` examples. The chief's
  // makes the run's model; a worker's and an evaluator's are compared with it and wait for it. `client` must outlive
  // it.
  static absl::StatusOr<PsWideDeepParameters> Declare(Client& client, const WideDeep& model, const TaskOptions& options,
                                                      uint64_t examples);

  absl::Status StartPull(const std::vector<TableKeys>& keys, WideDeepValues* values) override;
  absl::Status StartPush(const std::vector<TableKeys>& keys, const WideDeepValues& gradients,
                         float rate_factor) override;
  absl::Status Settle() override;

  // As declared, in the model's order.
  const std::vector<std::pair<std::string, Variable>>& variables() const { return variables_; }
  const std::vector<Table>& tables() const { return tables_; }

 private:
  explicit PsWideDeepParameters(Client& client) : client_(&client) {}

  Client* client_;
  std::vector<std::pair<std::string, Variable>> variables_;
  std::vector<Table> tables_;
  float dense_rate_ = 0;
  std::vector<float> table_rates_;
  std::vector<Call> under_way_;
};

}  // namespace basin
