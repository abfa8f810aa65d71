// The seam between a wide & deep model and where its parameters lie. Twins: LocalWideDeepParameters in this process,
// and PsWideDeepParameters (worker/ps_wide_deep_parameters.h) on parameter servers.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "worker/train/wide_deep.h"

namespace basin {

// One call may be started while others are under way; they take effect in the order of their starting. All buffers are
// lent until Settle. One thread.
class WideDeepParameters {
 public:
  virtual ~WideDeepParameters() = default;
  // Fills *values, which has been sized for the keys: all variables, and the keys' rows. A row that is not there has
  // its initial value, and is not made.
  virtual absl::Status StartPull(const std::vector<TableKeys>& keys, WideDeepValues* values) = 0;
  // Applies the gradients by their rules, whose learning rates are multiplied by `rate_factor`.
  virtual absl::Status StartPush(const std::vector<TableKeys>& keys, const WideDeepValues& gradients,
                                 float rate_factor) = 0;
  // Waits for all that was started. The first error, if any.
  virtual absl::Status Settle() = 0;
};

}  // namespace basin
