// A wide & deep model's parameters in this process: training without parameter servers, and model files.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/train/dense_update.h"
#include "worker/train/local_tables.h"
#include "worker/train/wide_deep_parameters.h"

namespace basin {

class LocalWideDeepParameters final : public WideDeepParameters {
 public:
  // Initial values, as parameter servers make them. REQUIRES: Validate(rule) is OK.
  LocalWideDeepParameters(const WideDeep& model, const RuleSpec& rule);

  absl::Status StartPull(const std::vector<TableKeys>& keys, WideDeepValues* values) override;
  absl::Status StartPush(const std::vector<TableKeys>& keys, const WideDeepValues& gradients,
                         float rate_factor) override;
  absl::Status Settle() override { return absl::OkStatus(); }

  std::vector<std::vector<float>>& dense() { return update_.parameters(); }
  LocalTable& table(size_t table) { return *tables_[table]; }

 private:
  DenseUpdate update_;
  std::vector<std::unique_ptr<LocalTable>> tables_;
  uint64_t step_ = 0;
};

}  // namespace basin
