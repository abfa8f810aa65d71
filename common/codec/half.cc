#include "common/codec/half.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "common/base/status_macros.h"
#include "common/base/vector_clones.h"
#include "common/codec/half_math.h"

namespace basin {
namespace {

using half::Bfloat16;
using half::Float16;

template <class Half>
inline __attribute__((always_inline)) bool NarrowInto(const float* values, size_t n, char* halves) {
  uint32_t bad = 0;
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const uint16_t half = Half::From(values[i]);
    std::memcpy(halves + 2 * i, &half, sizeof(half));
    bad |= static_cast<uint32_t>((half & Half::kExponent) == Half::kExponent);
  }
  return bad == 0;
}

template <class Half>
inline __attribute__((always_inline)) void WidenInto(const char* halves, size_t n, float* values) {
  BASIN_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, halves + 2 * i, sizeof(half));
    values[i] = Half::To(half);
  }
}

template <class Half>
inline __attribute__((always_inline)) bool AnyNotFinite(const char* halves, size_t n) {
  uint16_t bad = 0;
  for (size_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, halves + 2 * i, sizeof(half));
    bad = static_cast<uint16_t>(bad | ((half & Half::kExponent) == Half::kExponent));
  }
  return bad != 0;
}

// Each is compiled for several machines, so a template will not do.
BASIN_VECTOR_CLONES_16 bool NarrowF16Plainly(const float* values, size_t n, char* halves) {
  return NarrowInto<Float16>(values, n, halves);
}
BASIN_VECTOR_CLONES_16 bool NarrowBf16(const float* values, size_t n, char* halves) {
  return NarrowInto<Bfloat16>(values, n, halves);
}
BASIN_VECTOR_CLONES_16 void WidenF16Plainly(const char* halves, size_t n, float* values) {
  WidenInto<Float16>(halves, n, values);
}
BASIN_VECTOR_CLONES_16 void WidenBf16(const char* halves, size_t n, float* values) {
  WidenInto<Bfloat16>(halves, n, values);
}
BASIN_VECTOR_CLONES_16 bool AnyNotFiniteF16(const char* halves, size_t n) { return AnyNotFinite<Float16>(halves, n); }
BASIN_VECTOR_CLONES_16 bool AnyNotFiniteBf16(const char* halves, size_t n) { return AnyNotFinite<Bfloat16>(halves, n); }

#if defined(__x86_64__)
// The processor's own conversion, of eight at a time: the same bits as half_math.h, NaN included.
__attribute__((target("avx2,f16c"))) bool NarrowF16ByInstruction(const float* values, size_t n, char* halves) {
  const __m128i exponent = _mm_set1_epi16(Float16::kExponent);
  __m128i bad = _mm_setzero_si128();
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
    bad = _mm_or_si128(bad, _mm_cmpeq_epi16(_mm_and_si128(eight, exponent), exponent));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(halves + 2 * i), eight);
  }
  return NarrowInto<Float16>(values + i, n - i, halves + 2 * i) && _mm_testz_si128(bad, bad) != 0;
}
__attribute__((target("avx2,f16c"))) void WidenF16ByInstruction(const char* halves, size_t n, float* values) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + 2 * i));
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(eight));
  }
  WidenInto<Float16>(halves + 2 * i, n - i, values + i);
}
// That the system keeps these registers is in the compiler's answer for AVX2. It is asked for F16C by cpuid, since
// clang 14 does not know that name.
bool FindInstruction() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
bool HasInstruction() {
  static const bool has = FindInstruction();
  return has;
}
#endif

bool NarrowF16(const float* values, size_t n, char* halves) {
#if defined(__x86_64__)
  if (HasInstruction()) return NarrowF16ByInstruction(values, n, halves);
#endif
  return NarrowF16Plainly(values, n, halves);
}
void WidenF16(const char* halves, size_t n, float* values) {
#if defined(__x86_64__)
  if (HasInstruction()) return WidenF16ByInstruction(halves, n, values);
#endif
  WidenF16Plainly(halves, n, values);
}

}  // namespace

bool Narrow(DType type, const float* values, size_t n, char* halves) {
  BASIN_CHECK(IsHalf(type));
  return (type == DType::kF16 ? NarrowF16 : NarrowBf16)(values, n, halves);
}

void Widen(DType type, const char* halves, size_t n, float* values) {
  BASIN_CHECK(IsHalf(type));
  (type == DType::kF16 ? WidenF16 : WidenBf16)(halves, n, values);
}

bool HalvesAreFinite(DType type, const char* halves, size_t n) {
  BASIN_CHECK(IsHalf(type));
  // In pieces of 16 KiB, so that a bad gradient is found early and the inner loop has no exit to stop it vectorising.
  constexpr size_t kPiece = 8192;
  for (size_t begin = 0; begin < n; begin += kPiece) {
    const size_t count = std::min(kPiece, n - begin);
    if ((type == DType::kF16 ? AnyNotFiniteF16 : AnyNotFiniteBf16)(halves + 2 * begin, count)) return false;
  }
  return true;
}

Unfit FindUnfit(DType from, DType to, const char* values, size_t n) {
  BASIN_CHECK(from == DType::kF32 || from == to);
  const float limit = OverflowsFrom(to);
  for (size_t i = 0; i < n; ++i) {
    float value;
    if (from == DType::kF32) {
      std::memcpy(&value, values + i * sizeof(value), sizeof(value));
    } else {
      Widen(to, values + i * 2, 1, &value);
    }
    if (!(std::abs(value) < limit)) return {.element = i, .value = value};
  }
  return {};
}

float OverflowsFrom(DType type) {
  if (type == DType::kF16) return 65520.0f;
  // Half of a step beyond the largest.
  if (type == DType::kBF16) return half::FloatOf(0x7f7f8000u);
  return std::numeric_limits<float>::infinity();
}

float LargestFinite(DType type) {
  if (type == DType::kF16) return 65504.0f;
  if (type == DType::kBF16) return Bfloat16::To(0x7f7f);
  return std::numeric_limits<float>::max();
}

}  // namespace basin
