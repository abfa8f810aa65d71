#include "worker/train/local_tables.h"

#include <algorithm>

#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "common/rules/apply.h"

namespace basin {
namespace {

void FillRow(const InitSpec& init, uint64_t key, absl::Span<float> row) {
  InitSpec of_key = init;
  of_key.seed = RandomAt(init.seed, key);
  Fill(of_key, Fans{}, 0, row);
}

}  // namespace

size_t LocalTable::stride() const { return declared_.dim * (1 + static_cast<size_t>(SlotCount(declared_.rule.kind))); }

void LocalTable::Pull(absl::Span<const uint64_t> keys, float* rows) const {
  for (const uint64_t key : keys) {
    const auto found = index_.find(key);
    if (found == index_.end()) {
      FillRow(declared_.init, key, absl::MakeSpan(rows, declared_.dim));
    } else {
      std::copy_n(blocks_.data() + found->second, declared_.dim, rows);
    }
    rows += declared_.dim;
  }
}

void LocalTable::Push(absl::Span<const uint64_t> keys, const float* gradients, float learning_rate) {
  const size_t dim = declared_.dim;
  for (const uint64_t key : keys) {
    const size_t at = BlockOf(key);
    float* block = blocks_.data() + at;
    ApplyArguments apply;
    apply.gradient = absl::MakeConstSpan(gradients, dim);
    apply.parameters_in = absl::MakeConstSpan(block, dim);
    apply.parameters_out = absl::MakeSpan(block, dim);
    for (int slot = 0; slot < SlotCount(declared_.rule.kind); ++slot) {
      float* of_slot = block + (1 + static_cast<size_t>(slot)) * dim;
      apply.slots_in[slot] = absl::MakeConstSpan(of_slot, dim);
      apply.slots_out[slot] = absl::MakeSpan(of_slot, dim);
    }
    apply.step = ++steps_[at / stride()];
    apply.learning_rate = learning_rate;
    Apply(declared_.rule, apply);
    gradients += dim;
  }
}

void LocalTable::Assign(uint64_t key, absl::Span<const float> row) {
  BASIN_CHECK(row.size() == declared_.dim);
  std::copy(row.begin(), row.end(), blocks_.begin() + static_cast<ptrdiff_t>(BlockOf(key)));
}

size_t LocalTable::BlockOf(uint64_t key) {
  const auto [found, added] = index_.try_emplace(key, blocks_.size());
  if (!added) return found->second;
  const size_t begin = blocks_.size(), dim = declared_.dim;
  blocks_.resize(begin + stride());
  steps_.push_back(0);
  FillRow(declared_.init, key, absl::MakeSpan(blocks_).subspan(begin, dim));
  for (int slot = 0; slot < SlotCount(declared_.rule.kind); ++slot) {
    std::fill_n(blocks_.begin() + static_cast<ptrdiff_t>(begin + (1 + static_cast<size_t>(slot)) * dim), dim,
                SlotInitialValue(declared_.rule, slot));
  }
  return begin;
}

}  // namespace basin
