#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/run_flags.h"
#include "estimator/commands/runs_place.h"
#include "estimator/commands/slurm_runs.h"
#include "estimator/commands/start_run.h"
#include "estimator/commands/submit_pods.h"
#include "estimator/environment/environment_spec.h"
#include "estimator/history/git_state.h"
#include "estimator/history/read_run.h"
#include "estimator/history/run_folder.h"
#include "estimator/job/job.h"
#include "estimator/job/job_checks.h"
#include "estimator/job/plan.h"
#include "estimator/job/role_needs.h"
#include "estimator/launch/slurm_allocation.h"
#include "estimator/run/detach.h"
#include "estimator/run/take_over.h"
#include "estimator/snapshot/tree.h"

namespace basin {
namespace {

struct SubmitFlags {
  std::string job;
  std::vector<std::string> params;
  std::vector<std::string> inputs;
  std::string runs;
  std::string programs;
  TargetFlags target;
  bool detach = false;
  bool dry_run = false;
  bool json = false;
};

absl::StatusOr<Job> ReadJob(const SubmitFlags& flags) {
  JobOverrides overrides{flags.params, {}, FolderOf(flags.job)};
  for (const std::string& input : flags.inputs) {
    // A path of the command line is meant from where the command is given, one of the file from where the file lies.
    const std::pair<std::string, std::string> parts = absl::StrSplit(input, absl::MaxSplits('=', 1));
    // One that is refused is left as it was given.
    const bool is_plain = parts.second.empty() || absl::StartsWith(parts.second, "~");
    overrides.inputs.push_back(is_plain ? input : absl::StrCat(parts.first, "=", AbsolutePath(parts.second)));
  }
  BASIN_ASSIGN_OR_RETURN(Job job, ReadJobFile(flags.job, overrides));
  BASIN_RETURN_IF_ERROR(CheckJobFiles(job));
  return job;
}

// What can be seen from here before anything starts; the nodes look again.
absl::Status CheckHere(const Job& job, const SubmitFlags& flags) {
  for (const JobInput& input : job.inputs) {
    std::error_code error;
    if (input.path.find_first_of("*?[") == std::string::npos && !std::filesystem::exists(input.path, error)) {
      return absl::NotFoundError(absl::StrCat("inputs: ", input.name, ": ", input.path,
                                              " does not exist; correct the path in ", flags.job, " or give --input ",
                                              input.name, "=PATH"));
    }
  }
  if (flags.programs.empty()) return absl::OkStatus();
  for (const char* program : {"basin-ps", "basin-worker"}) {
    const std::string path = AbsolutePath(flags.programs) + "/" + program;
    if (access(path.c_str(), X_OK) == 0) continue;
    return absl::NotFoundError(
        absl::StrCat("program ", program, " not found in ", flags.programs, "; name its folder with --programs DIR"));
  }
  return absl::OkStatus();
}

// The supervisor's part, in this process.
absl::StatusOr<RunOutcome> SuperviseNewRun(const CommandContext& context, const SubmitFlags& flags, SupervisedRun& run,
                                           const RunFolder& folder, const std::string& runs,
                                           std::function<void(RunPhase)> on_phase) {
  BASIN_ASSIGN_OR_RETURN(const SupervisorLock lock, SupervisorLock::Take(folder));
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<RunHistory> history, RunHistory::Open(folder));
  history->Record(absl::Now(), run.record);
  history->Journal(absl::Now(), "supervisor",
                   SupervisorNoteToJson({run.epoch, ThisHost(), getpid(), flags.detach, run.target}));
  SuperviseOptions options = OptionsFor(context, LimitsFor(run.job, run.target, flags.detach), folder);
  options.on_phase = std::move(on_phase);
  if (run.target.kind == TargetKind::kKubernetes) {
    BASIN_ASSIGN_OR_RETURN(const std::string packed, PackedSource(context, run, {runs}, history.get()));
    return SuperviseOnPods(run, &packed, folder, *history, options);
  }
  std::optional<StagedSnapshot> snapshot;
  if (!run.job.source_directory.empty()) {
    BASIN_ASSIGN_OR_RETURN(const std::string base, BaseFolder(context, run.target));
    TreeOptions tree;
    tree.limit_mb = run.job.snapshot_limit_mb;
    tree.never = {runs, base};
    BASIN_ASSIGN_OR_RETURN(snapshot, StageSnapshot(run.job.source_directory, base, tree));
    run.snapshot = &*snapshot;
    JournalSnapshot(*history, *snapshot);
  }
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<Launcher> launcher, LauncherFor(context, run.target, flags.programs));
  HeedSlurm(run, RestartsHere(context.variable), &options);
  return Supervise(run, folder, *launcher, *history, options);
}

