// Goes to all nodes of a target at once and gathers what `basin doctor` decides upon.
#pragma once

#include <string>
#include <vector>

#include "estimator/launch/doctor.h"
#include "estimator/launch/target.h"

namespace basin {

struct DoctorWay {
  std::string version;  // Basin's, looked for as the launchers do
  std::string sent;     // VERSION-DIGEST of the programs that submit sends; empty: none
  std::string base;     // Basin's folder on this machine, for the local target
};

// One visit a node, in the target's order. Nodes that answer late hold up the others; no answer within a minute or two
// counts as none. Leaves nothing behind on the nodes.
std::vector<NodeVisit> VisitNodes(const Target& target, const DoctorNeeds& needs, const DoctorWay& way);

}  // namespace basin
