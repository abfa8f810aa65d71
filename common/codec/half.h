// Gradients in 16 bits: float16 and bfloat16, from float32 and back. Pure loops over memory that the caller owns, with
// the same bits on every machine. `type` is kF16 or kBF16 throughout; 16-bit elements lie at any address,
// little-endian.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/base/dtype.h"

namespace basin {

constexpr bool IsHalf(DType type) { return type == DType::kF16 || type == DType::kBF16; }

// Writes n elements of `type`, rounded to the nearest (ties to even); NaN stays NaN. Returns whether all that was
// written is finite: false for a NaN, an infinity, or a number that the type cannot hold.
bool Narrow(DType type, const float* values, size_t n, char* halves);
// Exact.
void Widen(DType type, const char* halves, size_t n, float* values);
// False if any element is NaN or infinite.
bool HalvesAreFinite(DType type, const char* halves, size_t n);

// An element of a gradient that 16 bits cannot hold: NaN, infinite, or too large.
struct Unfit {
  static constexpr uint64_t kNone = ~uint64_t{0};
  uint64_t element = kNone;
  float value = 0;  // any, where there is none
};
// The first of n elements of `from`, kF32 or `to`, that `to` cannot hold. Looks at one after another: for what is known
// to have one.
Unfit FindUnfit(DType from, DType to, const char* values, size_t n);

// The least magnitude that becomes infinite in the type: 65520 for float16. Of kF32: infinity.
float OverflowsFrom(DType type);
// The largest finite number of the type.
float LargestFinite(DType type);

}  // namespace basin
