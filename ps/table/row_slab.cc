#include "ps/table/row_slab.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/base/status_macros.h"

namespace basin {

RowSlab::RowSlab(size_t row_bytes, TableMemory* memory) : row_bytes_(row_bytes), memory_(memory) {
  BASIN_CHECK(row_bytes >= sizeof(uint32_t));
  size_t piece_bytes = size_t{64} << 10;
  if (memory->max_bytes() != 0) piece_bytes = std::min(piece_bytes, memory->max_bytes() / 16);
  const size_t rows = std::bit_floor(std::max<size_t>(1, piece_bytes / row_bytes));
  shift_ = static_cast<uint32_t>(std::countr_zero(rows));
  mask_ = static_cast<uint32_t>(rows - 1);
}

std::optional<uint32_t> RowSlab::Take() {
  if (first_free_ != kNone) {
    const uint32_t row = first_free_;
    std::memcpy(&first_free_, At(row), sizeof(first_free_));
    return row;
  }
  if (used_ == pieces_.size() << shift_ && !Grow()) return std::nullopt;
  return used_++;
}

void RowSlab::Free(uint32_t row) {
  std::memcpy(At(row), &first_free_, sizeof(first_free_));
  first_free_ = row;
}

bool RowSlab::Grow() {
  if (refused_) return false;
  const size_t piece_bytes = row_bytes_ << shift_;
  for (size_t count = PiecesToTake(pieces_.size(), piece_bytes); count > 0; count /= 2) {
    if (((pieces_.size() + count) << shift_) > kMostRows) continue;
    BlockRef block = memory_->Take(count * piece_bytes);
    if (!block) continue;
    char* data = reinterpret_cast<char*>(block.mutable_floats());
    for (size_t i = 0; i < count; ++i) pieces_.push_back(data + i * piece_bytes);
    blocks_.push_back(std::move(block));
    return true;
  }
  refused_ = true;
  return false;
}

}  // namespace basin
