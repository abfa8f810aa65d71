// Elements of rows in memory: float32 as it is, the 16-bit types through storage_math.h. For the loops of rows.cc and
// the kernels of cuda_rows.cu.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/rules/storage_math.h"

// Part of every loop or kernel that calls it, and compiled for that loop's machine.
#if defined(__CUDACC__)
#define BASIN_INLINE __host__ __device__ __forceinline__
#else
#define BASIN_INLINE __attribute__((always_inline)) inline
#endif

namespace basin::row_storage {

template <class T>
BASIN_INLINE T Load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}
template <class T>
BASIN_INLINE void Store(char* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

// Element i of a row: to float, and back with the row's random numbers.
struct F32 {
  static constexpr size_t kBytes = 4;
  BASIN_INLINE static float From(const char* row, size_t i) { return Load<float>(row + 4 * i); }
  BASIN_INLINE static void To(char* row, size_t i, float value, uint32_t) { Store(row + 4 * i, value); }
};
struct F16 {
  static constexpr size_t kBytes = 2;
  BASIN_INLINE static float FromStored(uint16_t stored) { return FromF16(stored); }
  BASIN_INLINE static uint16_t ToStored(float value, uint32_t random) { return ToF16(value, random); }
  BASIN_INLINE static float From(const char* row, size_t i) { return FromF16(Load<uint16_t>(row + 2 * i)); }
  BASIN_INLINE static void To(char* row, size_t i, float value, uint32_t seed) {
    Store(row + 2 * i, ToF16(value, RoundingBits(seed, i)));
  }
};
struct Bf16 {
  static constexpr size_t kBytes = 2;
  BASIN_INLINE static float FromStored(uint16_t stored) { return FromBf16(stored); }
  BASIN_INLINE static uint16_t ToStored(float value, uint32_t random) { return ToBf16(value, random); }
  BASIN_INLINE static float From(const char* row, size_t i) { return FromBf16(Load<uint16_t>(row + 2 * i)); }
  BASIN_INLINE static void To(char* row, size_t i, float value, uint32_t seed) {
    Store(row + 2 * i, ToBf16(value, RoundingBits(seed, i)));
  }
};

}  // namespace basin::row_storage
