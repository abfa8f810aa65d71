// Steps of a wide & deep model on parameters that lie anywhere, and how good it is.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device/device.h"
#include "worker/train/feature_data.h"
#include "worker/train/local_wide_deep.h"
#include "worker/train/schedule.h"
#include "worker/train/wide_deep.h"
#include "worker/train/wide_deep_parameters.h"

namespace basin {

// One step behind: a batch's rows are asked for behind the push of the one before it, and while both are under way the
// next batch is gathered. Twins: HostWideDeepTrainer, and DeviceWideDeepTrainer (worker/device_wide_deep_trainer.h),
// whose parameters on parameter servers come and go by the device's memory.
class WideDeepTrainer {
 public:
  virtual ~WideDeepTrainer() = default;

  struct Step {
    uint64_t examples = 0;
    double loss = 0;
  };
  // Takes the next batch (examples of the training part), and returns the step of the batch taken before; a step of 0
  // examples where there was none. `rate_factor` is for the batch that is taken. ABORTED: the loss is no number any
  // more.
  absl::StatusOr<Step> Feed(absl::Span<const uint32_t> examples, float rate_factor);
  // The step of the batch that was taken last, and waits until its push is applied.
  absl::StatusOr<Step> Drain();

 protected:
  // One batch is gathered, one waits for its step, and the keys of the one before may still be lent to its push.
  static constexpr int kPlaces = 3;
  struct Taken {
    int place = 0;  // which batches have in turn
    uint64_t examples = 0;
    float rate_factor = 1;
  };

 private:
  // Makes the batch. Of the one that had this place before nothing is under way any more.
  virtual absl::Status Gather(int place, absl::Span<const uint32_t> examples) = 0;
  // Gradients of the batch's mean loss, which is returned, on what its pull has brought.
  virtual absl::StatusOr<double> Compute(int place) = 0;
  // Starts the push of what was computed last, on `pushed`, and behind it the pull for `pulled`; either may be null.
  virtual absl::Status StartUpdate(const Taken* pushed, const Taken* pulled) = 0;
  // Waits for all that was started. The first error, if any.
  virtual absl::Status Settle() = 0;

  // The step of taken_, if any, and the pull for `next`, if any, which is taken_ then.
  absl::StatusOr<Step> Advance(std::optional<Taken> next);

  std::optional<Taken> taken_;  // waits for its step
  uint64_t steps_ = 0;
};

// In host memory. What it is given must outlive it.
class HostWideDeepTrainer final : public WideDeepTrainer {
 public:
  HostWideDeepTrainer(WideDeep& model, Device& device, WideDeepParameters& parameters, const FeatureData& data)
      : model_(model), device_(device), parameters_(parameters), data_(data), batcher_(data, data.TrainScale()) {}

 private:
  absl::Status Gather(int place, absl::Span<const uint32_t> examples) override;
  absl::StatusOr<double> Compute(int place) override;
  absl::Status StartUpdate(const Taken* pushed, const Taken* pulled) override;
  absl::Status Settle() override { return parameters_.Settle(); }

  WideDeep& model_;
  Device& device_;
  WideDeepParameters& parameters_;
  const FeatureData& data_;
  FeatureBatcher batcher_;
  FeatureBatch batches_[kPlaces];  // by place
  WideDeepValues values_, gradients_;
};

struct WideDeepEvaluation {
  double loss = 0, auc = 0, accuracy = 0;
};
// Over a whole part of `data`, standardised by `scale`. ABORTED: the loss is no number.
absl::StatusOr<WideDeepEvaluation> EvaluateWideDeep(WideDeep& model, Device& device, WideDeepParameters& parameters,
                                                    const FeatureData& data, const FeatureData::Part& part,
                                                    const NumericScale& scale);

struct WideDeepTrainingOptions {
  Schedule schedule = Schedule::kConstant;
  uint64_t batch_size = 128;
  uint32_t epochs = 1;
  uint64_t max_steps = 0;  // 0: no limit
  uint64_t seed = 1;       // of the order of examples
};
struct WideDeepTrained {
  std::vector<double> loss_per_epoch;  // mean over the batches, as they came
  uint64_t steps = 0, examples = 0;
};
// Trains on parameters of this process, in the order in which a cluster's workers take the examples.
absl::StatusOr<WideDeepTrained> TrainWideDeepLocally(WideDeep& model, Device& device,
                                                     LocalWideDeepParameters& parameters, const FeatureData& data,
                                                     const WideDeepTrainingOptions& options);

}  // namespace basin
