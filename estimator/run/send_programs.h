// Basin's programs sent to nodes that lack them, outside of a run: all nodes at once, as a run does it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "estimator/launch/launcher.h"

namespace basin {

struct ProgramsReceiver {
  AgentRequest request;
  std::string printed;  // by the node: kProgramsMissing and what follows it
};

// By receiver, in their order: OK once the programs are in place; else why they are not, and what to do. A node that
// takes no byte for a minute is given up. Each transfer is told on standard error as it begins.
std::vector<absl::Status> SendProgramsAndWait(Launcher& launcher, const std::vector<ProgramsReceiver>& receivers);

// The line for that: "node h1: Basin's programs are sent (16 MB)".
std::string SendingPrograms(const TargetNode& node, const ProgramsTransfer& transfer);

}  // namespace basin
