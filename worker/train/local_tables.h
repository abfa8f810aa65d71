// Embedding tables in this process: the reference for those on parameter servers. Same initial values, same rules.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/rules/rows.h"
#include "worker/train/wide_deep.h"

namespace basin {

class LocalTable final {
 public:
  // REQUIRES: the declaration's rule and initializer are valid.
  explicit LocalTable(TableDecl declared);

  const TableDecl& declared() const { return declared_; }
  uint64_t rows() const { return index_.size(); }
  // rows: [keys, dim]. A key without a row: its initial value.
  void Pull(absl::Span<const uint64_t> keys, float* rows) const;
  // Applies the rule to each key's row, which is made where it is not there. A key that stands twice is applied twice.
  void Push(absl::Span<const uint64_t> keys, const float* gradients, float learning_rate);
  // Makes the row, or sets it; its slots start afresh.
  void Assign(uint64_t key, absl::Span<const float> row);

 private:
  // The key's row, made where it is not there. Valid until the next one is made.
  char* RowOf(uint64_t key);
  void FillInitial(uint64_t key, float* values) const;

  const TableDecl declared_;
  const RowRule rule_;
  absl::flat_hash_map<uint64_t, size_t> index_;  // key to place in rows_
  std::vector<char> rows_;                       // as the rule lays them out
};

}  // namespace basin
