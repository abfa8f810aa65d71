// The lines of metrics: what a task writes to its metrics file, and what a run keeps in metrics.jsonl (with the task).
//
//   {"name": "loss", "value": 0.41, "step": 1200, "time": 1764370000.123}
//
// `step` may be absent, and so may `time`: it is then the time at which the supervisor had the line. A value that is no
// number is "NaN", "Infinity" or "-Infinity" (Python's json writes them bare, which is read too).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster_spec/cluster_spec.h"

namespace basin {

struct MetricPoint {
  std::string name;
  double value = 0;
  std::optional<int64_t> step;
  double time = 0;  // seconds since 1970
  TaskId task;      // of a run's lines
};

// A line is at most this long: writers append it with one write, which then never mixes with another's.
inline constexpr size_t kMetricLineBytesMax = 4096;
inline constexpr size_t kMetricNameBytesMax = 256;

// INVALID_ARGUMENT for an empty or too long name, one with control characters or one that is not UTF-8.
absl::Status CheckMetricName(absl::string_view name);

// Without the end of line, which is stripped where it is there. nullopt where it is none of these. `arrived` is the
// time of a line that has none, in seconds since 1970.
std::optional<MetricPoint> ParseMetricLine(absl::string_view line, double arrived);
// With the end of line; with `task` where `with_task`.
std::string MetricLine(const MetricPoint& point, bool with_task);

// All points of a run's metrics.jsonl, in its order; lines that are none are passed over. Empty where there is no file.
absl::StatusOr<std::vector<MetricPoint>> ReadMetrics(const std::string& path);

}  // namespace basin
