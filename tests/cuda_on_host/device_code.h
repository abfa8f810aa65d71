// Included before each .cu that the host's compiler compiles (cmake -DBASIN_CUDA=HOST): what nvcc knows by itself.
#pragma once

#include <cuda_runtime_api.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/cuda_on_host/block.h"

#undef __shared__
#undef __launch_bounds__
// A block runs on one thread of the CPU.
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define threadIdx (::basin::cuda_on_host::position.thread)
#define blockIdx (::basin::cuda_on_host::position.block)
#define blockDim (::basin::cuda_on_host::position.block_size)
#define gridDim (::basin::cuda_on_host::position.grid_size)
#define warpSize 32

using std::isfinite;
using std::isinf;
using std::isnan;

namespace basin::cuda_on_host {

template <typename T>
constexpr bool kFitsALane = std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t);

template <typename T>
uint64_t BitsOf(T value) {
  static_assert(kFitsALane<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <typename T>
T Shuffle(unsigned mask, T value, unsigned source, Site site) {
  const uint64_t bits = MeetWarp(WarpOperation::kShuffle, mask, BitsOf(value), source, site);
  T result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

}  // namespace basin::cuda_on_host

inline void __syncthreads(basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  basin::cuda_on_host::MeetBlock(0, site);
}
inline int __syncthreads_or(int predicate, basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  return basin::cuda_on_host::MeetBlock(predicate, site).any;
}
inline int __syncthreads_and(int predicate, basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  return basin::cuda_on_host::MeetBlock(predicate, site).all;
}
inline int __syncthreads_count(int predicate, basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  return basin::cuda_on_host::MeetBlock(predicate, site).count;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  basin::cuda_on_host::MeetWarp(basin::cuda_on_host::WarpOperation::kSync, mask, 0, 0, site);
}

// `width` parts the warp: a lane reads of its own part alone, and itself where the other lies outside.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  const unsigned lane = basin::cuda_on_host::Lane(), last = static_cast<unsigned>(width) - 1;
  return basin::cuda_on_host::Shuffle(mask, value, (lane & ~last) + (static_cast<unsigned>(source) & last), site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  const unsigned lane = basin::cuda_on_host::Lane(), in_part = lane & (static_cast<unsigned>(width) - 1);
  return basin::cuda_on_host::Shuffle(mask, value, by > in_part ? lane : lane - by, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  const unsigned lane = basin::cuda_on_host::Lane(), in_part = lane & (static_cast<unsigned>(width) - 1);
  const bool outside = in_part + by >= static_cast<unsigned>(width);
  return basin::cuda_on_host::Shuffle(mask, value, outside ? lane : lane + by, site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  const unsigned lane = basin::cuda_on_host::Lane(), last = static_cast<unsigned>(width) - 1;
  const unsigned other = lane ^ static_cast<unsigned>(lanes);
  return basin::cuda_on_host::Shuffle(mask, value, other > (lane | last) ? lane : other, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  return static_cast<unsigned>(basin::cuda_on_host::MeetWarp(basin::cuda_on_host::WarpOperation::kBallot, mask,
                                                             predicate != 0 ? 1 : 0, 0, site));
}
inline int __any_sync(unsigned mask, int predicate, basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  return __ballot_sync(mask, predicate, site) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate, basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  return __ballot_sync(mask, predicate != 0 ? 0 : 1, site) == 0 ? 1 : 0;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, basin::cuda_on_host::Site site = basin::cuda_on_host::Here()) {
  return static_cast<unsigned>(basin::cuda_on_host::MeetWarp(basin::cuda_on_host::WarpOperation::kMatch, mask,
                                                             basin::cuda_on_host::BitsOf(value), 0, site));
}

inline void __threadfence() { basin::cuda_on_host::Fence(); }
inline void __threadfence_block() { basin::cuda_on_host::Fence(); }
inline void __threadfence_system() { basin::cuda_on_host::Fence(); }

// Atomics order nothing on a GPU, so they are relaxed here. Each returns what was there.
template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  if constexpr (std::is_integral_v<T>) return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
  T seen;
  __atomic_load(at, &seen, __ATOMIC_RELAXED);
  for (T sum = seen + value; !__atomic_compare_exchange(at, &seen, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);) {
    sum = seen + value;
  }
  return seen;
}
template <typename T>
T atomicSub(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_sub(at, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicAnd(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_and(at, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  T before;
  __atomic_exchange(at, &value, &before, __ATOMIC_RELAXED);
  return before;
}
template <typename T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange(at, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  T seen = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (seen < value && !__atomic_compare_exchange_n(at, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}
template <typename T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  T seen = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < seen && !__atomic_compare_exchange_n(at, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}

// Caches have no part here.
template <typename T>
T __ldg(const T* at) {
  return *at;
}
template <typename T>
T __ldcs(const T* at) {
  return *at;
}
template <typename T>
T __ldcg(const T* at) {
  return *at;
}
template <typename T>
void __stcs(T* at, std::type_identity_t<T> value) {
  *at = value;
}
template <typename T>
void __stwb(T* at, std::type_identity_t<T> value) {
  *at = value;
}
template <typename T>
void __stcg(T* at, std::type_identity_t<T> value) {
  *at = value;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
