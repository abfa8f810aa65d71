// The kernels of cuda_row_batch that move rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace basin {

// A sorted batch, all in device memory.
struct CudaSortedRows {
  uint64_t places = 0;
  uint32_t keys = 0;
  uint32_t piece = 0;                       // CudaRowBatch::kPiece
  const uint32_t* begin = nullptr;          // keys + 1: where the places of each begin
  const uint32_t* key_of_sorted = nullptr;  // by place in sorted order
  const uint32_t* sorted_places = nullptr;  // likewise: the place in the batch
  const uint32_t* key_of_place = nullptr;   // by place in the batch
  const uint32_t* bag_of_place = nullptr;   // likewise; null without bags
  const uint64_t* offsets = nullptr;        // of the bags
  uint64_t bags = 0;
  bool mean = false;
};

// Rows of floats that partial sums take.
inline uint64_t PartialRows(const CudaSortedRows& batch) { return (batch.places + batch.piece - 1) / batch.piece * 2; }

// As CudaRowBatch::SumGradients. `partials`: PartialRows(batch) rows, where a key stands more than `piece` times; null
// where none does. Four columns are read and written at once where dim is a multiple of 4 and all addresses are of 16.
cudaError_t StartSumRows(cudaStream_t stream, const CudaSortedRows& batch, const float* gradients, uint32_t dim,
                         float* partials, float* sums, uint32_t* not_finite);
cudaError_t StartScatterRows(cudaStream_t stream, const CudaSortedRows& batch, const float* rows, uint32_t dim,
                             float* places);
cudaError_t StartPoolRows(cudaStream_t stream, const CudaSortedRows& batch, const float* rows, uint32_t dim,
                          float* pooled);

}  // namespace basin
