// Seeded random numbers that are the same on every machine and in every build (unlike std's distributions).
#pragma once

#include <cstdint>

namespace basin {

// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014: the finaliser of SplitMix64.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// The i-th number of stream `seed`: a function of both alone, so that shards initialise in any order and on any ps.
constexpr uint64_t RandomAt(uint64_t seed, uint64_t i) { return Mix64(Mix64(seed) ^ (i * 0xd1342543de82ef95ull)); }

// Uniform in [0, 1) with 53 bits.
constexpr double UnitAt(uint64_t seed, uint64_t i) { return static_cast<double>(RandomAt(seed, i) >> 11) * 0x1.0p-53; }

// A stream with a state, for simulations and shuffles. Not for secrets: see secret.h.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    const uint64_t value = Mix64(state_);
    state_ += 0x9e3779b97f4a7c15ull;
    return value;
  }
  // Uniform in [0, bound). REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
  }
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
  bool Chance(double probability) { return Unit() < probability; }

 private:
  uint64_t state_;
};

}  // namespace basin
