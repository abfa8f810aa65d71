// The kernels that take what a batch of rows has become on a device to the host: pieces as messages have them, and what
// is wrong with a sum.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/base/dtype.h"
#include "common/codec/half.h"
#include "worker/client/rows_span.h"

namespace basin {

// Keys [first, first + count) of a sorted batch (common/device/cuda_row_batch), all in device memory. A bucket's keys
// are cut into entries of `most`, and a piece is some whole entries.
struct RowPieceThere {
  const uint64_t* keys = nullptr;          // of the whole batch
  const uint32_t* bucket_begin = nullptr;  // likewise
  uint32_t bucket_bits = 0, most = 0;
  uint32_t first = 0, count = 0;
};

// Writes the piece as a message has it: of each entry its keys, 8 bytes each, then its rows of `sums`, [key_count, dim]
// floats, as numbers of `type` (kF32, kF16, kBF16) with the bits of Narrow. sums null: keys alone. `out` is aligned to
// 8 bytes.
cudaError_t StartPackRows(cudaStream_t stream, const RowPieceThere& piece, const float* sums, uint32_t dim, DType type,
                          char* out);

// Spans of a sorted batch, all in device memory: as many rows as the last one ends with.
struct RowSpansThere {
  const RowsSpan* spans = nullptr;
  uint32_t count = 0, rows = 0;
};

// Of each row of the spans: its key to keys_to, and its row of `sums`, as StartPackRows has it, to rows_to. sums null:
// keys alone.
cudaError_t StartPlaceRows(cudaStream_t stream, const RowSpansThere& spans, const uint64_t* keys, const float* sums,
                           uint32_t dim, DType type, uint64_t* keys_to, void* rows_to);
// The other way: rows of the spans, [rows, dim], to those of their keys.
cudaError_t StartTakeRows(cudaStream_t stream, const RowSpansThere& spans, const float* from, uint32_t dim,
                          float* rows);

struct UnfitSum {
  Unfit unfit;       // among the sums
  uint64_t key = 0;  // of that row; any, where there is none
};
// Completes *found, whose `unfit` StartFindUnfit has written where `not_finite` is null. Otherwise it is the first
// number that is not finite of the row *not_finite, which may be `none`.
cudaError_t StartNameUnfit(cudaStream_t stream, const uint64_t* keys, const float* sums, uint32_t dim,
                           const uint32_t* not_finite, uint32_t none, UnfitSum* found);

}  // namespace basin
