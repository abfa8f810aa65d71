// The folder of a run: the truth about it. Readable by its owner alone.
//
//   job.json   the job as it was understood          token    the run's secret (0600)
//   plan.json  what was started                      logs/    <role>-<index>.txt, output and errors of each task
//   run.json   state, times, exit codes              outputs/ what the tasks leave
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "estimator/layout.h"
#include "estimator/run_state.h"

namespace basin {

struct TaskRecord {
  TaskId name;
  std::string address;  // empty for the evaluator
  int pid = 0;          // 0 until it has started
  std::optional<TaskExit> exit;
};

struct RunRecord {
  std::string run_id;
  std::string experiment;
  RunPhase phase = RunPhase::kNotStarted;
  std::string reason;
  absl::Time created;
  std::optional<absl::Time> ended;
  std::vector<TaskRecord> tasks;
};

std::string RunRecordToJson(const RunRecord& record);

class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}
  // Where the run's folder will be: RUNS/EXPERIMENT/RUN_ID.
  static std::string PathFor(const std::string& runs, const std::string& experiment, const std::string& run_id);

  // Makes it (0700) with logs/ and outputs/ and a fresh token. ALREADY_EXISTS where it is there.
  absl::Status Create() const;
  absl::Status WriteJob(absl::string_view json) const;
  absl::Status WritePlan(absl::string_view json) const;
  absl::Status WriteRecord(const RunRecord& record) const;

  const std::string& path() const { return path_; }
  std::string LogPath(const TaskId& name) const;
  std::string OutputPath(absl::string_view name) const;
  std::string TokenPath() const;

 private:
  std::string path_;
};

// The last `count` lines of a text file, at most its last 64 KiB; empty where it cannot be read.
std::vector<std::string> LastLines(const std::string& path, int count);

}  // namespace basin
