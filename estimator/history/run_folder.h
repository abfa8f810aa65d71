// The folder of a run: the truth about it. Readable by its owner alone.
//
//   job.json         the job as it was understood       token            the run's secret (0600)
//   plan.json        what was started                   supervisor.lock  held (flock) by the one who supervises
//   run.json         the record as it is now            journal.jsonl    what happened, in order; only appended to
//   metrics.jsonl    of all tasks                       metrics/         <role>-<index>.jsonl, as each task wrote them
//   logs/            <role>-<index>.txt and what the scripts log; logs/tensorboard/<role>-<index>/
//   outputs/         what the tasks leave; outputs/by-task/<role>-<index>/ where two leave the same name
//   index.html       the page of the run, with chart.js beside it
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "estimator/history/run_record.h"
#include "estimator/job/layout.h"

namespace basin {

// "worker-1": a task's name in files' names.
std::string FileNameOf(const TaskId& task);
// Of that; nullopt for any other name.
std::optional<TaskId> TaskOfFileName(absl::string_view name);

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
  std::string RecordPath() const { return path_ + "/run.json"; }
  std::string JournalPath() const { return path_ + "/journal.jsonl"; }
  std::string MetricsPath() const { return path_ + "/metrics.jsonl"; }
  std::string PagePath() const { return path_ + "/index.html"; }
  std::string LockPath() const { return path_ + "/supervisor.lock"; }
  // file:// with all but plain characters escaped; the path is made absolute.
  std::string PageUrl() const;

 private:
  std::string path_;
};

// Held by the one process that supervises a run, and let go with it, however it ends.
class SupervisorLock final {
 public:
  // FAILED_PRECONDITION where another process holds it.
  static absl::StatusOr<SupervisorLock> Take(const RunFolder& folder);
  // Whether somebody does.
  static bool IsHeld(const RunFolder& folder);

  SupervisorLock(SupervisorLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  SupervisorLock& operator=(SupervisorLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~SupervisorLock();
  int fd() const { return fd_; }  // close-on-exec; a child that goes on supervising inherits it by fork

 private:
  explicit SupervisorLock(int fd) : fd_(fd) {}
  int fd_;
};

// The last `count` lines of a text file, at most its last 64 KiB; empty where it cannot be read.
std::vector<std::string> LastLines(const std::string& path, int count);

}  // namespace basin
