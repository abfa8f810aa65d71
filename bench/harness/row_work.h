// Work on the rows of an embedding table whose effect is known exactly. Pure.
//
// Batches of keys are made once and pushed in turn. The gradient of a batch's i-th key is of small whole numbers, a
// function of i, the same in every batch: so what a row must be follows from how often each batch was pushed, and a
// gradient that went to another row shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace basin::bench {

struct RowWorkOptions {
  // Of the table, all made before anything is measured; keys of a batch differ. 0: keys of kCriteoCardinalities, whose
  // rows are made by the first push of each batch; keys repeat.
  uint64_t rows = 1'000'000;
  uint32_t dim = 16;
  size_t batch = 10'000;  // keys of a call
  uint64_t seed = 1;
};

class RowWork final {
 public:
  static constexpr size_t kBatches = 64;

  // INVALID_ARGUMENT: no rows, no dim, no keys, or more keys in a batch than the table has rows.
  static absl::StatusOr<RowWork> Make(const RowWorkOptions& options);

  uint32_t dim() const { return options_.dim; }
  size_t batch() const { return options_.batch; }
  absl::Span<const uint64_t> keys(size_t batch) const { return batches_[batch]; }
  // Every key that is ever pushed, ascending.
  absl::Span<const uint64_t> all_keys() const { return all_keys_; }
  // Batches that make all rows; none for keys of Criteo. The last may be short.
  size_t fills() const { return options_.rows == 0 ? 0 : (options_.rows + options_.batch - 1) / options_.batch; }
  absl::Span<const uint64_t> fill(size_t i) const;

  // [batch, dim], for every batch and every fill.
  std::vector<float> Gradients() const;

  // How often each batch can be pushed, by all together, so that float32 still adds exactly; `fillers` fill the table.
  uint64_t MostPushes(uint64_t fillers) const;
  // The rows of all_keys(), [keys, dim], after `pushes[b]` pushes of batch b and `fillers` fills: SGD with rate 1, from
  // zero. REQUIRES: pushes has kBatches numbers, at most MostPushes(fillers).
  std::vector<float> Expected(const std::vector<uint64_t>& pushes, uint64_t fillers) const;
  // OK, or DATA_LOSS naming the first row that differs. `found` is [keys, dim].
  absl::Status Check(absl::Span<const float> expected, absl::Span<const uint64_t> keys,
                     absl::Span<const float> found) const;

  // The updates that a client sends for such pushes: one for each bucket that has keys of a batch, more where a bucket
  // has many.
  uint64_t Updates(const std::vector<uint64_t>& pushes, uint64_t fillers, int ps) const;

 private:
  explicit RowWork(const RowWorkOptions& options) : options_(options) {}
  float GradientOf(size_t place, uint32_t d) const;
  size_t IndexOf(uint64_t key) const;

  RowWorkOptions options_;
  std::vector<std::vector<uint64_t>> batches_;
  std::vector<uint64_t> all_keys_;
};

// What a task is told: "rows", "dim", "batch", "seed".
absl::StatusOr<RowWork> RowWorkFrom(const nlohmann::json& spec);

}  // namespace basin::bench
