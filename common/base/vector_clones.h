// For the loops over many numbers: what makes a compiler turn one into vectors, for the widest that the machine has.
#pragma once

// Stands before a loop none of whose iterations depends on another, whichever of its arrays are the same memory.
#if defined(__clang__)
#define BASIN_INDEPENDENT_ITERATIONS _Pragma("clang loop vectorize(assume_safety)")
#else
#define BASIN_INDEPENDENT_ITERATIONS _Pragma("GCC ivdep")
#endif

// Stands before a function: it is compiled for SSE2, AVX2 and AVX-512, and chosen once when the program is loaded. Not
// under a sanitizer: the choice is made before its runtime is ready. The second is for elements of 16 bits, which need
// more parts of AVX-512 than its first.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define BASIN_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#define BASIN_VECTOR_CLONES_16 __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BASIN_VECTOR_CLONES
#define BASIN_VECTOR_CLONES_16
#endif
