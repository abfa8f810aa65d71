#include "estimator/history/run_metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/format/event_file.h"

namespace basin {
namespace {

// A full disk's worth of patience; beyond it metrics.jsonl is completed when the run is next supervised.
constexpr size_t kUnmergedBytesMax = 1 << 20;
// Of a run, and of a task in its event file: a script that makes up a name a step must not fill the supervisor's
// memory.
constexpr size_t kMetricsMax = 1024;
constexpr char kEventsPrefix[] = "events.out.tfevents.";

// The event file that an earlier supervisor has left; empty where there is none.
std::string EventFileIn(const std::string& folder) {
  std::error_code error;
  std::string first;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (absl::StartsWith(name, kEventsPrefix) && (first.empty() || name < first)) first = name;
  }
  return first;
}

}  // namespace

RunMetrics::RunMetrics(const RunFolder& folder, std::function<void(const absl::Status&)> tell_failure,
                       std::function<void(const std::string&)> tell)
    : folder_(folder), tell_failure_(std::move(tell_failure)), tell_(std::move(tell)) {}

RunMetrics::~RunMetrics() {
  for (const auto& [task, state] : tasks_) {
    if (state.events_fd >= 0) close(state.events_fd);
  }
}

absl::Status RunMetrics::Open() {
  BASIN_ASSIGN_OR_RETURN(merged_, LineFile::Open(folder_.MetricsPath()));
  BASIN_ASSIGN_OR_RETURN(const std::vector<MetricPoint> merged, ReadMetrics(folder_.MetricsPath()));
  std::map<TaskId, std::vector<double>> merged_times;
  for (const MetricPoint& point : merged) merged_times[point.task].push_back(point.time);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat(folder_.path(), "/metrics"), error)) {
    const std::optional<TaskId> task = TaskOfFileName(entry.path().stem().string());
    if (!task || entry.path().extension() != ".jsonl") continue;
    BASIN_ASSIGN_OR_RETURN(const std::string lines,
                           ReadFile(entry.path().string(), std::numeric_limits<size_t>::max() / 2));
    TaskState& state = tasks_[*task];
    state.merged_times = std::move(merged_times[*task]);
    if (const std::string left = EventFileIn(EventsFolder(*task)); !left.empty()) {
      if (const absl::Status opened = OpenEvents(*task, state, 0); !opened.ok()) {
        state.events_broken = true;
        tell_failure_(opened);
      }
    }
    Add(*task, lines);
  }
  return absl::OkStatus();
}

void RunMetrics::Add(const TaskId& task, absl::string_view bytes) {
  TaskState& state = tasks_[task];
  const size_t end = bytes.rfind('\n');
  if (end == absl::string_view::npos) {
    // A line that has become too long is none, and is remembered as that only.
    if (state.rest.size() <= kMetricLineBytesMax)
      absl::StrAppend(&state.rest, bytes.substr(0, kMetricLineBytesMax + 1));
    return;
  }
  const std::string whole = absl::StrCat(state.rest, bytes.substr(0, end + 1));
  state.rest = std::string(bytes.substr(end + 1, kMetricLineBytesMax + 1));
  AddLines(task, state, whole);
}

void RunMetrics::AddLines(const TaskId& task, TaskState& state, absl::string_view lines) {
  std::string merged, events;
  double first_time = 0;
  const double arrived = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size() - 1) + 1;
    const bool is_merged = state.merged_seen < state.merged_times.size();
    std::optional<MetricPoint> point =
        ParseMetricLine(lines.substr(0, end), is_merged ? state.merged_times[state.merged_seen] : arrived);
    lines.remove_prefix(end);
    if (!point) continue;
    point->task = task;
    ++points_;
    if (series_.size() < kMetricsMax || series_.contains(point->name)) {
      series_[point->name][task].Add(*point);
      if (double& time = newest_time_[point->name]; point->time >= time) {
        time = point->time;
        newest_[point->name] = point->value;
      }
    } else if (!std::exchange(told_too_many_, true)) {
      tell_(absl::StrCat("the run has more than ", kMetricsMax, " metrics: \"", point->name,
                         "\" and further ones are in metrics.jsonl alone, on no chart and not in the run's record"));
    }
    if (is_merged) {
      ++state.merged_seen;
    } else {
      merged += MetricLine(*point, /*with_task=*/true);
    }
    // By the task's own names, so that the same lines always make the same event file.
    if (state.counts.size() >= kMetricsMax && !state.counts.contains(point->name)) continue;
    const int64_t count = state.counts[point->name]++;
    if (state.events_skip > 0) {
      --state.events_skip;
    } else if (!state.events_broken) {
      if (events.empty()) first_time = point->time;
      events += ScalarEvent(point->time, point->step.value_or(count), point->name, point->value);
    }
  }
  if (!merged.empty()) Merge(merged);
  if (!events.empty()) WriteEvents(task, state, events, first_time);
}

void RunMetrics::Merge(const std::string& lines) {
  if (merged_broken_) return;
  unmerged_ += lines;
  if (const absl::Status wrote = merged_->Append(unmerged_, /*sync=*/false); !wrote.ok()) {
    tell_failure_(wrote);
    merged_broken_ = unmerged_.size() > kUnmergedBytesMax;
    return;
  }
  unmerged_.clear();
}

std::string RunMetrics::EventsFolder(const TaskId& task) const {
  return absl::StrCat(folder_.path(), "/logs/tensorboard/", FileNameOf(task));
}

absl::Status RunMetrics::OpenEvents(const TaskId& task, TaskState& state, double first_time) {
  const std::string folder = EventsFolder(task);
  BASIN_RETURN_IF_ERROR(MakeFolders(folder, 0700));
  std::string name = EventFileIn(folder);
  const bool is_new = name.empty();
  if (is_new) {
    char host[256] = "host";
    gethostname(host, sizeof(host) - 1);
    name = absl::StrFormat("%s%010d.%s.basin", kEventsPrefix, static_cast<int64_t>(first_time), host);
  }
  const std::string path = absl::StrCat(folder, "/", name);
  EventFileScan scan;
  if (!is_new) {
    BASIN_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, std::numeric_limits<size_t>::max() / 2));
    scan = ScanEventFile(bytes);
  }
  state.events_fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (state.events_fd < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  // A torn record would hide all that follows it.
  if (ftruncate(state.events_fd, static_cast<off_t>(scan.sound_bytes)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cut the torn end of ", path));
  }
  if (scan.records == 0) return WriteAll(state.events_fd, EventFileHeader(first_time), path);
  state.events_skip = scan.records - 1;
  return absl::OkStatus();
}

void RunMetrics::WriteEvents(const TaskId& task, TaskState& state, absl::string_view records, double first_time) {
  absl::Status wrote;
  if (state.events_fd < 0) wrote = OpenEvents(task, state, first_time);
  if (wrote.ok()) wrote = WriteAll(state.events_fd, records, absl::StrCat(EventsFolder(task), "/", kEventsPrefix, "*"));
  if (wrote.ok()) return;
  // What is torn now is cut, and the rest made up for, when the run is next supervised.
  state.events_broken = true;
  tell_failure_(wrote);
}

}  // namespace basin
