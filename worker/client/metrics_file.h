// The metrics of a task's steps as lines of its metrics file, for the run's history:
//
//   {"name": "loss", "value": 0.41, "step": 1200, "time": 1764370000.123}
//
// At most one line a second and metric, with the mean of the values since its last line; what is left over ends as one
// more line with the newest value. A line is one write at the file's end, so that several processes may share the file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"

namespace basin {

// Thread-safe. Nothing here fails: the first trouble with the file is handed to `tell`, and training goes on.
class MetricsFile final {
 public:
  using Tell = std::function<void(const std::string& line)>;

  // The file is made (0600) with its first line. `every`: between two lines of a metric.
  MetricsFile(std::string path, Tell tell, absl::Duration every = absl::Seconds(1));
  // Flush.
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  // `step`: of the whole run, for people to compare tasks by.
  void Add(absl::string_view name, double value, uint64_t step, absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);
  // Writes what has not been written.
  void Flush(absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);

  // With its end of line; empty where the name is none (longer than 256 bytes, control characters).
  static std::string LineFor(absl::string_view name, double value, uint64_t step, absl::Time time);

 private:
  struct Metric {
    std::string name;
    double sum = 0;
    uint64_t count = 0;
    double newest = 0;
    uint64_t step = 0;
    absl::Time due = absl::InfinitePast();
  };
  void Write(const std::string& line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const Tell tell_;
  const absl::Duration every_;
  Mutex mutex_;
  std::vector<Metric> metrics_ ABSL_GUARDED_BY(mutex_);  // few, in the order of their first step
  int fd_ ABSL_GUARDED_BY(mutex_) = -1;
  bool torn_ ABSL_GUARDED_BY(mutex_) = false;  // the last line has no end
  bool told_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace basin
