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
  if (bad && not_finite != nullptr) atomicExch(not_finite, 1u);
}

// The `head` first elements one by one, then four at once, from where both addresses allow that.
template <class Half>
__global__ void __launch_bounds__(kThreads)
    NarrowAll(const float* __restrict__ values, uint64_t head, uint64_t n, uint16_t* __restrict__ halves,
              uint32_t* __restrict__ not_finite) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  const uint64_t first = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  bool bad = false;
  for (uint64_t i = first; i < head; i += step) {
    halves[i] = Half::From(values[i]);
    bad = bad || IsBad<Half>(halves[i]);
  }
  const uint64_t fours = (n - head) / 4;
  for (uint64_t i = first; i < fours; i += step) {
    const float4 in = __ldcs(reinterpret_cast<const float4*>(values + head) + i);
    const ushort4 out = {Half::From(in.x), Half::From(in.y), Half::From(in.z), Half::From(in.w)};
    bad = bad || IsBad<Half>(out.x) || IsBad<Half>(out.y) || IsBad<Half>(out.z) || IsBad<Half>(out.w);
    reinterpret_cast<ushort4*>(halves + head)[i] = out;
  }
  const uint64_t rest = head + fours * 4 + first;
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

// What FindFirstUnfit reads: floats, or 16-bit numbers as they are.
template <class Half>
struct FromFloats {
  using One = float;
  using Four = float4;
  static __device__ bool IsUnfit(float value) { return IsBad<Half>(Half::From(value)); }
  static __device__ float ToFloat(float value) { return value; }
};
template <class Half>
struct FromHalves {
  using One = uint16_t;
  using Four = ushort4;
  static __device__ bool IsUnfit(uint16_t half) { return IsBad<Half>(half); }
  static __device__ float ToFloat(uint16_t half) { return Half::To(half); }
};

// As NarrowAll. Each thread's elements come in rising order, so the one that it finds is the least of its own.
template <class From>
__global__ void __launch_bounds__(kThreads)
    FindFirstUnfit(const typename From::One* __restrict__ values, uint64_t head, uint64_t n, Unfit* unfit) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  const uint64_t first = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  uint64_t found = Unfit::kNone;
  for (uint64_t i = first; i < head && found == Unfit::kNone; i += step) {
    if (From::IsUnfit(values[i])) found = i;
  }
  const uint64_t fours = (n - head) / 4;
  for (uint64_t i = first; i < fours && found == Unfit::kNone; i += step) {
    const typename From::Four in = __ldcs(reinterpret_cast<const typename From::Four*>(values + head) + i);
    const bool x = From::IsUnfit(in.x), y = From::IsUnfit(in.y), z = From::IsUnfit(in.z), w = From::IsUnfit(in.w);
    if (x || y || z || w) found = head + i * 4 + (x ? 0 : y ? 1 : z ? 2 : 3);
  }
  const uint64_t rest = head + fours * 4 + first;
  if (rest < n && found == Unfit::kNone && From::IsUnfit(values[rest])) found = rest;
  // Of the same width, and CUDA has it for that type.
  if (found != Unfit::kNone) atomicMin(reinterpret_cast<unsigned long long*>(&unfit->element), found);
}

// Once all blocks have found theirs.
template <class From>
__global__ void TakeValue(const typename From::One* __restrict__ values, Unfit* unfit) {
  unfit->value = unfit->element == Unfit::kNone ? 0.0f : From::ToFloat(values[unfit->element]);
}

unsigned BlocksFor(uint64_t n) {
  const uint64_t blocks = (n / 4 + kThreads) / kThreads;  // at least one, for the rest of at most three
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

// Elements before the first that stands where four can be read at once.
template <typename T>
uint64_t HeadOf(const T* at, uint64_t n) {
  const uint64_t head = (4 - reinterpret_cast<uintptr_t>(at) / sizeof(T) % 4) % 4;
  return head < n ? head : n;
}

template <class From>
cudaError_t StartFind(cudaStream_t stream, const void* values, uint64_t n, Unfit* unfit) {
  const auto* const at = static_cast<const typename From::One*>(values);
  static_assert(Unfit::kNone == ~uint64_t{0});  // as the bytes that are set here
  cudaError_t error = cudaMemsetAsync(unfit, 0xff, sizeof(Unfit), stream);
  if (error != cudaSuccess) return error;
  if (n > 0) error = Launch(FindFirstUnfit<From>, BlocksFor(n), kThreads, stream, at, HeadOf(at, n), n, unfit);
  if (error != cudaSuccess) return error;
  return Launch(TakeValue<From>, 1, 1, stream, at, unfit);
}

}  // namespace

cudaError_t StartNarrow(cudaStream_t stream, DType type, const float* values, uint64_t n, uint16_t* halves,
                        uint32_t* not_finite) {
  if (!IsHalf(type)) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  const uint64_t head = HeadOf(values, n);
  return Launch(type == DType::kF16 ? NarrowAll<Float16> : NarrowAll<Bfloat16>, BlocksFor(n), kThreads, stream, values,
                head == HeadOf(halves, n) ? head : n, n, halves, not_finite);
}

cudaError_t StartWiden(cudaStream_t stream, DType type, const uint16_t* halves, uint64_t n, float* values,
                       uint32_t* not_finite) {
  if (!IsHalf(type)) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  return Launch(type == DType::kF16 ? WidenAll<Float16> : WidenAll<Bfloat16>, BlocksFor(n), kThreads, stream, halves, n,
                values, not_finite);
}

cudaError_t StartFindUnfit(cudaStream_t stream, DType from, DType to, const void* values, uint64_t n, Unfit* unfit) {
  if (!IsHalf(to) || (from != DType::kF32 && from != to)) return cudaErrorInvalidValue;
  const bool rounds = from == DType::kF32;
  if (to == DType::kF16) {
    return (rounds ? StartFind<FromFloats<Float16>> : StartFind<FromHalves<Float16>>)(stream, values, n, unfit);
  }
  return (rounds ? StartFind<FromFloats<Bfloat16>> : StartFind<FromHalves<Bfloat16>>)(stream, values, n, unfit);
}

}  // namespace basin
