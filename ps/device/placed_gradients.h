// Gradients of rows that lie in blocks lent to clients: one kernel for a batch of entries copies them into the lane's
// own memory, as floats, and looks at them in passing. What is applied is the copy, so that a client that writes
// meanwhile changes its own gradient, and no number that was not looked at is applied.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/base/dtype.h"

namespace basin {

// Of one entry. All pointers are to device memory, multiples of their elements' size.
struct PlacedGradients {
  const void* from = nullptr;  // numbers of `type`: kF32, kF16, kBF16
  float* to = nullptr;
  uint32_t elements = 0;     // at least one
  uint32_t first_chunk = 0;  // chunks of all entries before it: set by CountChunks
  DType type = DType::kF32;
};

// Sets first_chunk of each, and returns the chunks of all.
uint32_t CountChunks(PlacedGradients* entries, uint32_t count);

// All numbers of an entry, or of all, are finite.
inline constexpr uint32_t kAllFinite = 0xffffffff;

// `entries` and `not_finite` are in device memory. not_finite[i] becomes the first element of entry i that is NaN or
// infinite, or kAllFinite, and not_finite[count] kAllFinite where that is so of all, else 0.
cudaError_t StartTakeGradients(cudaStream_t stream, const PlacedGradients* entries, uint32_t count, uint32_t chunks,
                               uint32_t* not_finite);

}  // namespace basin