// A run that came to nothing before its supervisor's loop began is Failed in its history too.
void RecordFailure(const RunFolder& folder, RunRecord record, const absl::Status& status) {
  const absl::StatusOr<std::unique_ptr<RunHistory>> history = RunHistory::Open(folder);
  if (!history.ok()) return;
  record.phase = RunPhase::kFailed;
  record.reason = std::string(status.message());
  record.ended = absl::Now();
  record.exit_code = ExitCodeFor(status);
  (*history)->Record(absl::Now(), record);
}

// In the new process: supervises to the end, and reports when the run is Running or over.
int SuperviseInBackground(const CommandContext& context, const SubmitFlags& flags, SupervisedRun& run,
                          const RunFolder& folder, const std::string& runs, const UniqueFd& report) {
  bool reported = false;
  const auto tell = [&](const std::string& line) {
    if (!reported) WriteReport(report, line);
    reported = true;
  };
  const absl::StatusOr<RunOutcome> outcome = SuperviseNewRun(context, flags, run, folder, runs, [&](RunPhase phase) {
    // One that waits for room may do so for long.
    if (phase == RunPhase::kRunning || phase == RunPhase::kQueued) tell("running");
  });
  if (!outcome.ok()) {
    RecordFailure(folder, run.record, outcome.status());
    tell(ErrorReport(outcome.status()));
    return Complain(outcome.status());
  }
  tell(absl::StrCat("ended ", outcome->exit_code));
  return outcome->exit_code;
}

absl::StatusOr<int> SubmitDetached(const CommandContext& context, const SubmitFlags& flags, SupervisedRun& run,
                                   const RunFolder& folder, const std::string& runs) {
  const std::string log = folder.path() + "/supervisor.log";
  BASIN_ASSIGN_OR_RETURN(const Forked forked, ForkToBackground(log));
  if (forked.in_background) return SuperviseInBackground(context, flags, run, folder, runs, forked.report);
  const std::string report = ReadReport(forked.report);
  int code = kExitOk;
  if (report.empty()) {
    return absl::InternalError(absl::StrCat("the supervisor of run ", run.record.run_id, " ended at once; see ", log));
  }
  BASIN_RETURN_IF_ERROR(ErrorOfReport(report));
  if (absl::StartsWith(report, "ended ")) {
    if (!absl::SimpleAtoi(absl::StripPrefix(report, "ended "), &code)) code = kExitFailed;
    for (const std::string& line : LastLines(log, 40)) std::fprintf(stderr, "%s\n", line.c_str());
  }
  BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
  PrintOutcome(record, 0, folder, flags.json);
  if (!flags.json && !IsFinal(record.phase)) {
    std::printf("follow it: basin attach %s; end it: basin cancel %s\n", record.run_id.c_str(), record.run_id.c_str());
  }
  return code;
}

// The target with the job's options, and the nodes of the allocation in which this is; before there is one, nodes that
// stand for those to come.
absl::Status ReadySlurm(const CommandContext& context, const Job& job, bool queued, Target* target) {
  target->slurm.options = MergedSlurmOptions(target->slurm.options, job.slurm);
  if (absl::StartsWith(target->folder, "~/")) target->folder = context.home + target->folder.substr(1);
  if (absl::StartsWith(target->programs, "~/")) target->programs = context.home + target->programs.substr(1);
  if (!queued) {
    if (job.slurm != SlurmOptions())
      Warn("the group slurm counts for jobs that are queued; this allocation is there already");
    return EnterAllocation(context.variable, target);
  }
  for (int node = 0; node < job.node_count; ++node) {
    const std::string name = absl::StrCat("node-", node);
    target->nodes.push_back({name, name, "", 0});
  }
  return absl::OkStatus();
}

