// float32 to float16 and bfloat16 and back, one element, for the host's loops (half.cc) and a device's kernel alike.
// Rounded to the nearest, ties to even, as IEEE 754 has it; free of branches, so that loops over them become vectors.
// Tables store 16 bits in another way: finite only, and rounded at random (common/rules/storage_math.h).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define BASIN_CODEC_HOST_DEVICE __host__ __device__
#else
#define BASIN_CODEC_HOST_DEVICE
#endif

namespace basin::half {

BASIN_CODEC_HOST_DEVICE inline uint32_t BitsOf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}
BASIN_CODEC_HOST_DEVICE inline float FloatOf(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

inline constexpr uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u;

struct Float16 {
  static constexpr uint16_t kExponent = 0x7c00;  // all ones: the infinities and NaN

  BASIN_CODEC_HOST_DEVICE static uint16_t From(float value) {
    const uint32_t bits = BitsOf(value), magnitude = bits & ~kSign;
    constexpr uint32_t kSmallestNormal = 113u << 23;  // 2^-14
    constexpr uint32_t kTooLarge = 143u << 23;  // 2^16; what lies between 65520 and it rounds to infinity by itself
    // The exponent's bias shrinks from 127 to 15. An odd last bit rounds halves up, an even one down.
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    // Below 2^-14 numbers stand 2^-24 apart, as the floats from 0.5 on do: the addition rounds.
    const uint32_t small = BitsOf(FloatOf(magnitude < kSmallestNormal ? magnitude : 0u) + 0.5f) - BitsOf(0.5f);
    const uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
    uint32_t half = magnitude < kSmallestNormal ? small : normal;
    half = magnitude >= kTooLarge ? uint32_t{kExponent} : half;
    half = magnitude > kInfinity ? nan : half;
    return static_cast<uint16_t>(half | (bits & kSign) >> 16);
  }

  BASIN_CODEC_HOST_DEVICE static float To(uint16_t half) {
    const uint32_t magnitude = half & 0x7fffu;
    const uint32_t normal = (magnitude << 13) + (112u << 23);
    // The infinities and NaN keep an exponent of all ones; a NaN is a quiet one, as processors make it.
    const uint32_t special = (magnitude << 13) | kInfinity | (magnitude > kExponent ? 0x400000u : 0u);
    const uint32_t small = BitsOf(FloatOf(magnitude | BitsOf(0.5f)) - 0.5f);
    uint32_t bits = magnitude < 0x400u ? small : normal;
    bits = magnitude >= kExponent ? special : bits;
    return FloatOf(bits | (half & 0x8000u) << 16);
  }
};

// The upper half of a float32.
struct Bfloat16 {
  static constexpr uint16_t kExponent = 0x7f80;

  BASIN_CODEC_HOST_DEVICE static uint16_t From(float value) {
    const uint32_t bits = BitsOf(value);
    const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const uint32_t nan = bits >> 16 | 0x40u;  // that bit, lest a NaN whose others are cut off become an infinity
    return static_cast<uint16_t>((bits & ~kSign) > kInfinity ? nan : nearest);
  }

  BASIN_CODEC_HOST_DEVICE static float To(uint16_t half) { return FloatOf(static_cast<uint32_t>(half) << 16); }
};

}  // namespace basin::half
