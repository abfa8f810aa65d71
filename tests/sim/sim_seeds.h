// The clusters that the tests draw: sizes and faults vary with the seed.
#pragma once

#include "common/base/random.h"
#include "tests/sim/sim_cluster.h"

namespace basin::sim {

inline constexpr uint64_t kSeeds = 1000;

inline SimOptions OptionsOfSeed(uint64_t seed) {
  Random random(Mix64(seed));
  SimOptions options;
  options.seed = seed;
  options.ps_count = 1 + static_cast<uint32_t>(random.Below(3));
  options.lanes = 1 + static_cast<uint32_t>(random.Below(2));
  options.workers = 1 + static_cast<uint32_t>(random.Below(4));
  options.pieces = 4 + static_cast<uint32_t>(random.Below(12));
  options.cuts = static_cast<int>(random.Below(10));
  options.kills = static_cast<int>(random.Below(3));
  options.zombies = static_cast<int>(random.Below(2));
  options.sleepers = static_cast<int>(random.Below(2));
  return options;
}

}  // namespace basin::sim
