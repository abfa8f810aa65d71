#include "worker/train/device_feature_batch.h"

#include "common/base/status_macros.h"

namespace basin {

absl::Status DeviceFeatureBatch::Gather(const FeatureData::Part& part, absl::Span<const uint32_t> examples) {
  rows_ = examples.size();
  const size_t number_bytes = NumberCount() * sizeof(float) + rows_;
  const size_t words = KeyCount() + (number_bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t);
  if (words > values_.size()) {
    pinned_ = PinnedMemory();
    values_.resize(words);
    pinned_ = device_.Pin(values_.data(), words * sizeof(uint64_t));
  }
  uint64_t* const weights = values_.data();
  uint64_t* const embeddings = weights + rows_ * features();
  for (size_t row = 0; row < rows_; ++row) {
    for (size_t feature = 0; feature < features(); ++feature) {
      const uint64_t key = data_.keys(feature)[part.ids[examples[row] * features() + feature]];
      weights[row * features() + feature] = key;
      if (feature < data_.schema().categories.size()) embeddings[feature * rows_ + row] = key;
    }
  }
  auto* const numeric = reinterpret_cast<float*>(weights + KeyCount());
  GatherNumbers(data_, scale_, part, examples, numeric, reinterpret_cast<uint8_t*>(numeric + NumberCount()));
  bags_.resize(rows_ + 1);
  for (size_t row = 0; row <= rows_; ++row) bags_[row] = row * features();
  BASIN_RETURN_IF_ERROR(there_.Resize(device_, words));
  device_.CopyIn(there_.data(), values_.data(), words * sizeof(uint64_t));
  return absl::OkStatus();
}

}  // namespace basin
