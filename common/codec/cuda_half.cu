#include "common/codec/cuda_half.h"
#include "common/codec/half.h"
#include "common/codec/half_math.h"
#include "common/device/cuda_launch.h"

namespace basin {
namespace {

using half::Bfloat16;
using half::Float16;

constexpr unsigned kThreads = 256;
// Some blocks a multiprocessor, whose threads take groups of four elements in turn.
constexpr unsigned kMostBlocks = 132 * 16;

template <class Half>
__device__ bool IsBad(uint16_t half) {
  return (half & Half::kExponent) == Half::kExponent;
}

// Seldom: many blocks may do it at once.
__device__ void Note(bool bad, uint32_t* not_finite) {
  if (bad) atomicExch(not_finite, 1u);
}

template <class Half>
__global__ void __launch_bounds__(kThreads)
    NarrowAll(const float* __restrict__ values, uint64_t n, uint16_t* __restrict__ halves,
              uint32_t* __restrict__ not_finite) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  const uint64_t first = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  bool bad = false;
  for (uint64_t i = first; i < n / 4; i += step) {
    const float4 in = __ldcs(reinterpret_cast<const float4*>(values) + i);
    const ushort4 out = {Half::From(in.x), Half::From(in.y), Half::From(in.z), Half::From(in.w)};
    bad = bad || IsBad<Half>(out.x) || IsBad<Half>(out.y) || IsBad<Half>(out.z) || IsBad<Half>(out.w);
    reinterpret_cast<ushort4*>(halves)[i] = out;
  }
  const uint64_t rest = n / 4 * 4 + first;
  if (rest < n) {
    halves[rest] = Half::From(values[rest]);
    bad = bad || IsBad<Half>(halves[rest]);
  }
  Note(bad, not_finite);
}

template <class Half>
__global__ void __launch_bounds__(kThreads) WidenAll(const uint16_t* __restrict__ halves, uint64_t n,
                                                     float* __restrict__ values, uint32_t* __restrict__ not_finite) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  const uint64_t first = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  bool bad = false;
  for (uint64_t i = first; i < n / 4; i += step) {
    const ushort4 in = __ldcs(reinterpret_cast<const ushort4*>(halves) + i);
    bad = bad || IsBad<Half>(in.x) || IsBad<Half>(in.y) || IsBad<Half>(in.z) || IsBad<Half>(in.w);
    reinterpret_cast<float4*>(values)[i] = {Half::To(in.x), Half::To(in.y), Half::To(in.z), Half::To(in.w)};
  }
  const uint64_t rest = n / 4 * 4 + first;
  if (rest < n) {
    values[rest] = Half::To(halves[rest]);
    bad = bad || IsBad<Half>(halves[rest]);
  }
  Note(bad, not_finite);
}

unsigned BlocksFor(uint64_t n) {
  const uint64_t blocks = (n / 4 + kThreads) / kThreads;  // at least one, for the rest of at most three
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

}  // namespace

cudaError_t StartNarrow(cudaStream_t stream, DType type, const float* values, uint64_t n, uint16_t* halves,
                        uint32_t* not_finite) {
  if (!IsHalf(type)) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  return Launch(type == DType::kF16 ? NarrowAll<Float16> : NarrowAll<Bfloat16>, BlocksFor(n), kThreads, stream, values,
                n, halves, not_finite);
}

cudaError_t StartWiden(cudaStream_t stream, DType type, const uint16_t* halves, uint64_t n, float* values,
                       uint32_t* not_finite) {
  if (!IsHalf(type)) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  return Launch(type == DType::kF16 ? WidenAll<Float16> : WidenAll<Bfloat16>, BlocksFor(n), kThreads, stream, halves, n,
                values, not_finite);
}

}  // namespace basin
