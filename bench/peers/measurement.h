// What the clients of the peers share: how long, how many in flight, and how a figure is written.
#ifndef BASIN_BENCH_PEERS_MEASUREMENT_H_
#define BASIN_BENCH_PEERS_MEASUREMENT_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

namespace basin::bench {

constexpr size_t kTableRows = 1'000'000, kTableDim = 16, kTableBatch = 10'000;
constexpr size_t kPushBytes[] = {16 << 10, 64 << 10, 1 << 20, 4 << 20};
constexpr size_t kPullBytes[] = {1 << 20, 4 << 20};
constexpr size_t kSmallBytes = 64;

// Calls in flight for payloads of this size: 16 MiB, and at most 256 calls.
inline size_t InFlight(size_t bytes) { return std::clamp<size_t>((16 << 20) / bytes, 2, 256); }

// Batch number `batch` of the keys: 10,000 different rows, spread over the table.
inline std::vector<uint64_t> Keys(uint64_t batch) {
  std::vector<uint64_t> keys(kTableBatch);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = (batch * kTableBatch + i) * 7919 % kTableRows;
  return keys;
}

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// What was done in a time. Warming up is not in it.
struct Measured {
  uint64_t calls = 0;
  double seconds = 0;
};

// One line for run.py.
inline void Report(const std::string& name, double value, const char* unit, bool checked) {
  std::printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"checked\": %s}\n", name.c_str(), value, unit,
              checked ? "true" : "false");
  std::fflush(stdout);
}
inline void ReportBytes(const std::string& what, size_t bytes, const Measured& measured, bool checked) {
  Report(what + "/bytes:" + std::to_string(bytes),
         1e-9 * static_cast<double>(bytes * measured.calls) / measured.seconds, "GB/s", checked);
}
inline void ReportRows(const std::string& what, const Measured& measured, bool checked) {
  Report(what + "/rows:1000000/dim:16", static_cast<double>(kTableBatch * measured.calls) / measured.seconds, "rows/s",
         checked);
}

}  // namespace basin::bench

#endif  // BASIN_BENCH_PEERS_MEASUREMENT_H_
