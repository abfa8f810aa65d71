// `basin agent`: what a launcher starts on a node. It finds the run's agent there, or starts it, and passes bytes
// between it and its own standard input and output until either side ends. So a cut connection ends the relay alone.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "estimator/agent/task_command.h"

namespace basin {

struct RelayOptions {
  std::string base;  // of Basin on this node
  std::string run_id;
  uint32_t node = 0;
  std::string version;
  std::string programs;   // folder of basin-ps and basin-worker; empty: this program's own
  Environment inherited;  // for the tasks of an agent that is started
};

// Never returns in the agent that it may start. REQUIRES: this process has one thread.
absl::Status RunRelay(const RelayOptions& options);

}  // namespace basin
