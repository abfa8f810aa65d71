// A whole cluster in one process on virtual time: the pure cores of ps lanes, coordinator and clients, joined by links
// that delay and are cut, with workers that are killed, paused and replaced — all drawn from one seed. While it runs,
// and at its end, it checks what Basin guarantees (DESIGN, "Guarantees"); what is broken is returned as text.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/random.h"
#include "ps/lane_core.h"
#include "tests/sim/sim_network.h"
#include "worker/client/client_core.h"

namespace basin::sim {

struct SimOptions {
  uint64_t seed = 1;
  uint32_t ps_count = 2;
  uint32_t lanes = 2;
  uint32_t workers = 3;
  uint32_t pieces = 12;
  uint32_t pushes_per_piece = 3;
  int cuts = 6;                   // connections cut at random moments
  int kills = 2;                  // workers killed; each is replaced after a while
  int zombies = 1;                // workers paused for longer than dead_after, replaced, and then woken
  int sleepers = 1;               // likewise, but not replaced: they come back
  double poisoned_chance = 0.02;  // of a push to be turned into NaN on its way, so that the lane refuses it
  absl::Duration faults_within = absl::Seconds(3);
};

struct SimOutcome {
  std::vector<std::string> violations;  // empty: all guarantees held
  uint64_t trace = 0;                   // hash of every delivered message and its time: equal seeds, equal traces
  uint64_t events = 0;
  uint64_t pushes_acknowledged = 0;
  uint64_t fenced = 0;
  uint64_t reconnects = 0;
  uint64_t refused = 0;
};

SimOutcome RunSimulation(const SimOptions& options);

}  // namespace basin::sim
