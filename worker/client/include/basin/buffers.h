// The caller's memory in the calls of a Client: of variables and of rows, on the host or on a CUDA device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "basin/basin.h"
#include "basin/model.h"

namespace basin {

// Where a buffer is: host memory, or a CUDA device's.
struct Location {
  static Location Cuda(int32_t number) { return {{2, number}}; }
  basin_device value = {1, 0};
};
// A device's stream, in the order of which a call stands.
struct Stream {
  // A cudaStream_t; nullptr is the default stream.
  static Stream Cuda(const void* stream) { return {{BASIN_STREAM_CUDA, reinterpret_cast<uintptr_t>(stream)}}; }
  basin_stream value = {BASIN_STREAM_NONE, 0};
};

// A variable and the caller's buffer for it, which has the variable's number of elements: of float32, or a gradient in
// 16 bits, float16 (kF16) or bfloat16 (kBF16) numbers, which is sent as it is (docs/half_gradients.md).
struct Source {
  Source(const Variable& v, const float* d, size_t n, Location where = {}) : Source(v, d, n, kF32, where) {}
  Source(const Variable& v, const std::vector<float>& d) : Source(v, d.data(), d.size()) {}
  Source(const Variable& v, const void* d, size_t n, Storage t, Location where = {})
      : variable(&v), data(d), elements(n), type(t), location(where) {}
  const Variable* variable;
  const void* data;
  size_t elements;
  Storage type;
  Location location;
};
// As Source, of float32 that a pull writes.
struct Target {
  Target(const Variable& v, float* d, size_t n, Location where = {})
      : variable(&v), data(d), elements(n), location(where) {}
  Target(const Variable& v, std::vector<float>& d) : Target(v, d.data(), d.size()) {}
  const Variable* variable;
  float* data;
  size_t elements;
  Location location;
};

// Rows of one table, by key. A key may stand several times: its gradients are summed first. Keys and bags in host
// memory are the caller's again when the call has started, all others when it is done. In device memory: see
// basin_start_rows_on_stream.
enum class Pooling { kSum = BASIN_POOL_SUM, kMean = BASIN_POOL_MEAN };
struct Rows {
  const Table* table = nullptr;
  const uint64_t* keys = nullptr;  // [count]
  size_t count = 0;
  const float* push = nullptr;  // [count, dim] gradients, or [bag_count, dim]; nullptr: none
  float* pull = nullptr;        // likewise, filled with rows; nullptr: none
  // Bag i has keys[bags[i]] to keys[bags[i + 1] - 1]: bag_count + 1 offsets, ascending from 0 to count. nullptr: each
  // key stands alone.
  const uint64_t* bags = nullptr;
  size_t bag_count = 0;
  Pooling pooling = Pooling::kSum;
  Location location = {};       // of push and pull
  Location keys_location = {};  // of keys: host memory, or that of push and pull; bags are host memory always
};

}  // namespace basin
