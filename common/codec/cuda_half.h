// Gradients in device memory to 16 bits: the twin of Narrow.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/base/dtype.h"

namespace basin {

// Starts the kernel: n elements of `type` (kF16 or kBF16) at `halves`, with the bits of the host's Narrow, and where
// one of them is not finite *not_finite becomes 1. It is never set to 0 here, so that one flag serves a whole push. All
// are in device memory, or in host memory that the device maps, and overlap nothing; values are aligned to 16 bytes,
// halves to 8.
cudaError_t StartNarrow(cudaStream_t stream, DType type, const float* values, uint64_t n, uint16_t* halves,
                        uint32_t* not_finite);
// Exact, the other way: for shards in device memory whose gradients come in 16 bits. Alignment as above; *not_finite
// becomes 1 where an element is NaN or infinite.
cudaError_t StartWiden(cudaStream_t stream, DType type, const uint16_t* halves, uint64_t n, float* values,
                       uint32_t* not_finite);

}  // namespace basin
