// What Slurm says of a job, read and understood. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/run/run_phase.h"
#include "estimator/run/supervisor.h"

namespace basin {

struct SlurmJob {
  std::string id;
  std::string state;      // "PENDING", "RUNNING", "COMPLETING", "CANCELLED", ...
  std::string reason;     // "Resources", "TimeLimit"; empty for None
  std::string exit_code;  // "0:9", of the batch script
  std::string start;      // when it starts, or is expected to; empty where not known
  std::string nodes;      // h[0-2]
  int restarts = 0;
  bool preempted = false;  // in this life
  bool is_waiting() const;
  // Nothing of it runs any more, and it does not come back.
  bool is_over() const;
};

// Of `scontrol show job -o ID`. NOT_FOUND where that is no job.
absl::StatusOr<SlurmJob> ParseSlurmJob(absl::string_view text);

// "h0\nh1\n" of `scontrol show hostnames`.
std::vector<std::string> ParseHostNames(absl::string_view text);
// "2(x3),4": by node. INVALID_ARGUMENT for anything else.
absl::StatusOr<std::vector<int>> ParseCpusPerNode(absl::string_view text);

// What Slurm is doing to a job whose batch script lives, and was started after `restarts` restarts. Where Slurm says
// only that the job is ending (it hides why), and has not preempted it, that was scancel.
BatchVerdict VerdictOf(const SlurmJob& job, int restarts);

// How a run ended whose job is over, and whose supervisor has not said it. `job` is empty where Slurm has forgotten it;
// `started`: a supervisor had begun.
struct SlurmEnd {
  RunPhase phase = RunPhase::kFailed;
  std::string reason;
};
SlurmEnd EndOf(const std::string& id, const std::optional<SlurmJob>& job, bool started, const std::string& folder);

// Why a job waits, for people: "Slurm's job 12 waits: Resources (expected to start 2026-11-29T04:00:00)".
std::string WaitingText(const SlurmJob& job);

}  // namespace basin
