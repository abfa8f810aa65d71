// float16 and bfloat16 as tables store them: to float and back, branch-free so that loops over them vectorise. What is
// stored is always finite: values past the largest finite number become it, so that no row is spoiled for good.
//
// Stores round up or down at random, in proportion to the distance ("stochastic rounding": Gupta, Agrawal,
// Gopalakrishnan, Narayanan, "Deep learning with limited numerical precision", ICML 2015): a step that is smaller than
// half of the distance between two stored numbers still moves the mean, where rounding to the nearest would lose all of
// them. The random bits are the caller's. (constexpr: so that nvcc takes them for device code, too.)
#pragma once

#include <bit>
#include <cstdint>

namespace basin {

constexpr float FromBf16(uint16_t stored) { return std::bit_cast<float>(static_cast<uint32_t>(stored) << 16); }

// `random`: 16 bits; 0x8000 rounds to the nearest, halves away from zero. REQUIRES: value is finite.
constexpr uint16_t ToBf16(float value, uint32_t random) {
  constexpr uint32_t kLargest = 0x7f7f0000u;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t bounded = magnitude < kLargest ? magnitude : kLargest;
  return static_cast<uint16_t>(((bounded + (random & 0xffffu)) >> 16) | ((bits >> 16) & 0x8000u));
}

// REQUIRES: stored is neither infinite nor NaN (ToF16 makes neither).
constexpr float FromF16(uint16_t stored) {
  const uint32_t magnitude = stored & 0x7fffu;
  // The exponent's bias grows from 15 to 127.
  const float normal = std::bit_cast<float>((magnitude << 13) + (112u << 23));
  // Below 2^-14 the stored number is magnitude * 2^-24: as the last bits of a float in [0.5, 1).
  const float small = std::bit_cast<float>(magnitude | (126u << 23)) - 0.5f;
  const uint32_t chosen = std::bit_cast<uint32_t>(magnitude < 0x400u ? small : normal);
  return std::bit_cast<float>(chosen | (static_cast<uint32_t>(stored & 0x8000u) << 16));
}

// `random`: 16 bits, of which the upper 13 count; 0x8000 rounds to the nearest, halves away from zero.
// REQUIRES: value is finite.
constexpr uint16_t ToF16(float value, uint32_t random) {
  constexpr uint32_t kLargest = 0x477fe000u;         // 65504
  constexpr uint32_t kSmallestNormal = 0x38800000u;  // 2^-14
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t bounded = magnitude < kLargest ? magnitude : kLargest;
  const uint32_t drawn = (random & 0xffffu) >> 3;
  const uint32_t normal = (bounded - (112u << 23) + drawn) >> 13;
  // Below 2^-14 numbers stand 2^-24 apart. The sum is bounded for the conversion's sake where it is not chosen.
  const float unbounded = std::bit_cast<float>(bounded) * 0x1p24f;
  const float steps = unbounded < 2048.0f ? unbounded : 2048.0f;
  const auto small = static_cast<uint32_t>(static_cast<int32_t>(steps + static_cast<float>(drawn) * 0x1p-13f));
  return static_cast<uint16_t>((bounded < kSmallestNormal ? small : normal) | ((bits >> 16) & 0x8000u));
}

// 16 random bits for element i of a row: `seed` is random already, one of each row and step.
constexpr uint32_t RoundingBits(uint32_t seed, uint32_t i) {
  uint32_t x = seed + i * 0x9e3779b9u;
  x ^= x >> 15;
  x *= 0x2c1b3c6du;
  return x >> 16;
}

}  // namespace basin
