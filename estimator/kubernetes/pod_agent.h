// `basin agent --pod`: the command of a pod. It is the supervisor of one task: it starts the agent of its node, which
// is the pod, hands it the plan that the pod's ConfigMap holds, and prints what comes of it (pod_log.h). Its exit code
// is the task's.
//
// At the end it waits for somebody to fetch the outputs: whoever runs `basin agent --run ID --node 0` in the pod (by
// kubectl exec) reaches the same agent, with a larger epoch, and takes over.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace basin {

struct PodAgentOptions {
  std::string index;   // JOB_COMPLETION_INDEX
  std::string pod_ip;  // BASIN_POD_IP; empty: all interfaces
  std::string version;
};

// Blocks until the task is over. Wrong input is told on standard output, as all else is.
int RunPodAgent(const PodAgentOptions& options);

}  // namespace basin
