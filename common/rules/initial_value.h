// Initial values of a table's rows, element by element, for the host (FillRow) and a device's kernels alike.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/base/random.h"
#include "common/rules/initializer.h"
#include "common/rules/rule_math.h"

namespace basin {

// What the elements of one row have in common.
struct InitialRow {
  uint64_t random = 0;  // a function of the seed and the key
  double base = 0;
  double spread = 0;  // uniform: the width; normal: the standard deviation
  bool normal = false;
};

// REQUIRES: spec.kind is zeros, constant, uniform or normal, and spec is valid.
BASIN_HOST_DEVICE constexpr InitialRow InitialRowOf(const InitSpec& spec, uint64_t key) {
  InitialRow row;
  row.random = RandomAt(spec.seed, key);
  if (spec.kind != InitKind::kZeros) row.base = spec.a;
  if (spec.kind == InitKind::kUniform) row.spread = static_cast<double>(spec.b) - spec.a;
  if (spec.kind == InitKind::kNormal) row.spread = spec.b;
  row.normal = spec.kind == InitKind::kNormal;
  return row;
}

struct InitialPair {
  float first;
  float second;
};

// Elements 2 `pair` and 2 `pair` + 1, which share one 64-bit number where they are uniform, one radius where they are
// normal (Box, Muller, as in initializer.cc). Uniform ones have the same bits everywhere; of normal ones two libraries
// may compute logarithm and cosine with another last bit of a double, which hardly ever shows in the float.
BASIN_HOST_DEVICE inline InitialPair InitialValuesAt(const InitialRow& row, uint32_t pair) {
  if (row.normal) {
    const double radius = row.spread * std::sqrt(-2.0 * std::log(1.0 - UnitAt(row.random, 2 * uint64_t{pair})));
    const double angle = 2.0 * 3.14159265358979323846 * UnitAt(row.random, 2 * uint64_t{pair} + 1);
    return {static_cast<float>(row.base + radius * std::cos(angle)),
            static_cast<float>(row.base + radius * std::sin(angle))};
  }
  const uint64_t random = RandomAt(row.random, pair);
  return {static_cast<float>(row.base + row.spread * (static_cast<uint32_t>(random) * 0x1p-32)),
          static_cast<float>(row.base + row.spread * (static_cast<uint32_t>(random >> 32) * 0x1p-32))};
}

}  // namespace basin
