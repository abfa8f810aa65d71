#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/run_flags.h"
#include "estimator/commands/runs_place.h"
#include "estimator/commands/submit_pods.h"
#include "estimator/commands/slurm_runs.h"
#include "estimator/history/read_run.h"
#include "estimator/run/control_socket.h"
#include "estimator/run/detach.h"
#include "estimator/run/follow.h"
#include "estimator/run/submission.h"
#include "estimator/run/take_over.h"

namespace basin {
namespace {

constexpr absl::Duration kAnswerTime = absl::Seconds(10);

// Becomes the supervisor of a run that has none, and takes it to its end. `held`, where given, is called once it is.
absl::StatusOr<RunOutcome> SuperviseFurther(const CommandContext& context, const RunFolder& folder, bool cancel,
                                            const std::function<void()>& held = nullptr) {
  BASIN_ASSIGN_OR_RETURN(const SupervisorLock lock, SupervisorLock::Take(folder));
  SupervisorNote note;
  BASIN_ASSIGN_OR_RETURN(const SupervisedRun run, ReadRunToTakeOver(folder, &note));
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<RunHistory> history, RunHistory::Open(folder));
  note.epoch = run.epoch;
  note.pid = getpid();
  history->Journal(absl::Now(), "supervisor", SupervisorNoteToJson(note));
  SuperviseOptions options = OptionsFor(context, LimitsFor(run.job, run.target, /*detached=*/true), folder);
  options.cancel = cancel;
  if (held) options.on_phase = [&held](RunPhase) { held(); };
  if (run.target.kind == TargetKind::kKubernetes) return SuperviseOnPods(run, nullptr, folder, *history, options);
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<Launcher> launcher, LauncherToTakeOver(context, run.target));
  return Supervise(run, folder, *launcher, *history, options);
}

// Starts a supervisor in the background; OK once it holds the run.
absl::Status TakeOver(const CommandContext& context, const RunFolder& folder) {
  SupervisorNote note;
  BASIN_RETURN_IF_ERROR(ReadRunToTakeOver(folder, &note).status());  // what is wrong is said here
  BASIN_ASSIGN_OR_RETURN(const Forked forked, ForkToBackground(folder.path() + "/supervisor.log"));
  if (!forked.in_background) {
    const absl::Status failed = ErrorOfReport(ReadReport(forked.report));
    if (SupervisorLock::IsHeld(folder)) return absl::OkStatus();
    BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
    if (IsFinal(record.phase)) return absl::OkStatus();
    if (!failed.ok()) return failed;
    return absl::InternalError(
        absl::StrCat("run ", record.run_id, " could not be taken over; see ", folder.path(), "/supervisor.log"));
  }
  // Whoever is faster supervises, and both follow.
  bool reported = false;
  const auto report = [&](const std::string& line) {
    if (!reported) WriteReport(forked.report, line);
    reported = true;
  };
  const absl::StatusOr<RunOutcome> outcome =
      SuperviseFurther(context, folder, /*cancel=*/false, [&report] { report("held"); });
  if (!outcome.ok()) {
    report(ErrorReport(outcome.status()));
    Error(std::string(outcome.status().message()));
  }
  _exit(outcome.ok() ? outcome->exit_code : kExitFailed);
}

absl::StatusOr<int> Attach(const CommandContext& context, const RunFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const RunFolder folder, RunOf(context, flags));
  // In a batch job's place nobody else can supervise it.
  const bool in_queue = !BatchJobOf(folder).empty();
  while (true) {
    BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
    if (!IsFinal(record.phase) && !in_queue && !SupervisorLock::IsHeld(folder)) {
      Info(absl::StrCat("run ", record.run_id, " has no supervisor; this one goes on with it"));
      BASIN_RETURN_IF_ERROR(TakeOver(context, folder));
    } else if (!IsFinal(record.phase)) {
      Info(absl::StrCat("run ", record.run_id, " is ", RunPhaseName(record.phase),
                        "; Ctrl-C leaves it running, basin cancel ends it"));
    }
    std::FILE* const lines = flags.json ? stderr : stdout;
    const absl::StatusOr<FollowEnd> followed =
        in_queue ? FollowQueuedRun(folder, lines, /*may_cancel=*/false) : FollowRun(folder, lines);
    BASIN_ASSIGN_OR_RETURN(const FollowEnd end, followed);
    if (end == FollowEnd::kUnsupervised) continue;
    BASIN_ASSIGN_OR_RETURN(const RunRecord last, ReadRun(folder));
    if (end == FollowEnd::kDetached) {
      Info(absl::StrCat("run ", last.run_id, " goes on; follow it again: basin attach ", last.run_id));
      return kExitOk;
    }
    PrintOutcome(last, 0, folder, flags.json);
    return last.exit_code.value_or(last.phase == RunPhase::kCompleted ? kExitOk : kExitFailed);
  }
}

