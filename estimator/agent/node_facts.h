// What a supervisor must know about this machine, gathered once at the agent's start.
#pragma once

#include "estimator/agent/messages.h"

namespace basin {

// Fills in machine, libc, host_name, cores, memory, shared memory, open files, GPUs. What cannot be found stays empty.
// With an NVIDIA driver, nvidia-smi is asked, for at most ten seconds.
void GatherNodeFacts(agent::Welcome* welcome);

}  // namespace basin
