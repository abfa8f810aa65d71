#include "worker/train/local_tables.h"

#include <utility>

#include "common/base/status_macros.h"

namespace basin {

LocalTable::LocalTable(TableDecl declared)
    : declared_(std::move(declared)), rule_(declared_.rule, DType::kF32, declared_.dim) {}

void LocalTable::FillInitial(uint64_t key, float* values) const {
  FillRow(declared_.init, key, absl::MakeSpan(values, declared_.dim));
}

void LocalTable::Pull(absl::Span<const uint64_t> keys, float* rows) const {
  for (const uint64_t key : keys) {
    const auto found = index_.find(key);
    if (found == index_.end()) {
      FillInitial(key, rows);
    } else {
      const char* const row = rows_.data() + found->second;
      char* const out = reinterpret_cast<char*>(rows);
      rule_.Read(1, &row, &out);
    }
    rows += declared_.dim;
  }
}

void LocalTable::Push(absl::Span<const uint64_t> keys, const float* gradients, float learning_rate) {
  for (const uint64_t key : keys) {
    char* const row = RowOf(key);
    const char* const gradient = reinterpret_cast<const char*>(gradients);
    rule_.Apply(learning_rate, 1, &row, &gradient, &key);
    gradients += declared_.dim;
  }
}

void LocalTable::Assign(uint64_t key, absl::Span<const float> row) {
  BASIN_CHECK(row.size() == declared_.dim);
  rule_.Start(row.data(), RowOf(key));
}

char* LocalTable::RowOf(uint64_t key) {
  const auto [found, added] = index_.try_emplace(key, rows_.size());
  if (added) {
    rows_.resize(rows_.size() + rule_.row_bytes());
    std::vector<float> values(declared_.dim);
    FillInitial(key, values.data());
    rule_.Start(values.data(), rows_.data() + found->second);
  }
  return rows_.data() + found->second;
}

}  // namespace basin
