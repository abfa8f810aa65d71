// Labelled images and the batches made of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/train/program.h"

namespace basin {

class Dataset final {
 public:
  // `part` is "train" or "test": train-images-idx3-ubyte and train-labels-idx1-ubyte, or t10k-…; plain or with .gz.
  static absl::StatusOr<Dataset> LoadIdxFolder(const std::string& folder, absl::string_view part);
  // REQUIRES: features.size() is a multiple of labels.size(), which is not 0.
  static Dataset FromBytes(std::vector<uint8_t> features, std::vector<uint8_t> labels);

  uint64_t count() const { return labels_.size(); }
  uint64_t width() const { return features_.size() / labels_.size(); }
  const uint8_t* features(uint64_t example) const { return features_.data() + example * width(); }
  const uint8_t* labels() const { return labels_.data(); }  // [count]
  uint8_t label(uint64_t example) const { return labels_[example]; }

 private:
  std::vector<uint8_t> features_, labels_;  // bytes: a quarter of the memory that floats would take
};

// Holds one batch: features scaled from 0..255 to 0..1.
class BatchBuffer final {
 public:
  BatchBuffer() = default;
  // Its memory is pinned for the device, which must outlive it: a copy from other memory may keep the CPU waiting until
  // the device has come to it.
  explicit BatchBuffer(Device& device) : device_(&device) {}
  // Valid until the next Gather. REQUIRES: each index is below data.count().
  Batch Gather(const Dataset& data, absl::Span<const uint32_t> examples);

 private:
  Device* const device_ = nullptr;
  std::vector<float> values_;  // features; behind them the labels, a byte each
  PinnedMemory pinned_;        // values_
};

// An order of 0..count-1, a function of seed and epoch alone (Fisher and Yates).
std::vector<uint32_t> Permutation(uint64_t count, uint64_t seed, uint32_t epoch);

}  // namespace basin
