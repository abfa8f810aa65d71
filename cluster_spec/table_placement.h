// Who owns which rows of an embedding table: key -> bucket -> ps. A bucket is the shard of a table.
#pragma once

#include <cstdint>
#include <utility>

#include "common/base/ids.h"
#include "common/base/key_hash.h"

namespace basin {

inline constexpr uint32_t kMaxTables = uint32_t{1} << 15;

// Buckets have shard ids of their own, apart from those of dense variables.
constexpr ShardId BucketShard(uint32_t table, uint32_t bucket) { return ShardId(1u << 31 | table << 16 | bucket); }
constexpr bool IsBucket(ShardId shard) { return shard.value() >> 31 != 0; }
constexpr uint32_t TableOf(ShardId bucket) { return bucket.value() >> 16 & 0x7fff; }
constexpr uint32_t BucketIn(ShardId bucket) { return bucket.value() & 0xffff; }

class TablePlacement final {
 public:
  // A power of two of at least 64 buckets a ps, between 256 and 65,536. REQUIRES: 1 <= ps_count <= kMaxTasks.
  static TablePlacement Make(int ps_count);

  int ps_count() const { return static_cast<int>(ps_count_); }
  uint32_t buckets() const { return uint32_t{1} << bits_; }
  uint32_t bits() const { return bits_; }
  // The top bits of XXH64 of the key's 8 little-endian bytes. A ps can use the low bits for its own hash table.
  uint32_t BucketOf(uint64_t key) const { return static_cast<uint32_t>(KeyHash(key) >> (64 - bits_)); }
  // Contiguous ranges of buckets, so that keys sorted by bucket are sorted by ps.
  PsOrdinal PsOf(uint32_t bucket) const {
    return PsOrdinal(static_cast<uint32_t>((static_cast<uint64_t>(bucket) * ps_count_) >> bits_));
  }
  // Half-open; empty only where there are more ps than buckets.
  std::pair<uint32_t, uint32_t> BucketsOf(PsOrdinal ps) const;
  // REQUIRES: lanes >= 1, and is the number of lanes on the bucket's ps.
  LaneIndex LaneOf(uint32_t bucket, uint32_t lanes) const {
    return LaneIndex((bucket - BucketsOf(PsOf(bucket)).first) % lanes);
  }

 private:
  TablePlacement(uint32_t ps_count, uint32_t bits) : ps_count_(ps_count), bits_(bits) {}
  uint32_t ps_count_;
  uint32_t bits_;
};

}  // namespace basin
