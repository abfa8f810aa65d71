#include "common/codec/half_math.h"
#include "common/device/cuda_launch.h"
#include "ps/device/placed_gradients.h"

namespace basin {
namespace {

constexpr unsigned kThreads = 256;
constexpr uint32_t kEach = 8;  // elements a thread and chunk, so many loads under way
constexpr uint32_t kChunk = kThreads * kEach;

struct AsFloat {
  using Number = float;
  static __device__ float To(float value) { return value; }
};
template <class Half>
struct AsHalf {
  using Number = uint16_t;
  static __device__ float To(uint16_t half) { return Half::To(half); }
};

// The last entry whose first chunk is at or before `chunk`.
__device__ uint32_t EntryOf(const PlacedGradients* entries, uint32_t count, uint32_t chunk) {
  uint32_t low = 0, high = count;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    if (entries[middle].first_chunk <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Each element is read once. Returns the first of this thread's that is not finite, or kAllFinite.
template <class As>
__device__ uint32_t Take(const PlacedGradients& entry, uint32_t begin) {
  const auto* from = static_cast<const typename As::Number*>(entry.from);
  uint32_t found = kAllFinite;
#pragma unroll
  for (uint32_t i = 0; i < kEach; ++i) {
    const uint32_t at = begin + i * kThreads + threadIdx.x;
    if (at >= entry.elements) break;
    const float value = As::To(__ldcs(from + at));
    entry.to[at] = value;
    if (!isfinite(value) && found == kAllFinite) found = at;
  }
  return found;
}

// A block has one chunk.
__global__ void __launch_bounds__(kThreads)
    TakeGradients(const PlacedGradients* __restrict__ entries, uint32_t count, uint32_t* __restrict__ not_finite) {
  const uint32_t index = EntryOf(entries, count, blockIdx.x);
  const PlacedGradients entry = entries[index];
  const uint32_t begin = (blockIdx.x - entry.first_chunk) * kChunk;
  const uint32_t found = entry.type == DType::kF32   ? Take<AsFloat>(entry, begin)
                         : entry.type == DType::kF16 ? Take<AsHalf<half::Float16>>(entry, begin)
                                                     : Take<AsHalf<half::Bfloat16>>(entry, begin);
  if (found == kAllFinite) return;
  atomicMin(not_finite + index, found);  // seldom
  atomicExch(not_finite + count, 0u);
}

}  // namespace

uint32_t CountChunks(PlacedGradients* entries, uint32_t count) {
  uint32_t chunks = 0;
  for (uint32_t i = 0; i < count; ++i) {
    entries[i].first_chunk = chunks;
    chunks += (entries[i].elements + kChunk - 1) / kChunk;
  }
  return chunks;
}

cudaError_t StartTakeGradients(cudaStream_t stream, const PlacedGradients* entries, uint32_t count, uint32_t chunks,
                               uint32_t* not_finite) {
  if (count == 0) return cudaSuccess;
  static_assert(kAllFinite == ~uint32_t{0}, "is set byte by byte");
  const cudaError_t cleared = cudaMemsetAsync(not_finite, 0xff, (count + size_t{1}) * sizeof(uint32_t), stream);
  if (cleared != cudaSuccess) return cleared;
  return Launch(TakeGradients, chunks, kThreads, stream, entries, count, not_finite);
}

}  // namespace basin
