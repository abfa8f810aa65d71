#include "estimator/commands/slurm_runs.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/agent/steady_now.h"
#include "estimator/history/read_run.h"
#include "estimator/history/run_history.h"
#include "estimator/launch/slurm_script.h"
#include "estimator/launch/slurm_tools.h"
#include "estimator/run/interrupts.h"
#include "estimator/run/submission.h"
#include "estimator/snapshot/task_tree.h"
#include "estimator/snapshot/unpack.h"

namespace basin {
namespace {

// Many users ask the one slurmctld: soon at first, then rarely.
constexpr absl::Duration kFirstPause = absl::Seconds(1);
constexpr absl::Duration kMostPause = absl::Seconds(10);
constexpr absl::Duration kCancelLimit = absl::Seconds(60);

absl::Status Settle(const RunFolder& folder, const std::string& id, const std::optional<SlurmJob>& job) {
  const absl::StatusOr<SupervisorLock> lock = SupervisorLock::Take(folder);
  if (!lock.ok()) return absl::OkStatus();  // somebody writes it
  BASIN_ASSIGN_OR_RETURN(RunRecord record, ReadRun(folder));
  if (IsFinal(record.phase) || BatchJobOf(folder) != id) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<RunHistory> history, RunHistory::Open(folder));
  const SlurmEnd end = EndOf(id, job, HasBegun(folder), folder.path());
  record.phase = end.phase;
  record.reason = end.reason;
  record.ended = absl::Now();
  record.exit_code = kExitFailed;
  history->Record(absl::Now(), record);
  RemoveTree(StagedFolder(folder)).IgnoreError();
  return absl::OkStatus();
}

// Asks Slurm of a run that nobody supervises.
class QueueWatch {
 public:
  explicit QueueWatch(const RunFolder& folder) : folder_(folder) {}

  absl::StatusOr<bool> WillGoOn() {
    const absl::Time now = SteadyNow();
    if (now < next_) return true;
    next_ = now + pause_;
    pause_ = std::min(pause_ * 1.5, kMostPause);
    const std::string id = BatchJobOf(folder_);
    const absl::StatusOr<std::optional<SlurmJob>> job = AskSlurm(id);
    if (!job.ok()) {
      if (absl::IsFailedPrecondition(job.status())) return job.status();  // there is no Slurm here
      Tell(absl::StrCat(job.status().message(), "; the run is not hurt by that"));
    } else if (!*job || (*job)->is_over()) {
      BASIN_RETURN_IF_ERROR(Settle(folder_, id, *job));
    } else if ((*job)->is_waiting()) {
      Tell(WaitingText(**job));
    } else if ((*job)->state == "RUNNING") {
      Tell(absl::StrCat("Slurm's job ", id, " runs on ", (*job)->nodes));
    }
    return true;
  }

 private:
  void Tell(const std::string& text) {
    if (text == told_) return;
    told_ = text;
    pause_ = kFirstPause;
    Info(text);
  }

  const RunFolder& folder_;
  absl::Time next_ = absl::InfinitePast();
  absl::Duration pause_ = kFirstPause;
  std::string told_;
};

}  // namespace

absl::StatusOr<std::string> ScriptOf(const SupervisedRun& run, const std::string& program, const RunFolder& folder) {
  return SlurmScript(run.job, run.target.slurm.options, program, folder.path());
}

absl::StatusOr<std::string> SubmitToQueue(const SupervisedRun& run, const RunFolder& folder,
                                          const std::string& program) {
  BASIN_ASSIGN_OR_RETURN(const SupervisorLock lock, SupervisorLock::Take(folder));
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<RunHistory> history, RunHistory::Open(folder));
  history->Record(absl::Now(), run.record);
  if (!run.job.source_directory.empty()) {
    TreeOptions options;
    options.limit_mb = run.job.snapshot_limit_mb;
    options.never = {folder.path()};
    BASIN_RETURN_IF_ERROR(StageSnapshot(run.job.source_directory, StagedFolder(folder), options).status());
  }
  BASIN_RETURN_IF_ERROR(WriteSubmission(folder, {run.target, run.environment_spec, program}));
  const std::string script = folder.path() + "/slurm.sh";
  BASIN_ASSIGN_OR_RETURN(const std::string text, ScriptOf(run, program, folder));
  BASIN_RETURN_IF_ERROR(WriteFileAtomically(script, text, 0700));
  BASIN_ASSIGN_OR_RETURN(const std::string id, SubmitToSlurm(script));
  history->Journal(absl::Now(), "slurm", nlohmann::json({{"job", id}, {"script", script}}).dump());
  RunRecord record = run.record;
  record.phase = RunPhase::kQueued;
  record.reason = absl::StrCat("Slurm's job ", id);
  history->Record(absl::Now(), record);
  return id;
}

