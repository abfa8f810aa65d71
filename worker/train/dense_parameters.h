// The seam between the training of a program and where its parameters lie. Twins: LocalDenseParameters in this process
// (local_training), AllReduceParameters with a copy in each rank, and PsDenseParameters
// (worker/ps_dense_parameters.h) on parameter servers.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "worker/train/program.h"

namespace basin {

// One thread. A step is: gradients() written and Ready told, each variable once; StartUpdate; later Settle.
class DenseParameters {
 public:
  virtual ~DenseParameters() = default;
  // Whose memory parameters() and gradients() are.
  virtual MemoryOf values() const { return MemoryOf::kHost; }
  // What gradients are computed on: as the last Settle left them. Valid until the next one.
  virtual ParameterSpans parameters() const = 0;
  // Where the next step's gradients go: memory that no update under way reads. Valid until the next StartUpdate.
  virtual GradientSpans gradients() = 0;
  // The variable's gradient is whole (in the device's memory: will be once it has done what it was asked for), and lent
  // from now until Settle. What goes wrong is told by StartUpdate or Settle.
  virtual void Ready(size_t variable) = 0;
  // Applies the gradients by the rule, with this learning rate. `loss` is that of the batch they are from. ABORTED: it
  // is no number, training has diverged. REQUIRES: what was started before is settled, or settled in order.
  virtual absl::Status StartUpdate(double loss, float learning_rate) = 0;
  // Waits until the update that was started, if any, is applied and parameters() show it.
  virtual absl::Status Settle() = 0;
  // The same in the order of the device where parameters() are in its memory: what it is asked for from now on sees
  // them, and the CPU does not wait. What goes wrong is told by the next StartUpdate or Settle.
  virtual absl::Status SettleInOrder() { return Settle(); }
};

// ABORTED where `loss` is no number.
absl::Status CheckLoss(double loss, uint64_t step);

}  // namespace basin
