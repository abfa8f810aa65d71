// How kernels read and write rows in device memory. For device code alone.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/rules/row_storage.h"

namespace basin {

// Sixteen neighbouring threads of a warp have one row at a time.
inline constexpr uint32_t kTile = 16;
struct Tile {
  uint64_t first, step;  // rows that it has
  uint32_t lane;
  unsigned mask;  // of its threads in the warp
};
__device__ inline Tile ThisTile() {
  const uint64_t thread = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  return {thread / kTile, uint64_t{gridDim.x} * blockDim.x / kTile, static_cast<uint32_t>(thread % kTile),
          0xffffu << (threadIdx.x % 32 / kTile * kTile)};
}

template <int kWidth>
__device__ inline void LoadFloats(const float* from, float* values) {
  if constexpr (kWidth == 4) {
    const float4 loaded = *reinterpret_cast<const float4*>(from);
    values[0] = loaded.x, values[1] = loaded.y, values[2] = loaded.z, values[3] = loaded.w;
  } else {
    values[0] = *from;
  }
}
// By an intrinsic: nvcc makes four stores of an assignment where it does not see that they are neighbours.
template <int kWidth>
__device__ inline void StoreFloats(float* to, const float* values) {
  if constexpr (kWidth == 4) {
    __stwb(reinterpret_cast<float4*>(to), {values[0], values[1], values[2], values[3]});
  } else {
    *to = values[0];
  }
}

// Elements [first, first + kWidth) of a row in Storage (row_storage.h), as floats.
template <class Storage, int kWidth>
__device__ inline void LoadValues(const char* row, uint32_t first, float* values) {
  if constexpr (Storage::kBytes == 4) {
    LoadFloats<kWidth>(reinterpret_cast<const float*>(row) + first, values);
  } else {
    const auto* at = reinterpret_cast<const uint16_t*>(row) + first;
    uint16_t stored[kWidth];
    if constexpr (kWidth == 4) {
      const ushort4 loaded = *reinterpret_cast<const ushort4*>(at);
      stored[0] = loaded.x, stored[1] = loaded.y, stored[2] = loaded.z, stored[3] = loaded.w;
    } else {
      stored[0] = *at;
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] = Storage::FromStored(stored[i]);
  }
}
// `rounding`: gives 16 random bits for an element's index.
template <class Storage, int kWidth, class Rounding>
__device__ inline void StoreValues(char* row, uint32_t first, const float* values, const Rounding& rounding) {
  if constexpr (Storage::kBytes == 4) {
    StoreFloats<kWidth>(reinterpret_cast<float*>(row) + first, values);
  } else {
    auto* at = reinterpret_cast<uint16_t*>(row) + first;
    uint16_t stored[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) stored[i] = Storage::ToStored(values[i], rounding(first + i));
    if constexpr (kWidth == 4) {
      __stwb(reinterpret_cast<ushort4*>(at), {stored[0], stored[1], stored[2], stored[3]});
    } else {
      *at = stored[0];
    }
  }
}

}  // namespace basin
