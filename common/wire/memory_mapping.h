// Advice to the allocator for programs that receive large frames.
#pragma once

namespace basin::wire {

// libzmq mallocs each frame it receives. By default glibc maps, page-faults and unmaps every large block anew, which
// costs a third to a half of the throughput; after this call it keeps them. Call it first in main. Advice only: another
// allocator (a sanitizer's) may ignore it. Cost: up to 512 MiB of freed memory stays with the process.
void KeepMemoryMapped();

}  // namespace basin::wire
