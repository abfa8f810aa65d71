// Asks for a cache line before it is needed.
#pragma once

namespace basin {

// As an instruction of its own: g++ 12 takes a function that only has __builtin_prefetch for one without effect, and
// drops calls of it.
inline void FetchLine(const void* address) {
#if defined(__x86_64__)
  asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(address)));
#else
  __builtin_prefetch(address);
#endif
}

}  // namespace basin
