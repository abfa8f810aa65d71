// The rows of one table that a call moves, in the order in which they are sent: keys hashed once and sorted by bucket,
// repeated keys put together, so that each bucket's keys and gradients can be written straight into a message and rows
// that come back find their places in the caller's buffer. Pure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cluster_spec/table_placement.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"

namespace basin {

// Keys in bags (basin.h, basin_rows): bag i has keys [offsets[i], offsets[i + 1]).
struct RowBags {
  absl::Span<const uint64_t> offsets;  // empty: each key stands alone
  bool mean = false;                   // else the sum
};

// A bucket's keys are cut into entries of so many, each a write of its own that is applied as one.
inline uint32_t MostKeysOfEntry(uint32_t dim) {
  return static_cast<uint32_t>(std::max<size_t>(1, kMaxRowsBytes / (sizeof(uint64_t) + dim * sizeof(float))));
}

// INVALID_ARGUMENT unless the offsets ascend from 0 to `keys`.
absl::Status CheckBags(absl::Span<const uint64_t> offsets, size_t keys);

// Fill may be called again: the memory is used again.
class RowBatch {
 public:
  static constexpr size_t kMaxKeys = size_t{1} << 31;

  // The different keys of one bucket: keys() [first_key, first_key + keys).
  struct Bucket {
    uint32_t bucket = 0;
    uint32_t first_key = 0, keys = 0;
    uint32_t begin = 0, end = 0;  // of the sorted places
  };

  // Copies what it needs. REQUIRES: at most kMaxKeys keys; bags checked.
  void Fill(const TablePlacement& placement, uint32_t dim, absl::Span<const uint64_t> keys, const RowBags& bags);

  // Those that have keys, ascending.
  absl::Span<const Bucket> buckets() const { return buckets_; }
  // Different keys, bucket by bucket, in each in the order of their first standing.
  absl::Span<const uint64_t> keys() const { return {keys_.data(), key_count_}; }
  uint32_t dim() const { return dim_; }
  // Rows of the caller's buffers: keys, or bags.
  size_t rows() const { return bagged_ ? bag_count_ : place_count_; }
  bool bagged() const { return bagged_; }
  size_t places() const { return place_count_; }
  size_t memory_bytes() const;

  // Writes keys [first, first + n) of the bucket, 8 bytes each.
  void WriteKeys(const Bucket& bucket, uint32_t first, uint32_t n, char* out) const;
  // What is wrong with the gradients, [rows(), dim], of the keys and bags that Fill had, to be sent as `type` (kF32,
  // kF16, kBF16): "NaN in the gradient of key 17 (place 3), column 2"; or a number, or a sum, that the type cannot
  // hold. Empty: nothing.
  std::string FindNotFinite(absl::Span<const uint64_t> keys, const RowBags& bags, const float* gradients,
                            DType type = DType::kF32) const;
  // Writes their gradients, dim floats each, those of repeated keys summed. REQUIRES: FindNotFinite is empty.
  void WriteGradients(const Bucket& bucket, uint32_t first, uint32_t n, const float* gradients, char* out) const;
  // Rows of those keys to the places where they stand; `places` is [places(), dim].
  void Scatter(const Bucket& bucket, uint32_t first, uint32_t n, const char* rows, float* places) const;
  // The bags' sums or means, in the order of their keys: `places` as Scatter filled it, `pooled` [rows(), dim].
  // REQUIRES: bagged().
  void Pool(const float* places, float* pooled) const;

 private:
  void SortByCounting(const TablePlacement& placement, absl::Span<const uint64_t> keys);
  void SortFew(const TablePlacement& placement, absl::Span<const uint64_t> keys);
  void Close(uint32_t bucket, uint32_t begin, uint32_t end);

  uint32_t dim_ = 0;
  bool bagged_ = false, mean_ = false;
  size_t place_count_ = 0, key_count_ = 0, bag_count_ = 0;
  std::vector<Bucket> buckets_;
  // The vectors below only grow; what counts of them is place_count_ and key_count_.
  std::vector<uint32_t> place_;   // sorted by bucket: where the key stands in the caller's keys
  std::vector<uint32_t> key_of_;  // likewise: which of the bucket's different keys it is
  std::vector<uint64_t> keys_;
  std::vector<uint32_t> bag_of_;  // by the caller's order of keys
  std::vector<uint64_t> offsets_;
  // For Fill alone.
  std::vector<uint64_t> hashes_;
  std::vector<uint32_t> counts_;
  std::vector<uint64_t> sorted_keys_;
  std::vector<uint32_t> sorted_hashes_;
  struct Slot {
    uint32_t round = 0;  // taken in this round
    uint32_t key = 0;
  };
  std::vector<Slot> slots_;
  uint32_t round_ = 0;
};

}  // namespace basin
