// What lives of workers have left on the lanes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/sim_parts.h"
#include "tests/sim/sim_worker.h"

namespace basin::sim {

using Lanes = std::map<std::string, std::unique_ptr<Lane>>;

// A life's marks by shard, then by row; 0 where the shard is not there yet.
std::vector<float> MarksOf(const Lanes& lanes, uint32_t life);
// kRowDim values; zeros where there is no row.
std::vector<float> RowOf(const Lanes& lanes, uint64_t key);
// What is wrong with the life's rows at the end: each has all that was acknowledged, and no more than was sent.
std::vector<std::string> WrongRows(const Lanes& lanes, const Life& life);

}  // namespace basin::sim
