// Steps of a wide & deep model on parameter servers, where the device that computes has memory of its own.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "basin/client.h"
#include "common/device/device.h"
#include "worker/ps_dense_parameters.h"
#include "worker/ps_wide_deep_parameters.h"
#include "worker/train/device_feature_batch.h"
#include "worker/train/wide_deep_training.h"

namespace basin {

// Parameters, gradients and keys are in the device's memory, and the client moves them in its order: pushes leave
// behind the kernels that make their gradients, in the order of the backward pass, and the next forward pass waits on
// the device for what it reads. The client merges the keys that repeat in a batch.
class DeviceWideDeepTrainer final : public WideDeepTrainer {
 public:
  // `learning_rate`: of the declared rule of the variables. What it is given must outlive it. REQUIRES: the device's
  // memory is not the host's.
  DeviceWideDeepTrainer(Client& client, WideDeep& model, Device& device, const PsWideDeepParameters& declared,
                        const FeatureData& data, float learning_rate);

  // Before the first step: makes the variables' memory, and pulls them. RESOURCE_EXHAUSTED: the device has none left.
  absl::Status Start() { return dense_.Start(); }

 private:
  absl::Status Gather(int place, absl::Span<const uint32_t> examples) override;
  absl::StatusOr<double> Compute(int place) override;
  absl::Status StartUpdate(const Taken* pushed, const Taken* pulled) override;
  absl::Status Settle() override;

  // The device waits for what was started, and the CPU does not; but for the first batch of a size.
  absl::Status SettleFor(const DeviceFeatureBatch& batch);
  // A call over the batch's weights, or its embeddings, behind a mark of the device.
  absl::Status StartWeights(const DeviceFeatureBatch& batch, const float* push, float* pull);
  absl::Status StartEmbeddings(const DeviceFeatureBatch& batch, const float* push, float* pull);
  absl::Status StartRows(const std::vector<Rows>& rows, uint64_t behind);

  Client& client_;
  WideDeep& model_;
  Device& device_;
  const std::vector<Table>& tables_;
  const FeatureData& data_;
  const float learning_rate_;
  const NumericScale scale_;
  PsDenseParameters dense_;
  DeviceFeatureBatch batches_[kPlaces];  // by place
  // Of a batch, [rows] and [categories, rows, dim]. One of each serves: a pull is behind the forward pass before it.
  DeviceVector<float> weights_, weights_gradient_, embeddings_, embeddings_gradient_;
  WideDeep::StepResult computed_;  // last
  std::set<size_t> sizes_;         // of the batches so far
  std::vector<Call> under_way_;    // over rows; their outcome is not known yet
};

}  // namespace basin
