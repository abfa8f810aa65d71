// How the simulated cluster is set up: addresses, lanes, and the model that its workers train.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/wire/control.pb.h"
#include "ps/lane_core.h"
#include "tests/sim/sim_cluster.h"

namespace basin::sim {

inline constexpr absl::Duration kHeartbeat = absl::Milliseconds(200);
inline constexpr absl::Duration kDeadAfter = absl::Seconds(5);

std::string Address(uint32_t ps, uint32_t lane);

LaneCoreOptions LaneOptionsOf(const SimOptions& options, uint32_t ps, uint32_t lane, uint64_t ps_incarnation,
                              const std::vector<std::string>& addresses);

// One variable of three shards, trained by SGD with rate 1, so that a push of 1 subtracts 1; and the input "train".
wire::v1::Model ModelOf(const SimOptions& options);

}  // namespace basin::sim