void PrintDryRun(const SupervisedRun& run, const std::string& script, bool as_json) {
  if (as_json) {
    nlohmann::ordered_json plan = nlohmann::ordered_json::parse(PlanToJson(run.plan));
    if (!script.empty()) plan["slurm_script"] = script;
    std::printf("%s\n", plan.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return;
  }
  std::printf("dry run: nothing is started; ports are %s\n",
              run.target.kind == TargetKind::kLocal ? "those that are free now" : "those that are tried first");
  if (!script.empty()) {
    std::printf("Slurm chooses the nodes; node-0 and its kin stand for them. sbatch would be given:\n%s\n",
                script.c_str());
  }
  std::fputs(PlanToText(run.plan).c_str(), stdout);
}

// By sbatch: a supervisor starts with the job, and this process only follows.
absl::StatusOr<int> SubmitQueued(SupervisedRun& run, const RunFolder& folder, const SubmitFlags& flags) {
  run.target.nodes.clear();
  const absl::StatusOr<std::string> id = SubmitToQueue(run, folder, ProgramFor(run.target, flags.programs));
  if (!id.ok()) {
    RecordFailure(folder, run.record, id.status());
    return id.status();
  }
  Info(absl::StrCat("run ", run.record.run_id, " is Slurm's job ", *id, ", and goes on without this terminal"));
  if (!flags.detach) {
    BASIN_ASSIGN_OR_RETURN(const FollowEnd end, FollowQueuedRun(folder, flags.json ? stderr : stdout, true));
    BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
    PrintOutcome(record, 0, folder, flags.json);
    return end == FollowEnd::kOver ? record.exit_code.value_or(kExitFailed) : kExitFailed;
  }
  BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
  PrintOutcome(record, 0, folder, flags.json);
  if (!flags.json) {
    std::printf("follow it: basin attach %s; end it: basin cancel %s\n", record.run_id.c_str(), record.run_id.c_str());
  }
  return kExitOk;
}

void TellLeftOut(const Job& job) {
  if (job.source_directory.empty()) return;
  const std::vector<std::string> names = LeftOutAsOfRuns(job.source_directory);
  if (names.empty()) return;
  Info(absl::StrCat(absl::StrJoin(names, "/ and "), "/ of ", job.source_directory,
                    " stay here, for they would pass for what the run has made; move what the script reads elsewhere"));
}

absl::StatusOr<int> Submit(const CommandContext& context, const SubmitFlags& flags) {
  SupervisedRun run;
  BASIN_ASSIGN_OR_RETURN(run.job, ReadJob(flags));
  BASIN_ASSIGN_OR_RETURN(run.target, ChosenTarget(context, flags.target, run.job.compute_target, FolderOf(flags.job)));
  run.job.compute_target = run.target.name;
  const bool on_pods = run.target.kind == TargetKind::kKubernetes;
  const bool queued = run.target.kind == TargetKind::kSlurm && AllocationHere(context.variable).empty();
  BASIN_RETURN_IF_ERROR(CheckRolesOnTarget(run.job, run.target.kind == TargetKind::kSlurm || on_pods));
  if (run.target.kind == TargetKind::kSlurm) BASIN_RETURN_IF_ERROR(ReadySlurm(context, run.job, queued, &run.target));
  if (!on_pods) {
    BASIN_RETURN_IF_ERROR(CheckTarget(run.job, static_cast<int>(run.target.nodes.size())));
    run.target.nodes.resize(run.job.node_count);
  }
  if (run.target.kind == TargetKind::kLocal) {
    BASIN_RETURN_IF_ERROR(CheckHere(run.job, flags));
    // Recorded, for whoever takes the run over may have another environment.
    BASIN_ASSIGN_OR_RETURN(run.target.folder, BaseFolder(context, run.target));
  } else if (on_pods && !flags.programs.empty()) {
    run.target.kubernetes.programs = flags.programs;
  } else if (!flags.programs.empty()) {
    run.target.programs = flags.programs;
  }
  BASIN_ASSIGN_OR_RETURN(const std::string runs, RunsFolderOf(context, flags.runs));
  const std::string run_id =
      absl::StrCat(absl::FormatTime("%Y%m%d-%H%M%S-", absl::Now(), absl::UTCTimeZone()), SecretHex(3));
  if (on_pods) {
    BASIN_RETURN_IF_ERROR(PlanPods(&run, run_id, flags.dry_run));
  } else {
    BASIN_ASSIGN_OR_RETURN(run.plan, ProvisionalPlan(run.job, run.target, run_id));
    std::vector<std::string> names;
    for (const TargetNode& node : run.target.nodes) names.push_back(node.name);
    if (const std::string idle = NodesWithoutTask(run.job, names); !idle.empty()) Warn(idle);
  }
  BASIN_RETURN_IF_ERROR(CheckScriptTravels(run.job, run.target));
  BASIN_ASSIGN_OR_RETURN(run.secrets, ReadSecrets(context, run.job));
  BASIN_ASSIGN_OR_RETURN(const EnvironmentSpec environment, ReadEnvironmentSpec(run.job));
  // With an image the environment is made within it, on Kubernetes by the pod.
  if (environment.kind != EnvironmentSpec::Kind::kNone || (!run.job.image.empty() && !on_pods)) {
    run.environment_spec = EnvironmentSpecToText(environment);
  }
  if (flags.dry_run && on_pods) {
    BASIN_RETURN_IF_ERROR(PrintManifests(context, run, flags.json));
    return kExitOk;
  }
  if (!on_pods) run.container = ContainerOf(run.job, run.target);
  const RunFolder folder(RunFolder::PathFor(runs, run.job.experiment, run_id));
  std::string script;
  if (queued) {
    BASIN_ASSIGN_OR_RETURN(script, ScriptOf(run, ProgramFor(run.target, flags.programs), folder));
  }
  if (flags.dry_run) {
    PrintDryRun(run, script, flags.json);
    return kExitOk;
  }

  // Before there is a run that could only fail.
  if (run.target.kind == TargetKind::kLocal || (!queued && !run.job.source_directory.empty())) {
    BASIN_RETURN_IF_ERROR(MadeBaseFolder(context, run.target).status());
  }
  BASIN_RETURN_IF_ERROR(CreateRunFolder(folder, runs));
  BASIN_RETURN_IF_ERROR(folder.WriteJob(JobToJson(run.job)));
  BASIN_RETURN_IF_ERROR(folder.WritePlan(PlanToJson(run.plan)));
  run.record.run_id = run_id;
  run.record.experiment = run.job.experiment;
  run.record.created = absl::Now();
  run.record.target = run.target.name;
  if (!run.job.source_directory.empty()) run.record.git = GitState(run.job.source_directory);
  Info(absl::StrCat("run ", run_id, ": ", run.plan.tasks.size(), run.plan.tasks.size() == 1 ? " task" : " tasks",
                    run.target.kind == TargetKind::kLocal ? "" : absl::StrCat(" on ", run.target.name), ", folder ",
                    folder.path(), ", page ", folder.PageUrl()));
  TellLeftOut(run.job);
  if (queued) return SubmitQueued(run, folder, flags);
  if (flags.detach) return SubmitDetached(context, flags, run, folder, runs);
  const absl::StatusOr<RunOutcome> outcome = SuperviseNewRun(context, flags, run, folder, runs, nullptr);
  if (!outcome.ok()) {
    RecordFailure(folder, run.record, outcome.status());
    return outcome.status();
  }
  PrintOutcome(outcome->record, outcome->last_step, folder, flags.json);
  return outcome->exit_code;
}

}  // namespace

