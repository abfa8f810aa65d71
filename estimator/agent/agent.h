// The agent of a node: a daemon of its own session that lives by its lease. Supervisors reach it over the Unix socket
// in the node's folder, one at a time; it opens no network port of its own.
#pragma once

#include <string>

#include "common/base/unique_fd.h"
#include "estimator/agent/node_folder.h"
#include "estimator/agent/task_command.h"

namespace basin {

struct AgentOptions {
  NodeFolder folder;
  UniqueFd listener;  // of agent.sock
  UniqueFd signals;   // signalfd of SIGTERM and SIGCHLD, both blocked
  std::string version;
  std::string programs;   // folder of basin-ps and basin-worker; empty: this program's own
  Environment inherited;  // for tasks
};

// Returns when the run is over on this node and nothing of it is left, with the process's exit code.
int RunAgent(AgentOptions options);

}  // namespace basin
