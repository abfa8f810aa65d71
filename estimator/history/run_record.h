// What is known of a run, as one value: run.json holds it, and the commands print it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster_spec/cluster_spec.h"
#include "estimator/run/run_state.h"

namespace basin {

struct TaskRecord {
  TaskId name;
  std::string address;  // host:port; empty for a task that listens nowhere
  int pid = 0;          // 0 until it has started
  std::optional<TaskExit> exit;
  std::string host;  // the node it runs on
  bool operator==(const TaskRecord& other) const;
};

struct StateChange {
  RunPhase phase = RunPhase::kNotStarted;
  absl::Time time;
  std::string reason;
};

struct RunRecord {
  std::string run_id;
  std::string experiment;
  RunPhase phase = RunPhase::kNotStarted;
  std::string reason;
  absl::Time created;
  std::optional<absl::Time> ended;
  std::vector<TaskRecord> tasks;
  std::string target;                      // "local" or a target's name
  std::map<std::string, std::string> git;  // "azureml.git.branch" and its kin; empty without a repository
  std::optional<int> exit_code;            // of `basin submit`, once the run has ended
  // RunHistory::Record fills these: a caller need not.
  std::string folder;                     // absolute
  std::string portal_url;                 // file:// URL of the page
  std::map<std::string, double> metrics;  // the newest value of each
  std::vector<StateChange> history;       // the last one is `phase`
};

// Completed, Failed or Canceled: nothing follows.
bool IsFinal(RunPhase phase);
std::optional<RunPhase> PhaseNamed(absl::string_view name);

// As the commands print it: states by name, times as ISO 8601 in UTC with milliseconds. Numbers that JSON has no form
// for are strings: "NaN", "Infinity", "-Infinity".
std::string RunRecordToJson(const RunRecord& record);
// Of that text. INVALID_ARGUMENT where it is none; fields that are missing or of another type are left out.
absl::StatusOr<RunRecord> RunRecordFromJson(absl::string_view json);

std::string TimeToText(absl::Time time);
std::optional<absl::Time> TimeFromText(const std::string& text);

}  // namespace basin
