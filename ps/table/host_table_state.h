// What a table consists of, and the steps of a push that are rare: rows that are made, keys that wait, evictions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "common/rules/rows.h"
#include "ps/table/evicted_log.h"
#include "ps/table/key_index.h"
#include "ps/table/row_slab.h"
#include "ps/table/host_table.h"
#include "ps/table/stamp_clock.h"
#include "ps/table/table_memory.h"

namespace basin {

struct HostTable::State {
  State(StoredTableOptions given, std::shared_ptr<BlockPool> pool);

  // The row of a key that had none when it was looked up, made if the key is admitted and there is room, or else null:
  // its gradient is to be dropped, and is counted.
  char* RowForPush(uint64_t hash, uint64_t key, uint32_t stamp);
  // The key's initial values, as a row would store them, to `out`, which need not be aligned.
  void InitialValues(uint64_t key, char* out);
  void Account() { memory.set_beside(index.beside_bytes() + rows.beside_bytes()); }

  bool Admits(uint64_t key, uint32_t count, bool remembered) const;
  std::optional<uint32_t> TakeRow(uint64_t hash);
  // Room in the index for one more entry of this hash. False only where there is no memory at all.
  bool MakeRoom(uint64_t hash);
  void EvictRows(uint32_t segment);
  // Frees the rows of what `evicted` lists.
  void Forget();
  bool TooManyCandidates() const;

  const StoredTableOptions options;
  const RowRule rule;
  TableMemory memory;
  KeyIndex index;
  RowSlab rows;
  EvictedLog log;
  uint64_t dropped = 0;
  StampClock clock;
  uint64_t calls = 0;
  // EvictUnused: the next segment to look at, 0 between two rounds; and when a round may begin.
  uint32_t next_segment = 0;
  absl::Time next_round = absl::InfinitePast();
  // Kept for their memory.
  std::vector<KeyIndex::Evicted> evicted;
  std::vector<float> values;
  std::vector<float> widened;  // gradients that came in 16 bits, of one block of keys
};

}  // namespace basin
