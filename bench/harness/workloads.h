// What can be measured, each with the limit that it is compared with, as experiments. Names and goals are made here.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/harness/flags.h"
#include "bench/harness/measurement.h"

namespace basin::bench {

// op: "push", "pull" or "pushpull"; one row for each of flags.bytes and flags.rules.
Experiment DenseExperiment(const std::string& op, const Flags& flags, const TwoHosts* hosts);
// Pushes of 16 floats, 64 variables a call and one a call.
Experiment SmallExperiment(const Flags& flags, const TwoHosts* hosts);
// A blocking push of 64 bytes.
Experiment LatencyExperiment(const Flags& flags, const TwoHosts* hosts);
// The rules in one process.
std::vector<Experiment> ApplyExperiments(const Flags& flags);

// Everything that has a goal, in a few minutes.
std::vector<Experiment> CanonicalExperiments(const Flags& flags, const TwoHosts* hosts);

// What the result of this name shall reach; nothing for a name without a goal.
std::optional<Goal> GoalOf(const std::string& name);

}  // namespace basin::bench
