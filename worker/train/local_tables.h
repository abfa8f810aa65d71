// Embedding tables in this process: the reference for those on parameter servers. Same initial values, same rules.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "worker/train/wide_deep.h"

namespace basin {

class LocalTable final {
 public:
  // REQUIRES: the declaration's rule and initializer are valid.
  explicit LocalTable(TableDecl declared) : declared_(std::move(declared)) {}

  const TableDecl& declared() const { return declared_; }
  uint64_t rows() const { return index_.size(); }
  // rows: [keys, dim]. A key without a row: its initial value.
  void Pull(absl::Span<const uint64_t> keys, float* rows) const;
  // Applies the rule to each key's row, which is made where it is not there. A key that stands twice is applied twice.
  void Push(absl::Span<const uint64_t> keys, const float* gradients, float learning_rate);
  // Makes the row, or sets it; its slots start afresh.
  void Assign(uint64_t key, absl::Span<const float> row);

 private:
  size_t stride() const;
  // Place in blocks_ of the key's block, made where it is not there.
  size_t BlockOf(uint64_t key);

  const TableDecl declared_;
  absl::flat_hash_map<uint64_t, size_t> index_;
  std::vector<float> blocks_;    // a row's embedding, then its slots, each of dim
  std::vector<uint64_t> steps_;  // by block: how often it was pushed
};

}  // namespace basin
