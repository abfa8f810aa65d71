// Some different keys of a batch that stand together in it, as part of a piece that goes through a lane's block: a
// lane's buckets are not neighbours, so such a piece has many. For host and device.
#pragma once

#include <cstdint>

namespace basin {

// The batch's keys [first, first + keys) are rows [row, row + keys) of the piece.
struct RowsSpan {
  uint32_t first = 0, keys = 0, row = 0;
};

}  // namespace basin
