// The device-wide algorithms of CUB that Basin uses, as plain loops in the stream, with CUB's two calls: with null
// storage each only says how much it wants.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/cuda_on_host/enqueue.h"

namespace basin::cuda_on_host {

// Of what every algorithm wants; it is written to, so that storage in use by another is found.
constexpr size_t kCubStorage = 1024;

template <typename Work>
cudaError_t TwoCalls(void* storage, size_t& bytes, cudaStream_t stream, Work work) {
  if (storage == nullptr) {
    bytes = kCubStorage;
    return cudaSuccess;
  }
  if (bytes < kCubStorage) return cudaErrorInvalidValue;
  const auto run = [storage, work = std::move(work)] {
    std::fill_n(static_cast<unsigned char*>(storage), kCubStorage, static_cast<unsigned char>(0xcb));
    work();
  };
  return RunInStream(stream, run, reinterpret_cast<uintptr_t>(&TwoCalls<Work>));
}

template <typename Iterator>
using ValueOf = std::remove_cv_t<std::remove_reference_t<decltype(*std::declval<Iterator>())>>;

// Stable, by the bits [begin_bit, end_bit) of unsigned integers.
template <typename Key>
std::vector<size_t> SortedOrder(const Key* keys, size_t count, int begin_bit, int end_bit) {
  static_assert(std::is_unsigned_v<Key>);
  const int bits = end_bit - begin_bit;
  const Key mask = bits >= static_cast<int>(8 * sizeof(Key)) ? ~Key{0} : static_cast<Key>((Key{1} << bits) - 1);
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return ((keys[a] >> begin_bit) & mask) < ((keys[b] >> begin_bit) & mask);
  });
  return order;
}

}  // namespace basin::cuda_on_host

namespace cub {

struct DeviceRadixSort {
  template <typename Key, typename Count>
  static cudaError_t SortKeys(void* storage, size_t& bytes, const Key* in, Key* out, Count count, int begin_bit = 0,
                              int end_bit = sizeof(Key) * 8, cudaStream_t stream = nullptr) {
    return basin::cuda_on_host::TwoCalls(storage, bytes, stream, [=] {
      const auto order = basin::cuda_on_host::SortedOrder(in, static_cast<size_t>(count), begin_bit, end_bit);
      for (size_t i = 0; i < order.size(); ++i) out[i] = in[order[i]];
    });
  }
  template <typename Key, typename Value, typename Count>
  static cudaError_t SortPairs(void* storage, size_t& bytes, const Key* keys_in, Key* keys_out, const Value* values_in,
                               Value* values_out, Count count, int begin_bit = 0, int end_bit = sizeof(Key) * 8,
                               cudaStream_t stream = nullptr) {
    return basin::cuda_on_host::TwoCalls(storage, bytes, stream, [=] {
      const auto order = basin::cuda_on_host::SortedOrder(keys_in, static_cast<size_t>(count), begin_bit, end_bit);
      for (size_t i = 0; i < order.size(); ++i) {
        keys_out[i] = keys_in[order[i]];
        values_out[i] = values_in[order[i]];
      }
    });
  }
};

struct DeviceScan {
  // Input and output may be the same.
  template <typename In, typename Out, typename Count>
  static cudaError_t ExclusiveSum(void* storage, size_t& bytes, In in, Out out, Count count,
                                  cudaStream_t stream = nullptr) {
    return basin::cuda_on_host::TwoCalls(storage, bytes, stream, [=] {
      basin::cuda_on_host::ValueOf<In> sum = {};
      for (Count i = 0; i < count; ++i) {
        const basin::cuda_on_host::ValueOf<In> value = in[i];
        out[i] = sum;
        sum = sum + value;
      }
    });
  }
  template <typename In, typename Out, typename Count>
  static cudaError_t InclusiveSum(void* storage, size_t& bytes, In in, Out out, Count count,
                                  cudaStream_t stream = nullptr) {
    return basin::cuda_on_host::TwoCalls(storage, bytes, stream, [=] {
      basin::cuda_on_host::ValueOf<In> sum = {};
      for (Count i = 0; i < count; ++i) {
        sum = sum + in[i];
        out[i] = sum;
      }
    });
  }
};

struct DeviceReduce {
  template <typename In, typename Out, typename Count>
  static cudaError_t Sum(void* storage, size_t& bytes, In in, Out out, Count count, cudaStream_t stream = nullptr) {
    return basin::cuda_on_host::TwoCalls(storage, bytes, stream, [=] {
      basin::cuda_on_host::ValueOf<In> sum = {};
      for (Count i = 0; i < count; ++i) sum = sum + in[i];
      *out = sum;
    });
  }
};

struct DeviceSelect {
  template <typename In, typename Flag, typename Out, typename Selected, typename Count>
  static cudaError_t Flagged(void* storage, size_t& bytes, In in, Flag flags, Out out, Selected selected, Count count,
                             cudaStream_t stream = nullptr) {
    return basin::cuda_on_host::TwoCalls(storage, bytes, stream, [=] {
      Count kept = 0;
      for (Count i = 0; i < count; ++i) {
        if (flags[i]) out[kept++] = in[i];
      }
      *selected = kept;
    });
  }
};

struct DeviceRunLengthEncode {
  template <typename In, typename Unique, typename Lengths, typename Runs, typename Count>
  static cudaError_t Encode(void* storage, size_t& bytes, In in, Unique unique, Lengths lengths, Runs runs, Count count,
                            cudaStream_t stream = nullptr) {
    return basin::cuda_on_host::TwoCalls(storage, bytes, stream, [=] {
      Count found = 0;
      for (Count i = 0, end = 0; i < count; i = end) {
        for (end = i; end < count && in[end] == in[i]; ++end) {
        }
        unique[found] = in[i];
        lengths[found++] = end - i;
      }
      *runs = found;
    });
  }
};

}  // namespace cub
