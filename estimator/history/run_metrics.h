// The metrics of a run: what each task wrote becomes lines of metrics.jsonl and scalars in TensorBoard's event files.
//
// Each task's own lines are kept as they came (metrics/<role>-<index>.jsonl), and what is made of them follows from
// them line by line. So after a crash the made files are completed from the kept ones: nothing is lost, nothing is
// double.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/history/line_file.h"
#include "estimator/history/run_folder.h"
#include "estimator/history/series.h"

namespace basin {

// Not thread-safe. `tell_failure` hears of each failed write, `tell` what else the user should know; the rest goes on.
class RunMetrics {
 public:
  RunMetrics(const RunFolder& folder, std::function<void(const absl::Status&)> tell_failure,
             std::function<void(const std::string& line)> tell);
  RunMetrics(const RunMetrics&) = delete;
  RunMetrics& operator=(const RunMetrics&) = delete;
  ~RunMetrics();

  // Reads what is there, and completes what is made of it.
  absl::Status Open();
  // Bytes that follow those which came before from this task; lines may be cut anywhere.
  void Add(const TaskId& task, absl::string_view bytes);

  // Of at most 1024 metrics, those that come first; further ones are in metrics.jsonl alone.
  const SeriesMap& series() const { return series_; }
  // The newest value of each metric, by the time that its line says.
  const std::map<std::string, double>& newest() const { return newest_; }
  // Changes whenever a point comes.
  uint64_t points() const { return points_; }

 private:
  struct TaskState {
    std::string rest;                  // of a line that has not ended
    std::vector<double> merged_times;  // of the points that are in metrics.jsonl already: a line may have had no time
    size_t merged_seen = 0;            // of these, those that have come again from the task's own lines
    uint64_t events_skip = 0;          // and in the event file
    int events_fd = -1;
    bool events_broken = false;
    std::map<std::string, int64_t> counts;  // points of a name so far: the step where none is given
  };
  void AddLines(const TaskId& task, TaskState& state, absl::string_view lines);
  void Merge(const std::string& lines);
  std::string EventsFolder(const TaskId& task) const;
  // Opens the task's event file, new or as it was left.
  absl::Status OpenEvents(const TaskId& task, TaskState& state, double first_time);
  void WriteEvents(const TaskId& task, TaskState& state, absl::string_view records, double first_time);

  const RunFolder folder_;
  const std::function<void(const absl::Status&)> tell_failure_;
  const std::function<void(const std::string&)> tell_;
  std::optional<LineFile> merged_;
  std::string unmerged_;  // what could not be written yet
  bool merged_broken_ = false;
  std::map<TaskId, TaskState> tasks_;
  SeriesMap series_;
  std::map<std::string, double> newest_;
  std::map<std::string, double> newest_time_;
  uint64_t points_ = 0;
  bool told_too_many_ = false;
};

}  // namespace basin
