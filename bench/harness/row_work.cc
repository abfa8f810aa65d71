#include "bench/harness/row_work.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "bench/harness/exact_sums.h"
#include "bench/harness/key_stream.h"
#include "cluster_spec/table_placement.h"
#include "common/base/limits.h"

namespace basin::bench {
namespace {

uint64_t UpdatesOf(absl::Span<const uint64_t> keys, const TablePlacement& placement, uint64_t most) {
  std::vector<uint64_t> distinct(keys.begin(), keys.end());
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  std::vector<uint64_t> in_bucket(placement.buckets());
  for (const uint64_t key : distinct) ++in_bucket[placement.BucketOf(key)];
  uint64_t updates = 0;
  for (const uint64_t n : in_bucket) updates += (n + most - 1) / most;
  return updates;
}

}  // namespace

absl::StatusOr<RowWork> RowWork::Make(const RowWorkOptions& options) {
  if (options.dim == 0 || options.batch == 0) return absl::InvalidArgumentError("rows without elements, or no keys");
  if (options.rows > 0 && options.batch > options.rows) {
    return absl::InvalidArgumentError(absl::StrCat("a batch of ", options.batch, " different keys of a table of ",
                                                   options.rows, " rows; ask for a smaller batch"));
  }
  RowWork work(options);
  Random random(options.seed);
  for (size_t b = 0; b < kBatches; ++b) {
    work.batches_.push_back(options.rows == 0 ? CriteoKeys(random, options.batch)
                                              : DifferentKeys(random, options.rows, options.batch));
  }
  if (options.rows > 0) {
    work.all_keys_.resize(options.rows);
    std::iota(work.all_keys_.begin(), work.all_keys_.end(), uint64_t{0});
    return work;
  }
  for (const auto& keys : work.batches_) work.all_keys_.insert(work.all_keys_.end(), keys.begin(), keys.end());
  std::sort(work.all_keys_.begin(), work.all_keys_.end());
  work.all_keys_.erase(std::unique(work.all_keys_.begin(), work.all_keys_.end()), work.all_keys_.end());
  return work;
}

absl::Span<const uint64_t> RowWork::fill(size_t i) const {
  return absl::MakeConstSpan(all_keys_).subspan(i * options_.batch, options_.batch);
}

float RowWork::GradientOf(size_t place, uint32_t d) const { return GradientAt(d, place); }

size_t RowWork::IndexOf(uint64_t key) const {
  if (options_.rows > 0) return key;
  return static_cast<size_t>(std::lower_bound(all_keys_.begin(), all_keys_.end(), key) - all_keys_.begin());
}

std::vector<float> RowWork::Gradients() const {
  std::vector<float> gradients(options_.batch * options_.dim);
  for (size_t i = 0; i < options_.batch; ++i) {
    for (uint32_t d = 0; d < options_.dim; ++d) gradients[i * options_.dim + d] = GradientOf(i, d);
  }
  return gradients;
}

uint64_t RowWork::MostPushes(uint64_t fillers) const {
  // One push of every batch: the element that moves farthest.
  const std::vector<float> once = Expected(std::vector<uint64_t>(kBatches, 1), 0);
  const auto farthest = static_cast<uint64_t>(-*std::min_element(once.begin(), once.end()));
  const uint64_t filled = std::min(kExactBelow - 1, fillers * kGradients);
  return (kExactBelow - 1 - filled) / farthest;
}

std::vector<float> RowWork::Expected(const std::vector<uint64_t>& pushes, uint64_t fillers) const {
  const uint32_t dim = options_.dim;
  std::vector<float> rows(all_keys_.size() * dim);
  const auto add = [&](absl::Span<const uint64_t> keys, uint64_t times) {
    if (times == 0) return;
    for (size_t i = 0; i < keys.size(); ++i) {
      float* row = &rows[IndexOf(keys[i]) * dim];
      for (uint32_t d = 0; d < dim; ++d) row[d] -= static_cast<float>(times) * GradientOf(i, d);
    }
  };
  for (size_t b = 0; b < kBatches; ++b) add(batches_[b], pushes[b]);
  for (size_t i = 0; i < fills(); ++i) add(fill(i), fillers);
  return rows;
}

absl::Status RowWork::Check(absl::Span<const float> expected, absl::Span<const uint64_t> keys,
                            absl::Span<const float> found) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    const size_t index = IndexOf(keys[i]);
    for (uint32_t d = 0; d < options_.dim; ++d) {
      const float wanted = expected[index * options_.dim + d], value = found[i * options_.dim + d];
      if (value == wanted) continue;
      return absl::DataLossError(absl::StrCat("row ", keys[i], " has ", value, " at element ", d,
                                              "; the pushes that were sent make exactly ", wanted));
    }
  }
  return absl::OkStatus();
}

uint64_t RowWork::Updates(const std::vector<uint64_t>& pushes, uint64_t fillers, int ps) const {
  const TablePlacement placement = TablePlacement::Make(ps);
  const uint64_t most = std::max<uint64_t>(1, kMaxRowsBytes / (sizeof(uint64_t) + options_.dim * sizeof(float)));
  uint64_t updates = 0;
  for (size_t b = 0; b < kBatches; ++b) updates += pushes[b] * UpdatesOf(batches_[b], placement, most);
  for (size_t i = 0; i < fills(); ++i) updates += fillers * UpdatesOf(fill(i), placement, most);
  return updates;
}

absl::StatusOr<RowWork> RowWorkFrom(const nlohmann::json& spec) {
  RowWorkOptions options;
  options.rows = spec.value("rows", options.rows);
  options.dim = spec.value("dim", options.dim);
  options.batch = spec.value("batch", options.batch);
  options.seed = spec.value("seed", options.seed);
  return RowWork::Make(options);
}

}  // namespace basin::bench