void AddSubmit(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* submit =
      app.add_subcommand("submit", "Runs a job: starts its tasks, follows them, and stops them together");
  const auto flags = std::make_shared<SubmitFlags>();  // the callback keeps it
  submit->add_option("JOB", flags->job, "The job file, YAML or JSON")->type_name("")->required();
  submit
      ->add_option("--param", flags->params,
                   "Sets one of script_params: --param --lr=.1, --param --verbose; repeatable")
      ->type_name("FLAG")
      ->allow_extra_args(false)
      ->take_all();
  submit->add_option("--input", flags->inputs, "Sets the path of an input: --input data=/data/mnist; repeatable")
      ->type_name("NAME=PATH")
      ->allow_extra_args(false)
      ->take_all();
  AddTargetFlags(*submit, &flags->target);
  NotEmpty(submit->add_option("--runs", flags->runs,
                              "Folder of the runs' folders; default: BASIN_RUNS, else ~/.local/state/basin/runs"))
      ->type_name("DIR")
      ->take_last();
  NotEmpty(
      submit->add_option("--programs", flags->programs,
                         "Folder of basin, basin-ps and basin-worker on the machines; default: that of basin, what "
                         "is sent, or PATH"))
      ->type_name("DIR")
      ->take_last();
  submit->add_flag("--detach", flags->detach,
                   "Return once the run is Running (or Queued), and leave it in the background");
  submit->add_flag(
      "--dry-run", flags->dry_run,
      "Print each task's command and TF_CONFIG (under Slurm: the script too; on Kubernetes: all objects), and "
      "start nothing");
  submit->add_flag("--json", flags->json,
                   "Print the plan (with --dry-run) or the run's record as JSON on standard output");
  submit->footer(
      "On a terminal Ctrl-C asks, a second one within 5 s cancels the run, and a third one kills it; SIGTERM cancels.\n"
      "Exit code: 0 completed, 1 failed or canceled, 2 wrong input.\n"
      "The last line on standard output is the test accuracy (of wide_deep the test AUC), where the job has an "
      "evaluator.\n"
      "The fields of the job file: docs/estimator.md.");
  submit->allow_extras();  // refused by name below: fields of the job file are often among them
  submit->callback([&context, exit_code, flags, submit] {
    if (!submit->remaining().empty()) {
      const std::string word = submit->remaining()[0];
      *exit_code = Complain(UnknownOverride(word, NearestFlag(*submit, word)));
      return;
    }
    const absl::StatusOr<int> code = Submit(context, *flags);
    *exit_code = code.ok() ? *code : Complain(code.status());
  });
}

}  // namespace basin
