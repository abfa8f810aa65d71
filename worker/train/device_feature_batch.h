// A batch of a CSV file's examples in a device's memory, for steps that stay there (WideDeepStep).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/device/device.h"
#include "worker/train/feature_data.h"

namespace basin {

// Keys stand as often as the examples have them, unlike FeatureBatch's. What it is given must outlive it.
class DeviceFeatureBatch final {
 public:
  DeviceFeatureBatch(const FeatureData& data, const NumericScale& scale, Device& device)
      : data_(data), scale_(scale), device_(device) {}

  // Gathers in pinned memory, and asks the device for one copy of it. REQUIRES: as FeatureBatcher::Gather; the copy
  // that was asked for before has ended.
  absl::Status Gather(const FeatureData::Part& part, absl::Span<const uint32_t> examples);

  size_t rows() const { return rows_; }
  size_t features() const { return data_.schema().features(); }
  // In the device's memory.
  const uint64_t* weight_keys() const { return there_.data(); }  // [rows, features]
  const uint64_t* embedding_keys(size_t category) const {        // [rows]
    return there_.data() + rows_ * (features() + category);
  }
  const float* numeric() const { return reinterpret_cast<const float*>(there_.data() + KeyCount()); }
  const uint8_t* labels() const { return reinterpret_cast<const uint8_t*>(numeric() + NumberCount()); }
  // In host memory: the example's weights are those of weight_keys [bags()[row], bags()[row + 1]).
  const std::vector<uint64_t>& bags() const { return bags_; }

 private:
  size_t KeyCount() const { return rows_ * (features() + data_.schema().categories.size()); }
  size_t NumberCount() const { return rows_ * data_.schema().numeric.size(); }

  const FeatureData& data_;
  const NumericScale& scale_;
  Device& device_;
  size_t rows_ = 0;
  std::vector<uint64_t> values_;  // keys of weights, of each category, then numbers, then labels, a byte each
  PinnedMemory pinned_;           // values_
  DeviceVector<uint64_t> there_;  // a copy
  std::vector<uint64_t> bags_;
};

}  // namespace basin
