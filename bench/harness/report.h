// What was measured, as a table for people and as JSON for machines. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace basin::bench {

// What a figure shall reach: a ratio to its limit, from below or from above.
struct Goal {
  double ratio = 0;
  bool at_most = false;  // latencies: the ratio may be at most this
};

// One figure. Its name is stable and says what was done: "tcp_push/bytes:1048576".
struct Result {
  std::string name;
  double value = 0;
  std::string unit;                        // "GB/s" (10^9 bytes), "M/s" (10^6 a second), "us", "ratio"
  std::string limit_name;                  // empty: none
  double limit = 0;                        // measured in the same run, between the candidate's rounds; same unit
  std::optional<double> p50_us, p99_us;    // of single calls
  std::optional<double> cpu_s_per_gb;      // processor seconds of ps and workers together, for 10^9 payload bytes
  std::optional<uint64_t> peak_rss_bytes;  // of ps and workers together
  std::optional<Goal> goal;

  // value over limit; nothing where there is no limit.
  std::optional<double> ratio() const;
  // Nothing where there is no goal or no limit.
  std::optional<bool> met() const;
};

// {"machine": {...}, "results": [{"name", "value", "unit", "limit_name", "limit", "ratio", "p50_us", "p99_us",
// "cpu_s_per_gb", "peak_rss_bytes"}]}; what does not apply is null.
nlohmann::json ToJson(const nlohmann::json& machine, const std::vector<Result>& results);

// name, value, unit, limit, ratio, goal, met; one line a result and one for the heading.
std::string Table(const std::vector<Result>& results);

// One result on one line, for progress.
std::string Line(const Result& result);

}  // namespace basin::bench