absl::StatusOr<FollowEnd> FollowQueuedRun(const RunFolder& folder, std::FILE* lines, bool may_cancel) {
  QueueWatch watch(folder);
  Interrupts interrupts;
  bool canceled = false;
  absl::Status failed;
  FollowOptions options;
  options.from_the_beginning = may_cancel;
  options.will_go_on = [&watch] { return watch.WillGoOn(); };
  if (may_cancel) {
    options.on_signal = [&](int, bool by_keyboard) {
      switch (interrupts.OnSignal(by_keyboard, canceled, SteadyNow())) {
        case Interrupts::kAsk:
          Info(absl::StrCat("press Ctrl-C again within ", absl::ToInt64Seconds(Interrupts::kAskedFor),
                            " s to cancel the run (it goes on without this terminal: basin attach)"));
          return false;
        case Interrupts::kCancel:
        case Interrupts::kKill:
          break;
      }
      Info(canceled ? "killing all tasks" : "canceling the run; once more kills all tasks at once");
      canceled = true;
      failed = CancelQueuedRun(folder);
      return !failed.ok();
    };
  }
  BASIN_ASSIGN_OR_RETURN(const FollowEnd end, FollowRun(folder, lines, options));
  if (!failed.ok()) return failed;
  return end;
}

absl::Status SettleQueuedRun(const RunFolder& folder) {
  const std::string id = BatchJobOf(folder);
  if (id.empty() || SupervisorLock::IsHeld(folder)) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
  if (IsFinal(record.phase)) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const std::optional<SlurmJob> job, AskSlurm(id));
  return job && !job->is_over() ? absl::OkStatus() : Settle(folder, id, job);
}

absl::Status CancelQueuedRun(const RunFolder& folder) {
  const std::string id = BatchJobOf(folder);
  const absl::Time until = absl::Now() + kCancelLimit;
  bool told = false;
  absl::Time ask_at = absl::InfinitePast();
  absl::Duration pause = kFirstPause;
  while (true) {
    BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
    if (IsFinal(record.phase) || (told && record.phase == RunPhase::kCancelRequested)) return absl::OkStatus();
    if (absl::Now() >= ask_at) {
      const bool supervised = SupervisorLock::IsHeld(folder);
      BASIN_ASSIGN_OR_RETURN(const std::optional<SlurmJob> job, AskSlurm(id));
      if (!supervised && (!job || job->is_over())) {
        BASIN_RETURN_IF_ERROR(Settle(folder, id, job));
      } else if (job && job->state == "CONFIGURING" && !supervised) {
        // Its nodes are being made ready: it is in no queue, and there is no script to tell.
        BASIN_RETURN_IF_ERROR(EndSlurmJob(id));
      } else if (job && job->is_waiting()) {
        BASIN_RETURN_IF_ERROR(TakeFromQueue(id));
      } else if (supervised && !told) {
        // Once: a second time kills.
        BASIN_RETURN_IF_ERROR(TellBatchScript(id));
        told = true;
      }
      ask_at = absl::Now() + pause;
      pause = std::min(pause * 1.5, kMostPause);
    }
    if (absl::Now() >= until) {
      return absl::UnavailableError(absl::StrCat("run ", record.run_id, " has not answered within ",
                                                 absl::FormatDuration(kCancelLimit), "; scancel ", id,
                                                 " ends its job for good"));
    }
    absl::SleepFor(absl::Milliseconds(100));
  }
}

}  // namespace basin
