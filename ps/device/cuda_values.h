// Values of a shard in blocks of a CUDA device.
#pragma once

#include <array>

#include "common/rules/cuda_apply.h"
#include "ps/block.h"
#include "ps/device/cuda_shards.h"
#include "ps/shard_values.h"

namespace basin {

class CudaValues final : public ShardValues {
 public:
  // Both outlive it. Its blocks are the device's, which takes them with it.
  CudaValues(const ShardOptions& options, CudaShards& device);

  absl::Status Apply(const Push& push) override;
  absl::Status Assign(absl::Span<const char> parameters) override;
  absl::Status AssignOnDevice(const char* parameters) override;
  absl::Status Settle() override;
  absl::StatusOr<wire::Frame> Read() override;
  absl::Status ReadOnDevice(char* to) override;
  const float* on_host() override { return nullptr; }

  // ---- For CudaShards ----

  // The batch with the change has run: what became of the device, and whether the gradient held a NaN or an infinity.
  void Ended(const absl::Status& ran, bool not_finite);
  void DropCopy() { copy_ = BlockRef(); }

 private:
  struct Blocks {
    float* parameters = nullptr;
    std::array<float*, kMaxSlots> slots = {};
  };
  // Room in the batch to read the parameters, which are there once it has run.
  absl::Status Touch();
  void EnsureParameters();
  void EnsureSlots();
  void GiveBack(const Blocks& blocks);

  const ShardOptions& options_;
  CudaShards& device_;
  const RuleSpec rule_;
  const size_t slot_count_;
  // None until first touched, as on the host: parameters until they are read or pushed to, slots until the first push.
  Blocks held_;
  BlockRef copy_;  // of the held parameters, on the host, so that a second pull need not copy again
  // Of the change that was begun.
  bool begun_ = false;  // and has not run
  Blocks fresh_;
  BlockRef fresh_copy_;
  GradientView gradient_;
  absl::Status outcome_;
};

}  // namespace basin
