// What the results were measured on.
#pragma once

#include "bench/harness/task.h"

namespace basin::bench {

// {"cpu", "cores", "memory_bytes", "kernel", "version", "date"}.
Json MachineFacts();

}  // namespace basin::bench
