// Gradients in device memory to 16 bits: the twin of Narrow. All addresses are multiples of their elements' size, in
// device memory or in host memory that the device maps, and overlap nothing.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "common/base/dtype.h"
#include "common/codec/half.h"

namespace basin {

// Starts the kernel: n elements of `type` (kF16 or kBF16) at `halves`, with the bits of the host's Narrow, and where
// one of them is not finite *not_finite becomes 1. It is never set to 0 here, so that one flag serves a whole push;
// nullptr: nobody asks. Four elements are read and written at once where halves / 2 and values / 4 leave the same rest
// on division by 4, and one where they do not.
cudaError_t StartNarrow(cudaStream_t stream, DType type, const float* values, uint64_t n, uint16_t* halves,
                        uint32_t* not_finite);
// Exact, the other way: for shards in device memory whose gradients come in 16 bits. Values are aligned to 16 bytes,
// halves to 8; *not_finite becomes 1 where an element is NaN or infinite.
cudaError_t StartWiden(cudaStream_t stream, DType type, const uint16_t* halves, uint64_t n, float* values,
                       uint32_t* not_finite);

// Writes what the host's FindUnfit returns to *unfit: the first of n elements of `from`, kF32 or `to`, that `to` (kF16
// or kBF16) cannot hold.
cudaError_t StartFindUnfit(cudaStream_t stream, DType from, DType to, const void* values, uint64_t n, Unfit* unfit);

}  // namespace basin
