// TensorFlow's partitioners and embedding lookups as plain arithmetic, so that a model cut by them can be described and
// compared. Basin's own placement does not use them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace basin {

// All partition along axis 0. REQUIRES throughout: counts, bytes and dim0 are at least 1.
inline constexpr int64_t kDefaultMinShardBytes = int64_t{256} << 10;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

constexpr int64_t FixedPartitions(int64_t dim0, int64_t num_shards) { return std::min(dim0, num_shards); }

// Parts of at least min_shard_bytes each.
constexpr int64_t MinSizePartitions(int64_t dim0, int64_t row_bytes, int64_t min_shard_bytes, int64_t max_shards) {
  return std::clamp<int64_t>(CeilDiv(dim0 * row_bytes, min_shard_bytes), 1, std::min(dim0, max_shards));
}

// Parts of at most max_shard_bytes each, as far as max_shards allows.
constexpr int64_t MaxSizePartitions(int64_t dim0, int64_t row_bytes, int64_t max_shard_bytes,
                                    std::optional<int64_t> max_shards = std::nullopt) {
  const int64_t rows = std::max<int64_t>(1, max_shard_bytes / row_bytes);
  const int64_t parts = CeilDiv(dim0, rows);
  return max_shards ? std::min(parts, *max_shards) : parts;
}

// Rows of each part: the first `dim0 mod n` of n = min(parts, dim0) get one more.
inline std::vector<int64_t> PartitionRows(int64_t dim0, int64_t parts) {
  const int64_t n = std::min(parts, dim0);
  std::vector<int64_t> out(static_cast<size_t>(n), dim0 / n);
  for (int64_t i = 0; i < dim0 % n; ++i) ++out[static_cast<size_t>(i)];
  return out;
}

struct PartitionedRow {
  int64_t part = 0;
  int64_t local = 0;
  bool operator==(const PartitionedRow&) const = default;
};

// Strategy "mod": neighbouring ids go to different parts.
constexpr PartitionedRow LookupMod(int64_t id, int64_t parts) { return {id % parts, id / parts}; }

// Strategy "div": contiguous ranges, as PartitionRows cuts them. REQUIRES: 0 <= id < rows, parts <= rows.
constexpr PartitionedRow LookupDiv(int64_t id, int64_t parts, int64_t rows) {
  const int64_t q = rows / parts;
  const int64_t e = rows % parts;
  const int64_t part = std::max(id / (q + 1), (id - e) / q);
  return {part, part < e ? id % (q + 1) : (id - e) % q};
}

}  // namespace basin
