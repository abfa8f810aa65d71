// `basin supervise FOLDER`: the supervisor of a run within the batch job that was submitted for it.
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/host_name.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/run_flags.h"
#include "estimator/commands/start_run.h"
#include "estimator/history/attempts.h"
#include "estimator/history/read_run.h"
#include "estimator/history/run_history.h"
#include "estimator/launch/slurm_allocation.h"
#include "estimator/launch/slurm_launcher.h"
#include "estimator/run/submission.h"
#include "estimator/run/take_over.h"
#include "estimator/snapshot/task_tree.h"

namespace basin {
namespace {

// Whoever submitted the job may still be writing down its number.
constexpr absl::Duration kLockPatience = absl::Seconds(60);

absl::StatusOr<SupervisorLock> TakeLock(const RunFolder& folder) {
  const absl::Time until = absl::Now() + kLockPatience;
  absl::StatusOr<SupervisorLock> lock = SupervisorLock::Take(folder);
  while (absl::IsFailedPrecondition(lock.status()) && absl::Now() < until) lock = SupervisorLock::Take(folder);
  return lock;
}

// The epoch of the supervisor before; 0 where there was none.
uint64_t LastEpoch(const RunFolder& folder) {
  const absl::StatusOr<std::string> journal = ReadFile(folder.JournalPath(), size_t{1} << 30);
  if (!journal.ok()) return 0;
  const absl::StatusOr<SupervisorNote> note = ReadSupervisorNote(*journal);
  return note.ok() ? note->epoch : 0;
}

// The run as it was submitted, on the nodes of this allocation.
absl::StatusOr<SupervisedRun> ReadSubmittedRun(const CommandContext& context, const RunFolder& folder,
                                               const Submission& submission) {
  SupervisedRun run;
  run.target = submission.target;
  run.environment_spec = submission.environment_spec;
  BASIN_ASSIGN_OR_RETURN(run.record, ReadRun(folder));
  BASIN_ASSIGN_OR_RETURN(const std::string job, ReadFile(folder.path() + "/job.json", size_t{16} << 20));
  BASIN_ASSIGN_OR_RETURN(run.job, ParseJob(job, folder.path() + "/job.json"));
  BASIN_RETURN_IF_ERROR(EnterAllocation(context.variable, &run.target));
  if (run.target.nodes.size() < static_cast<size_t>(run.job.node_count)) {
    return absl::FailedPreconditionError(
        absl::StrCat("Slurm has granted ", run.target.nodes.size(), " nodes, and node_count is ", run.job.node_count));
  }
  run.target.nodes.resize(run.job.node_count);
  run.container = ContainerOf(run.job, run.target);
  BASIN_ASSIGN_OR_RETURN(run.secrets, ReadSecrets(context, run.job));
  BASIN_ASSIGN_OR_RETURN(run.plan, ProvisionalPlan(run.job, run.target, run.record.run_id));
  return run;
}

// Which life of the job this is.
struct Life {
  std::string job_id;
  int restarts = 0;
  uint64_t last_epoch = 0;  // of the supervisor before; 0: there was none
  int attempt() const { return restarts + 1; }
};

void TellAttempt(const Life& life, RunHistory& history) {
  if (life.attempt() == 1) return;
  const std::string why = absl::StrCat(
      "Slurm has restarted its job ", life.job_id, ": attempt ", life.attempt(), " of the run begins",
      life.last_epoch == 0 ? ""
                           : absl::StrCat("; what attempt ", life.restarts, " left is in attempts/", life.restarts));
  history.Journal(absl::Now(), "attempt", nlohmann::json({{"attempt", life.attempt()}, {"reason", why}}).dump());
  Info(why);
}

absl::StatusOr<RunOutcome> SuperviseInJob(const CommandContext& context, const RunFolder& folder, const Life& life,
                                          RunHistory& history) {
  BASIN_ASSIGN_OR_RETURN(const Submission submission, ReadSubmission(folder));
  BASIN_ASSIGN_OR_RETURN(SupervisedRun run, ReadSubmittedRun(context, folder, submission));
  run.epoch = life.last_epoch + 1;
  run.attempt = life.attempt();
  run.record.tasks.clear();
  history.Journal(absl::Now(), "supervisor",
                  SupervisorNoteToJson({run.epoch, ThisHost(), getpid(), false, run.target}));
  TellAttempt(life, history);
  std::optional<StagedSnapshot> snapshot;
  if (!run.job.source_directory.empty()) {
    BASIN_ASSIGN_OR_RETURN(snapshot, StagedAgain(StagedFolder(folder), run.job.snapshot_limit_mb));
    run.snapshot = &*snapshot;
    JournalSnapshot(history, *snapshot);
  }
  const std::unique_ptr<Launcher> launcher = MakeSlurmLauncher(run.target, submission.program);
  SuperviseOptions options = OptionsFor(context, LimitsFor(run.job, run.target, /*detached=*/false), folder);
  HeedSlurm(run, life.restarts, &options);
  options.sigint_means = "canceled by basin cancel";
  return Supervise(run, folder, *launcher, history, options);
}

absl::StatusOr<int> SuperviseHere(const CommandContext& context, const RunFolder& folder) {
  BASIN_ASSIGN_OR_RETURN(const SupervisorLock lock, TakeLock(folder));
  BASIN_ASSIGN_OR_RETURN(RunRecord record, ReadRun(folder));
  if (IsFinal(record.phase)) {
    Info(absl::StrCat("run ", record.run_id, " is over: ", RunPhaseName(record.phase)));
    return kExitOk;
  }
  const Life life = {AllocationHere(context.variable), RestartsHere(context.variable), LastEpoch(folder)};
  if (life.last_epoch > 0) BASIN_RETURN_IF_ERROR(SetAttemptAside(folder, std::max(1, life.restarts)));
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<RunHistory> history, RunHistory::Open(folder));
  const absl::StatusOr<RunOutcome> outcome = SuperviseInJob(context, folder, life, *history);
  if (outcome.ok() && !IsFinal(outcome->phase)) return kExitOk;  // Slurm starts it again
  RemoveTree(StagedFolder(folder)).IgnoreError();
  if (outcome.ok()) return outcome->exit_code;
  record.phase = RunPhase::kFailed;
  record.reason = std::string(outcome.status().message());
  record.ended = absl::Now();
  record.exit_code = ExitCodeFor(outcome.status());
  record.tasks.clear();
  history->Record(absl::Now(), record);
  return outcome.status();
}

}  // namespace

int SuperviseCommand(const std::vector<std::string>& arguments, const CommandContext& context) {
  if (arguments.size() != 1 || AllocationHere(context.variable).empty()) {
    Error("it is started by the batch job of a run, as `basin supervise FOLDER`; use basin submit");
    return kExitUsage;
  }
  const absl::StatusOr<int> code = SuperviseHere(context, RunFolder(arguments[0]));
  return code.ok() ? *code : Complain(code.status());
}

}  // namespace basin
