#include "ps/table/table_memory.h"

namespace basin {

BlockRef TableMemory::Take(size_t bytes) {
  const size_t footprint = BlockPool::Footprint(bytes);
  if (max_bytes_ != 0 && footprint + this->bytes() > max_bytes_) return BlockRef();
  BlockRef block;
  if (pool_->Plan(footprint)) {
    block = pool_->Allocate(bytes);
    if (block) {
      planned_ += footprint;
      return block;
    }
    pool_->Unplan(footprint);
  }
  // Others have the rest. It may be more again, one day; but until then this is the bound.
  limit_ = this->bytes() + footprint;
  return block;
}

}  // namespace basin
