#include "worker/train/dataset.h"

#include <unistd.h>

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "common/format/idx.h"

namespace basin {
namespace {

absl::StatusOr<IdxArray> ReadPart(const std::string& folder, const std::string& name) {
  const std::string path = absl::StrCat(folder, "/", name);
  if (access(path.c_str(), F_OK) == 0) return ReadIdx(path);
  const std::string compressed = absl::StrCat(path, ".gz");
  if (access(compressed.c_str(), F_OK) == 0) return ReadIdx(compressed);
  return absl::NotFoundError(absl::StrCat("neither ", path, " nor ", compressed,
                                          " exists; give the folder of the IDX files (Debian's package "
                                          "dataset-fashion-mnist has /usr/share/datasets/fashion-mnist)"));
}

}  // namespace

absl::StatusOr<Dataset> Dataset::LoadIdxFolder(const std::string& folder, absl::string_view part) {
  const std::string prefix = part == "train" ? "train" : "t10k";
  BASIN_ASSIGN_OR_RETURN(IdxArray images, ReadPart(folder, absl::StrCat(prefix, "-images-idx3-ubyte")));
  BASIN_ASSIGN_OR_RETURN(IdxArray labels, ReadPart(folder, absl::StrCat(prefix, "-labels-idx1-ubyte")));
  if (images.shape.size() != 3 || labels.shape.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": the ", prefix, " images have ", images.shape.size(), " dimensions and the labels ",
                     labels.shape.size(), "; expected 3 (count, rows, columns) and 1; are the files mixed up?"));
  }
  if (images.shape[0] != labels.shape[0] || labels.data.empty() || images.data.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": ", images.shape[0], " images and ", labels.shape[0],
                                                   " labels; expected as many, and at least one"));
  }
  return FromBytes(std::move(images.data), std::move(labels.data));
}

Dataset Dataset::FromBytes(std::vector<uint8_t> features, std::vector<uint8_t> labels) {
  BASIN_CHECK(!labels.empty() && features.size() % labels.size() == 0);
  Dataset data;
  data.features_ = std::move(features);
  data.labels_ = std::move(labels);
  return data;
}

Batch BatchBuffer::Gather(const Dataset& data, absl::Span<const uint32_t> examples) {
  const uint64_t width = data.width();
  const size_t features = examples.size() * width;
  const size_t needed = features + (examples.size() + sizeof(float) - 1) / sizeof(float);
  if (needed > values_.size()) {
    pinned_ = PinnedMemory();
    values_.resize(needed);
    if (device_ != nullptr) pinned_ = device_->Pin(values_.data(), values_.size() * sizeof(float));
  }
  auto* const labels = reinterpret_cast<uint8_t*>(values_.data() + features);
  for (size_t row = 0; row < examples.size(); ++row) {
    const uint8_t* from = data.features(examples[row]);
    float* to = values_.data() + row * width;
    for (uint64_t i = 0; i < width; ++i) to[i] = static_cast<float>(from[i]) * (1.0f / 255.0f);
    labels[row] = data.label(examples[row]);
  }
  return {static_cast<int64_t>(examples.size()), static_cast<int64_t>(width), values_.data(), labels};
}

std::vector<uint32_t> Permutation(uint64_t count, uint64_t seed, uint32_t epoch) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  // RandomAt tells seed and epoch apart: no order of one seed's epochs is another's.
  Random random(RandomAt(seed, epoch));
  for (uint64_t i = count; i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  return order;
}

}  // namespace basin
