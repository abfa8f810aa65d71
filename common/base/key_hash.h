// The hash of an embedding table's keys.
#pragma once

#include <cstdint>

namespace basin {

// XXH64 (https://github.com/Cyan4973/xxHash, its specification) with seed 0 of the key's 8 little-endian bytes, written
// out for that one length: a batch hashes every key. Part of the wire: a key's bucket is its top bits.
constexpr uint64_t KeyHash(uint64_t key) {
  constexpr uint64_t kPrime1 = 0x9e3779b185ebca87, kPrime2 = 0xc2b2ae3d27d4eb4f, kPrime3 = 0x165667b19e3779f9,
                     kPrime4 = 0x85ebca77c2b2ae63, kPrime5 = 0x27d4eb2f165667c5;
  constexpr auto rotate = [](uint64_t x, int bits) { return x << bits | x >> (64 - bits); };
  uint64_t hash = kPrime5 + 8;
  hash ^= rotate(key * kPrime2, 31) * kPrime1;
  hash = rotate(hash, 27) * kPrime1 + kPrime4;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace basin
