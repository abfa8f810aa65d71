// What one table may take of its lane's pool, and what it has taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "ps/block.h"

namespace basin {

class TableMemory final {
 public:
  // `max_bytes`: 0 for none of its own.
  TableMemory(size_t max_bytes, std::shared_ptr<BlockPool> pool) : max_bytes_(max_bytes), pool_(std::move(pool)) {}
  ~TableMemory() { pool_->Unplan(planned_); }
  TableMemory(const TableMemory&) = delete;
  TableMemory& operator=(const TableMemory&) = delete;

  // A block of at least `bytes`, which nobody else holds; empty where the table's bound or the pool's limit is reached.
  // The bytes are planned as well, so that tables leave the dense shards what was promised to them.
  BlockRef Take(size_t bytes);

  // Of both, the last refusal included: what the table has to make do with. The largest size_t where nothing is known.
  size_t limit() const { return limit_; }
  size_t bytes() const { return planned_ + beside_; }
  // Memory that is the table's and not from the pool: directories.
  void set_beside(size_t bytes) { beside_ = bytes; }
  size_t max_bytes() const { return max_bytes_; }

 private:
  const size_t max_bytes_;
  const std::shared_ptr<BlockPool> pool_;
  size_t limit_ = max_bytes_ != 0             ? max_bytes_
                  : pool_->limit_bytes() != 0 ? pool_->limit_bytes()
                                              : std::numeric_limits<size_t>::max();
  size_t planned_ = 0;
  size_t beside_ = 0;
};

// How many pieces to take at once when there are `have`: an quarter more, and about 2 MiB at most. A table that is
// small stays small, a large one gets huge pages, and what it has taken and not used stays small beside what it uses.
inline size_t PiecesToTake(size_t have, size_t piece_bytes) {
  constexpr size_t kBlockBytes = size_t{2} << 20;
  const size_t most = (kBlockBytes + piece_bytes - 1) / piece_bytes;
  const size_t quarter = have / 4 + 1;
  return quarter < most ? quarter : most;
}

}  // namespace basin
