// Many workers, mixed sizes, connections cut and workers killed at random from a seed; then every sum is checked.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "bench/harness/flags.h"

namespace basin::bench {

// The flags that only stress has, with defaults of its own for some of the others.
void AddStressFlags(CLI::App& app, Flags& flags);

// Runs it, prints the verdict and a table, and writes flags.json. An error when a sum is wrong, or a worker that was
// not killed has met an error.
absl::Status RunStress(const Flags& flags, const TwoHosts* hosts,
                       const std::function<void(const std::string&)>& progress);

}  // namespace basin::bench
