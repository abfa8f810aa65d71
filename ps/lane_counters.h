// What a lane counts. Written by the lane's thread alone, read by any thread (/metrics, Stats of lane 0).
#pragma once

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
  Counter applied;           // pushes and assignments, one a shard
  Counter repeats;           // answered again without a change
  Counter refused;           // entries that changed nothing: bad values, sizes, gaps
  Counter refused_messages;  // answered with Error
  Counter malformed;         // of those: could not be read
  Counter pulled;            // shards sent
  Counter bytes_in, bytes_out;
  Counter shards;
  Counter device_bytes;                       // taken of the device's memory
  Counter ipc_bytes_in, ipc_bytes_out;        // gradients and values, and parameters, that never were on the host
  Counter rows, row_candidates, table_bytes;  // of tables, now
  Counter evicted, dropped_gradients;         // of tables, ever
  Counter sessions;
  // Of the transport, as it was after the last message; set by the thread.
  Counter tcp_connections, shm_connections, shm_bytes_in, shm_bytes_out;
  Counter busy_us;  // the lane's thread not waiting; set by the thread
  // Lane 0 alone:
  Counter clients_alive;
  Counter global_step, min_clock, view;  // of the coordinator
};

}  // namespace basin
