#include "common/wire/memory_mapping.h"

#include <malloc.h>

namespace basin::wire {

void KeepMemoryMapped() {
  // 32 MiB is the largest threshold that glibc takes; the largest frame has 4 MiB.
  (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
  (void)mallopt(M_TRIM_THRESHOLD, 512 << 20);
}

}  // namespace basin::wire
