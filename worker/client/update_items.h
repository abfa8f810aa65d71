// What a call moves, and the pieces of that whose bytes come and go by themselves, since they lie in a device's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/base/dtype.h"
#include "common/base/ids.h"
#include "worker/client/row_batch.h"
#include "worker/client/rows_span.h"

namespace basin {

// One variable of an update. Buffers are of the whole variable, and lent until the call is done.
struct UpdateItem {
  VariableId variable;
  absl::Span<const char> push;
  absl::Span<const char> assign;
  absl::Span<char> pull;
  DType push_dtype = DType::kF32;  // of `push`: the variable's, or kF16 or kBF16 for a float32 variable
  // Of memory that is not the host's: only its size is looked at. The bytes come and go by pieces, see OnPiece.
  bool writes_by_pieces = false;  // push or assign
  bool pulls_by_pieces = false;
  // Waits for OnPiece though all of it is the host's: it is not known yet whether the call is sent at all.
  bool held = false;

  bool by_pieces() const { return writes_by_pieces || pulls_by_pieces || held; }
};

// Shards [first, end) of one item of an update, which lie one behind the other: elements [begin, begin + elements) of
// the variable, at most kMaxShardBytes of what is written and of what is pulled.
struct UpdatePiece {
  size_t item = 0;
  ShardId first, end;
  uint64_t begin = 0, elements = 0;
  size_t written_size = 0, pulled_size = 0;  // bytes of an element as it is sent and as it comes; 0: not by pieces
  uint32_t channel = 0;                      // of the first shard
  bool whole = false;                        // all that its entries carry, both ways, is by pieces

  uint32_t shards() const { return end.value() - first.value(); }
  uint64_t written_bytes() const { return elements * written_size; }
  uint64_t pulled_bytes() const { return elements * pulled_size; }
};

// Rows of one table. Keys and bags are the caller's again when StartRows returns; `push` and `pull` are lent until the
// call is done. Both have a row a key, or a bag.
struct RowsItem {
  uint32_t table = 0;
  absl::Span<const uint64_t> keys;
  RowBags bags;
  const float* push = nullptr;
  float* pull = nullptr;
  // Of memory that is not the host's: what is looked at are the bags, and whether there is a push and a pull. Different
  // keys and the sums of their gradients come by pieces, see CutRows.
  bool by_pieces = false;
};

// Some different keys of one by_pieces item of a call, with their sums and the rows that are pulled: some whole entries
// (MostKeysOfEntry), of at most kMaxRowsBytes together, keys included. They are keys [first, first + keys), or, of a
// piece whose rows go through a lane's block, those of spans [first_entry, first_entry + entries) of its part.
struct RowsPiece {
  size_t item = 0;
  size_t part = 0;      // the item among those by_pieces
  uint32_t number = 0;  // in the call
  bool is_placed = false;
  uint32_t channel = 0;  // of a placed one
  uint32_t first = 0, keys = 0;
  size_t first_entry = 0, entries = 0;
  size_t sum_bytes = 0, pulled_bytes = 0;

  size_t key_bytes() const { return keys * sizeof(uint64_t); }
};

// In the order of their numbers.
struct RowsCut {
  std::vector<RowsPiece> pieces;
  std::vector<std::vector<RowsSpan>> spans;  // by part: of its placed pieces, one behind the other
};

}  // namespace basin
