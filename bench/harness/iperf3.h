// The raw TCP stream of the harness beside that of iperf3, which others trust.
#pragma once

#include "absl/status/status.h"

namespace basin::bench {

// Measures both in turn on loopback and prints one line with both and their ratio. Where iperf3 is not installed it
// says so, and that is all.
absl::Status CompareWithIperf3(double seconds);

}  // namespace basin::bench
