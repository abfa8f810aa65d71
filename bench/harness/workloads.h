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
// A blocking push of 64 bytes; over shared memory with both sides sleeping at once, and spinning first.
Experiment LatencyExperiment(const Flags& flags, const TwoHosts* hosts);
// The rules in one process.
std::vector<Experiment> ApplyExperiments(const Flags& flags);

// Pushes and pulls of rows, one experiment for each of flags.rows: over the transport, or in this process.
std::vector<Experiment> TableExperiments(const Flags& flags, const TwoHosts* hosts);

// Everything that has a goal, in a few minutes.
std::vector<Experiment> CanonicalExperiments(const Flags& flags, const TwoHosts* hosts);

// What the result of this name shall reach; nothing for a name without a goal.
std::optional<Goal> GoalOf(const std::string& name);

}  // namespace basin::bench
