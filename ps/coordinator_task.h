// What the coordinator knows of one task over all its lives. Shared by the coordinator's files.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <utility>

#include "ps/coordinator.h"

namespace basin {

struct Coordinator::Task {
  Incarnation incarnation;
  uint64_t earlier_steps = 0;  // of the lives before
  uint64_t life_clock = 0;     // of this life, as its Steps say
  bool done = false;           // it has said Finish
  std::map<std::string, double> metrics;
  double staleness_mean = 0;
  uint64_t staleness_max = 0;
  std::deque<std::pair<absl::Time, uint64_t>> samples;  // clock by time, for the rate
  std::map<std::string, uint64_t> barrier_asked;        // highest number, by barrier
  std::map<std::pair<std::string, uint64_t>, ParkedRequest> parked_barriers;
  std::map<std::string, std::map<uint64_t, ParkedRequest>> parked_inputs;  // by input and number

  uint64_t clock() const { return earlier_steps + life_clock; }
  // Key of a chief or worker.
  static bool trains(const ClientKey& key) {
    const uint32_t role = key.worker >> 24;
    return role == wire::v1::ROLE_CHIEF || role == wire::v1::ROLE_WORKER;
  }
  uint64_t Asked(const std::string& barrier) const {
    const auto at = barrier_asked.find(barrier);
    return at == barrier_asked.end() ? 0 : at->second;
  }
  void StartLife(Incarnation life, absl::Time now);
  void Sample(absl::Time now);
  double StepsPerSecond(absl::Time now) const;
};

}  // namespace basin
