// What `basin doctor` makes of what it saw on the nodes of a target. Pure: doctor_visit.h does the looking.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "estimator/job/job.h"
#include "estimator/launch/doctor_talk.h"
#include "estimator/launch/ssh_command.h"
#include "estimator/launch/target.h"

namespace basin {

enum class DoctorState { kOk, kWarning, kProblem };
const char* DoctorStateName(DoctorState state);  // "ok", "warning", "problem"

struct DoctorFinding {
  std::string node;
  std::string check;  // ssh, basin, addresses, ports, reach, shared, gpu, shm, files, python, container, inputs
  DoctorState state = DoctorState::kOk;
  std::string found;
  std::string fix;  // empty where all is well
};

// What runs will need of the nodes.
struct DoctorNeeds {
  std::string job;         // its file; empty: none was named, and the needs are the usual ones
  std::vector<int> ports;  // how many, by node
  PortRange range;         // where the others are looked for
  std::vector<JobInput> inputs;
  bool pip = false;
  bool conda = false;
  bool mpi = false;
  std::string image;  // empty: no containers
  bool gpu = false;
};
// `nodes` of them.
DoctorNeeds UsualNeeds(int nodes);
DoctorNeeds NeedsOfJob(const Job& job, const std::string& file, int nodes);

// The programs that would be sent to a node without Basin.
struct DoctorBundle {
  std::string path;  // empty: there is none
  NodeSystem system;
};

// One node, as far as one came. The first of these that is not empty says where it ended.
struct NodeVisit {
  std::string not_reached;      // what ssh said
  std::string not_reached_fix;  // and what to do
  bool programs_missing = false;
  NodeSystem system;      // of the node, where programs_missing
  std::string not_sent;   // why they are still missing, though they were sent
  std::string no_answer;  // reached, but no doctor of ours spoke
  std::string no_answer_fix;
  std::string lost;  // it spoke, and then no more
  DoctorHello hello;
  bool looked = false;  // look is there
  DoctorLook look;
  std::vector<DoctorReached> reached;  // its tries to reach others, by their index
  std::vector<DoctorFolder> wrote;     // shared folders, where it was the one that wrote; else empty
  std::vector<DoctorFolder> read;      // and where it was one that read
};
// Whether it can be asked for more.
bool IsThere(const NodeVisit& visit);

// Pairs (from, to) of nodes that try each other: all of them up to 8 nodes, a ring beyond; one node tries itself.
std::vector<std::pair<int, int>> PairsToTry(int nodes);
// The addresses of `to` to be tried from a node that found `look`; empty where there is no use in trying.
std::string AddressToTry(const DoctorLook& look, const TargetNode& to, bool alone);

// By node, in the order of the checks. REQUIRES: one visit a node of the target.
std::vector<DoctorFinding> Diagnose(const Target& target, const DoctorNeeds& needs, const DoctorBundle& bundle,
                                    const std::string& version, const std::vector<NodeVisit>& visits);

// Lines for people, aligned, and a last one that counts.
std::string FindingsToText(const std::vector<DoctorFinding>& findings);
// A list of {node, check, state, found, fix}.
std::string FindingsToJson(const std::vector<DoctorFinding>& findings);
bool HasProblem(const std::vector<DoctorFinding>& findings);

}  // namespace basin
