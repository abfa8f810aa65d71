// What a lane counts. Written by the lane's thread alone, read by any thread (/metrics, Stats of lane 0).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace basin {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  void Set(uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct LaneCounters {
  Counter applied;          // pushes and assignments, one a shard
  Counter repeats;          // answered again without a change
  Counter refused;          // entries that changed nothing: bad values, sizes, gaps
  Counter refused_messages; // answered with Error
  Counter malformed;        // of those: could not be read
  Counter pulled;           // shards sent
  Counter bytes_in, bytes_out;
  Counter shards;
  Counter sessions;
  Counter busy_us;  // the lane's thread not waiting; set by the thread
  // Staleness of pushes: [0] counts 0, [i] counts (2^(i-2), 2^(i-1)], the last one all above.
  static constexpr int kStalenessBuckets = 12;
  std::array<Counter, kStalenessBuckets> staleness;
  Counter staleness_sum;
  // Lane 0 alone:
  Counter clients_alive;
  Counter global_step, min_clock, view;  // of the coordinator

  static constexpr int StalenessBucket(uint64_t staleness) {
    int bucket = 0;
    for (uint64_t bound = 0; bucket < kStalenessBuckets - 1 && staleness > bound; ++bucket) bound = bound == 0 ? 1 : bound * 2;
    return bucket;
  }
};

}  // namespace basin
