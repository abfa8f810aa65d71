// The rules on rows in device memory: the twin of RowRule::Apply.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/rules/cuda_row_layout.h"
#include "common/rules/rows.h"

namespace basin {

inline constexpr uint32_t kNoCudaRow = 0xffffffffu;
inline constexpr uint32_t kNoBadKey = 0xffffffffu;

// All pointers are to device memory.
struct CudaRowPush {
  uint64_t count = 0;
  const uint32_t* row_of = nullptr;   // kNoCudaRow: this gradient is dropped
  const uint64_t* keys = nullptr;     // for the rounding of 16-bit storage
  const float* gradients = nullptr;   // [count, dim]; aligned to 16 bytes where dim is a multiple of 4
  const uint32_t* bad_key = nullptr;  // null, or: nothing happens unless it is kNoBadKey
  char* rows = nullptr;               // row i at i * layout.stride
};

// Starts one kernel that applies the rule once to each row, with the bits of RowRule::Apply: nothing is contracted.
// (Adam past the steps that have a stored correction takes powers of the device's library, whose double may differ in
// the last bit.) `numbers`: RowRule::NumbersAt, its corrections in device memory. Does nothing where the rule is
// frozen. REQUIRES: each row stands once; with more, that row holds an unspecified mixture of their results. The
// gradients are finite, or *bad_key says otherwise.
cudaError_t StartApplyRows(cudaStream_t stream, const RowRule& rule, const CudaRowLayout& layout,
                           const RowNumbers& numbers, const CudaRowPush& push);

}  // namespace basin
