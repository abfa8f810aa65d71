#include "worker/train/program_trainer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {

absl::Status CheckLoss(double loss, uint64_t step) {
  if (std::isfinite(loss)) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat("the loss is ", loss, " at step ", step, ": training has diverged; try a smaller --learning-rate"));
}

absl::StatusOr<BatchResult> ProgramTrainer::Step(absl::Span<const uint32_t> examples, float learning_rate) {
  Batch batch;
  {
    const Timeline::Span span(timeline_, "gather");
    batch = batch_.Gather(train_, examples);
  }
  if (!pipeline_) BASIN_RETURN_IF_ERROR(SettleFor(batch));
  BatchResult result;
  {
    const Timeline::Span span(timeline_, "compute");
    BASIN_RETURN_IF_ERROR(Compute(examples, batch, &result));
  }
  if (pipeline_) BASIN_RETURN_IF_ERROR(SettleFor(batch));
  BASIN_RETURN_IF_ERROR(parameters_.StartUpdate(result.loss, learning_rate));
  return result;
}

absl::Status ProgramTrainer::Compute(absl::Span<const uint32_t> examples, const Batch& batch, BatchResult* result) {
  const auto ready = [this](size_t variable) { parameters_.Ready(variable); };
  if (!examples.empty()) {
    return program_.Gradients(device_, batch, parameters_.values(), parameters_.parameters(), parameters_.gradients(),
                              result, ready);
  }
  BASIN_CHECK(parameters_.values() == MemoryOf::kHost);
  const GradientSpans gradients = parameters_.gradients();
  for (size_t variable = gradients.size(); variable-- > 0;) {
    std::fill(gradients[variable].begin(), gradients[variable].end(), 0.0f);
    ready(variable);
  }
  return absl::OkStatus();
}

// For the first batch of a size memory grows and kernels are loaded, and to do either CUDA may wait for all of the
// device: none of its streams may then wait for an update, whose copies come behind.
absl::Status ProgramTrainer::SettleFor(const Batch& batch) {
  if (sizes_.insert(batch.rows).second) return Settle();
  const Timeline::Span span(timeline_, "wait");
  return parameters_.SettleInOrder();
}

absl::Status ProgramTrainer::Settle() {
  const Timeline::Span span(timeline_, "wait");
  return parameters_.Settle();
}

}  // namespace basin
