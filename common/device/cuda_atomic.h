// What CUDA C++ has no intrinsic for.
#pragma once

#include <cstdint>

namespace basin {

// Reads what other threads may write by atomics meanwhile: their value of before or after, never half of each. Orders
// nothing else.
#ifdef __CUDACC__
__device__ inline uint64_t LoadRelaxed(const uint64_t* at) { return *static_cast<const volatile uint64_t*>(at); }
#else
inline uint64_t LoadRelaxed(const uint64_t* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
#endif

// Writes what other threads may write meanwhile: one of the values stays.
#ifdef __CUDACC__
__device__ inline void StoreRelaxed(uint32_t* at, uint32_t value) { *static_cast<volatile uint32_t*>(at) = value; }
#else
inline void StoreRelaxed(uint32_t* at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }
#endif

}  // namespace basin
