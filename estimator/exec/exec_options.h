// What `basin exec` was asked for, once checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "estimator/exec/exec_layout.h"
#include "estimator/exec/launched_rank.h"

namespace basin {

struct ExecOptions {
  LaunchedRank launched;
  ExecLayout layout;
  std::vector<std::string> command;                  // of chief, workers and evaluator
  std::string rendezvous;                            // folder that all ranks see
  absl::Duration start_timeout = absl::Minutes(10);  // until all ranks are there
  absl::Duration grace = absl::Seconds(5);           // of tasks that are stopped, from TERM to KILL; of ps at the end
  int lanes = 0;                                   // of basin-ps; 0: one where it shares its host, else its own choice
  uint32_t first_port = 20000, last_port = 29999;  // after 2222
};

}  // namespace basin
