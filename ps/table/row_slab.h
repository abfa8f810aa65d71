// Rows of one size, numbered from 0, in blocks of the lane's pool. A row keeps its number and its address until it is
// freed; a freed one is taken again first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "ps/block.h"
#include "ps/table/table_memory.h"

namespace basin {

class RowSlab final {
 public:
  // REQUIRES: row_bytes >= 4. `memory` outlives the slab.
  RowSlab(size_t row_bytes, TableMemory* memory);

  // A row with unknown content; nothing where there is no memory for one.
  std::optional<uint32_t> Take();
  // REQUIRES: the row is taken.
  void Free(uint32_t row);
  char* At(uint32_t row) const { return view().At(row); }
  // For loops: what it takes to find rows, in registers, until a row is taken.
  struct View {
    char* const* pieces;
    size_t row_bytes;
    uint32_t shift;
    uint32_t mask;
    bool any() const { return pieces != nullptr; }  // whether row 0 has an address
    char* At(uint32_t row) const { return pieces[row >> shift] + (row & mask) * row_bytes; }
  };
  View view() const { return {pieces_.data(), row_bytes_, shift_, mask_}; }
  // A try for memory that failed is not repeated before this.
  void TryAgain() { refused_ = false; }
  size_t beside_bytes() const { return pieces_.capacity() * sizeof(char*) + blocks_.capacity() * sizeof(BlockRef); }

 private:
  bool Grow();

  static constexpr uint32_t kNone = 0xffffffffu;
  static constexpr uint32_t kMostRows = (1u << 31) - 2;  // a row's number and a mark share 32 bits in the index
  const size_t row_bytes_;
  TableMemory* const memory_;
  // A piece has 2^shift_ rows, so that a row's address needs no division; a block holds one or many pieces.
  uint32_t shift_ = 0;
  uint32_t mask_ = 0;
  std::vector<char*> pieces_;
  std::vector<BlockRef> blocks_;
  uint32_t used_ = 0;            // rows ever taken: the next fresh one
  uint32_t first_free_ = kNone;  // a list through the rows themselves
  bool refused_ = false;
};

}  // namespace basin
