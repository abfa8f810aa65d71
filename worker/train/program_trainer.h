// Steps of a program on parameters that lie anywhere.
#pragma once

#include <cstdint>
#include <set>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device/device.h"
#include "worker/train/dataset.h"
#include "worker/train/dense_parameters.h"
#include "worker/train/program.h"
#include "worker/train/timeline.h"

namespace basin {

// The update of a step is under way while the next batch is gathered; with `pipeline` its gradients are computed too,
// on the parameters at hand, which are an update older. What it is given must outlive it; `timeline` may be null.
class ProgramTrainer final {
 public:
  ProgramTrainer(Program& program, Device& device, const Dataset& train, DenseParameters& parameters, bool pipeline,
                 Timeline* timeline)
      : program_(program),
        device_(device),
        train_(train),
        parameters_(parameters),
        pipeline_(pipeline),
        timeline_(timeline),
        batch_(device) {}

  // Gradients of the batch's mean loss, and the start of their update. Without examples: gradients of zero, a loss of
  // 0; not with gradients in the device's memory. ABORTED: the loss is no number any more.
  absl::StatusOr<BatchResult> Step(absl::Span<const uint32_t> examples, float learning_rate);
  // Waits for the update under way.
  absl::Status Settle();

 private:
  absl::Status SettleFor(const Batch& batch);
  absl::Status Compute(absl::Span<const uint32_t> examples, const Batch& batch, BatchResult* result);

  Program& program_;
  Device& device_;
  const Dataset& train_;
  DenseParameters& parameters_;
  const bool pipeline_;
  Timeline* const timeline_;
  BatchBuffer batch_;
  std::set<int64_t> sizes_;  // of the batches so far
};

}  // namespace basin
