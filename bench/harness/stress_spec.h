// StressOptions on their way from the parent to its tasks: all make the same plan of them.
#pragma once

#include "bench/harness/stress_plan.h"
#include "bench/harness/task.h"

namespace basin::bench {

inline Json ToSpec(const StressOptions& options) {
  return {{"workers", options.workers}, {"ps", options.ps},     {"clients", options.clients_per_process},
          {"seconds", options.seconds}, {"seed", options.seed}, {"kill", options.kill}};
}

inline StressOptions StressOptionsFrom(const Json& spec) {
  StressOptions options;
  options.workers = spec.value("workers", options.workers);
  options.ps = spec.value("ps", options.ps);
  options.clients_per_process = spec.value("clients", options.clients_per_process);
  options.seconds = spec.value("seconds", options.seconds);
  options.seed = spec.value("seed", options.seed);
  options.kill = spec.value("kill", options.kill);
  return options;
}

}  // namespace basin::bench
