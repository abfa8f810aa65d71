// Up to 64 keys of a call on their way through the index: first their lines are fetched, then their rows.
//
//   Load     hashes; where each key's line is; asks for the lines
//   Find     reads the lines; asks for the rows
//
// Between the two of one block there is the work on another, so that neither waits for memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ps/table/key_index.h"
#include "ps/table/row_slab.h"

namespace basin {

struct KeyBlock {
  static constexpr size_t kKeys = 64;

  size_t size = 0;
  uint64_t keys[kKeys];
  uint64_t hashes[kKeys];
  KeyIndex::Line* lines[kKeys];
  uint64_t layout = 0;  // of the index, when the lines were looked up

  // Keys [begin, n) of a message, as many as a block takes.
  void Load(const KeyIndex& index, const char* all_keys, size_t begin, size_t n);
  // Again, should the index have been laid out anew.
  void Refresh(const KeyIndex& index);
};

// What was found of a block: rows, in the order of their keys but for those that were not in the first line looked at,
// which stand behind the others; and keys without a row. A key that stands twice keeps its order.
struct FoundRows {
  size_t rows_found = 0;
  char* rows[KeyBlock::kKeys + 1];
  uint8_t places[KeyBlock::kKeys + 1];  // the row's key is the block's keys[place]
  size_t without_row = 0;
  uint8_t places_without[KeyBlock::kKeys + 1];
};

// Asks for the first lines of each row as well. `stamp` is set as the last push of keys that are found; FindOnly leaves
// it as it is.
void FindAndStamp(KeyIndex& index, const RowSlab& slab, const KeyBlock& block, size_t row_bytes, uint32_t stamp,
                  FoundRows* found);
void FindOnly(KeyIndex& index, const RowSlab& slab, const KeyBlock& block, size_t row_bytes, FoundRows* found);

}  // namespace basin