absl::StatusOr<int> Cancel(const CommandContext& context, const RunFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const RunFolder folder, RunOf(context, flags));
  BASIN_ASSIGN_OR_RETURN(RunRecord record, ReadRun(folder));
  if (IsFinal(record.phase)) {
    if (!flags.json) Info(absl::StrCat("run ", record.run_id, " is over: ", RunPhaseName(record.phase)));
  } else if (!BatchJobOf(folder).empty()) {
    BASIN_RETURN_IF_ERROR(CancelQueuedRun(folder));
    BASIN_ASSIGN_OR_RETURN(record, ReadRun(folder));
  } else if (SupervisorLock::IsHeld(folder)) {
    if (const absl::Status told = TellSupervisor(folder.path(), "cancel", kAnswerTime); !told.ok()) {
      // Of a folder of runs that hosts share, the lock may be seen here, but not the socket.
      SupervisorNote note;
      const absl::Status why = ReadRunToTakeOver(folder, &note).status();
      return why.ok() ? told : why;
    }
    // Told is not done: the state that the supervisor then writes is the answer.
    const absl::Time until = absl::Now() + kAnswerTime;
    while (absl::Now() < until) {
      BASIN_ASSIGN_OR_RETURN(record, ReadRun(folder));
      if (record.phase == RunPhase::kCancelRequested || IsFinal(record.phase)) break;
      absl::SleepFor(absl::Milliseconds(20));
    }
  } else {
    BASIN_RETURN_IF_ERROR(SuperviseFurther(context, folder, /*cancel=*/true).status());
    BASIN_ASSIGN_OR_RETURN(record, ReadRun(folder));
  }
  if (flags.json) {
    std::printf(
        "%s\n",
        nlohmann::ordered_json({{"run_id", record.run_id}, {"state", RunPhaseName(record.phase)}}).dump().c_str());
  } else {
    std::printf("run %s: %s\n", record.run_id.c_str(), RunPhaseName(record.phase));
  }
  return kExitOk;
}

}  // namespace

void AddAttach(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* attach = app.add_subcommand(
      "attach",
      "Follows a run to its end, with its exit code; where its supervisor is gone, a new one goes on with it");
  const auto flags = std::make_shared<RunFlags>();  // the callback keeps it
  AddRunOption(*attach, flags.get());
  AddJsonOption(*attach, flags.get(), "Print the run's record at the end as JSON on standard output");
  attach->footer(
      "Ctrl-C leaves the run running; the exit code is then 0.\n"
      "Exit code: the run's: 0 completed, 1 failed or canceled, 2 wrong input (also of this command).");
  attach->callback([&context, exit_code, flags] {
    const absl::StatusOr<int> code = Attach(context, *flags);
    *exit_code = code.ok() ? *code : Complain(code.status());
  });
}

void AddCancel(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* cancel = app.add_subcommand("cancel", "Ends a run: every process on every node, within its grace");
  const auto flags = std::make_shared<RunFlags>();  // the callback keeps it
  AddRunOption(*cancel, flags.get());
  AddJsonOption(*cancel, flags.get(), "Print {\"run_id\", \"state\"} as JSON");
  cancel->footer(
      "It returns when the run has heard it; basin attach waits for the end. A second time kills what does not end.\n"
      "Exit code: 0 done, or the run was over already; 1 it could not be told; 2 wrong input.");
  cancel->callback([&context, exit_code, flags] {
    const absl::StatusOr<int> code = Cancel(context, *flags);
    *exit_code = code.ok() ? *code : Complain(code.status());
  });
}

}  // namespace basin
