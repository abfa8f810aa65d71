// The two ends of the simulated links: a lane of a ps, and a worker's process.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/wire/transport.h"
#include "ps/lane_core.h"
#include "tests/sim/sim_network.h"
#include "tests/sim/sim_worker.h"

namespace basin::sim {

struct Lane {
  uint32_t ps = 0;
  uint32_t lane = 0;
  std::unique_ptr<LaneCore> core;
  std::map<wire::PeerId, uint64_t> process_of_peer;  // who is at the other end
  std::map<wire::PeerId, std::shared_ptr<SimLink>> links;
  std::map<wire::PeerId, uint32_t> channel_of_peer;
  absl::Time wake = absl::InfiniteFuture();
};
struct Process {
  uint64_t id = 0;
  std::unique_ptr<SimWorker> worker;
  std::map<uint32_t, std::pair<Lane*, wire::PeerId>> channels;
  bool dead = false;
  absl::Time paused_until = absl::InfinitePast();
  bool woken_late = false;
  absl::Time wake = absl::InfiniteFuture();
  std::vector<std::function<void()>> held;  // what came while paused
};

}  // namespace basin::sim
