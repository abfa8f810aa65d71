// The naive steps of the ladders, and what fills memory for all of them: the first kernel that one would write, one
// thread an element or a key, without a thought for how memory is read. For comparison alone.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/base/random.h"
#include "common/rules/cuda_apply.h"
#include "ps/table/device/cuda_table_kernels.h"

namespace basin {

// Element i of stream `seed`: in [low, low + 1).
constexpr float SampleAt(uint64_t seed, uint64_t i, float low) { return low + static_cast<float>(UnitAt(seed, i)); }
// Key i of the table ladder: all different.
constexpr uint64_t TableKeyAt(uint64_t i) { return Mix64(i); }
// Key i of a batch of keys from [0, rows), each as likely as the others.
constexpr uint64_t FoundKeyAt(uint64_t seed, uint64_t i, uint64_t rows) { return TableKeyAt(RandomAt(seed, i) % rows); }

cudaError_t StartFillSamples(cudaStream_t stream, uint64_t seed, float low, uint64_t count, float* out);
cudaError_t StartFillTableKeys(cudaStream_t stream, uint64_t first, uint64_t count, uint64_t* keys);
cudaError_t StartFillFoundKeys(cudaStream_t stream, uint64_t seed, uint64_t rows, uint64_t count, uint64_t* keys);

// A pass that looks for a gradient that is not finite, then one that applies. Only what this ladder has: sgd, momentum,
// adagrad, adam.
cudaError_t StartNaiveApply(cudaStream_t stream, const CudaApplyItem& item, uint32_t* not_finite);
// Clears the sums, then each element of each gradient is added to them atomically, in whatever order.
cudaError_t StartNaiveMerge(cudaStream_t stream, const uint32_t* key_of_place, uint64_t places, uint32_t keys,
                            const float* gradients, uint32_t dim, float* sums);
// One thread a key: it looks at one key after another, then copies the row. Rows in float32, none of them missing.
cudaError_t StartNaivePull(cudaStream_t stream, const CudaKeyIndex& index, const CudaRowStart& start,
                           const uint64_t* keys, uint64_t count, float* rows);

}  // namespace basin
