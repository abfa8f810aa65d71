// What of this machine the process may use, control groups included.
#pragma once

#include <cstddef>

namespace basin {

// At least 1.
int UsableCores();
// Physical memory, or the control group's limit where that is less. 0: not known.
size_t UsableMemoryBytes();

}  // namespace basin
