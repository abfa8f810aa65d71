#include "bench/harness/key_stream.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/container/flat_hash_map.h"

namespace basin::bench {
namespace {

constexpr double kExponent = 1.05;

}  // namespace

uint64_t ZipfRank(uint64_t count, double exponent, double unit) {
  const double power = 1 - exponent;
  const double top = std::pow(static_cast<double>(count) + 1, power);
  const double place = std::pow(1 + unit * (top - 1), 1 / power);  // in [1, count + 1)
  return std::min(static_cast<uint64_t>(place), count) - 1;
}

std::vector<uint64_t> DifferentKeys(Random& random, uint64_t rows, size_t count) {
  // Fisher and Yates' shuffle of 0 to rows - 1, as far as it is wanted: only what has moved is remembered.
  absl::flat_hash_map<uint64_t, uint64_t> moved;
  const auto at = [&](uint64_t i) {
    const auto found = moved.find(i);
    return found == moved.end() ? i : found->second;
  };
  std::vector<uint64_t> keys(count);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t j = i + random.Below(rows - i);
    keys[i] = at(j);
    moved[j] = at(i);
  }
  return keys;
}

std::vector<uint64_t> CriteoKeys(Random& random, size_t count) {
  std::vector<uint64_t> keys(count);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t column = i % std::size(kCriteoCardinalities);
    keys[i] = column << 40 | ZipfRank(kCriteoCardinalities[column], kExponent, random.Unit());
  }
  return keys;
}

}  // namespace basin::bench
