#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "estimator/commands.h"
#include "estimator/job.h"
#include "estimator/local_node.h"
#include "estimator/plan.h"
#include "estimator/progress_view.h"
#include "estimator/run_folder.h"
#include "estimator/supervisor.h"

namespace basin {
namespace {

struct SubmitFlags {
  std::string job;
  std::vector<std::string> params;
  std::vector<std::string> inputs;
  std::string runs;
  std::string programs;
  bool dry_run = false;
  bool json = false;
};

std::string Absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

absl::StatusOr<Job> ReadJob(const SubmitFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.job, size_t{2} << 20));
  JobOverrides overrides{flags.params, {}, std::filesystem::path(Absolute(flags.job)).parent_path().string()};
  for (const std::string& input : flags.inputs) {
    // A path of the command line is meant from where the command is given, one of the file from where the file lies.
    const std::pair<std::string, std::string> parts = absl::StrSplit(input, absl::MaxSplits('=', 1));
    overrides.inputs.push_back(parts.second.empty() ? input : absl::StrCat(parts.first, "=", Absolute(parts.second)));
  }
  BASIN_ASSIGN_OR_RETURN(Job job, ParseJob(text, flags.job, overrides));
  for (const JobInput& input : job.inputs) {
    std::error_code error;
    if (!std::filesystem::exists(input.path, error)) {
      return absl::NotFoundError(absl::StrCat("inputs: ", input.name, ": ", input.path,
                                              " does not exist; correct the path in ", flags.job, " or give --input ",
                                              input.name, "=PATH"));
    }
  }
  return job;
}

absl::StatusOr<std::string> RunsFolder(const CommandContext& context, const SubmitFlags& flags) {
  if (!flags.runs.empty()) return Absolute(flags.runs);
  if (!context.runs.empty()) return Absolute(context.runs);
  if (context.home.empty()) {
    return absl::InvalidArgumentError("submit: where do runs go? HOME is not set; give --runs DIR or set BASIN_RUNS");
  }
  return absl::StrCat(context.home, "/.local/state/basin/runs");
}

int TerminalWidth() {
  winsize size = {};
  if (isatty(STDERR_FILENO) == 0) return 0;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 80;
  return size.ws_col;
}

// What the evaluator left: null where there is nothing, or nothing readable.
nlohmann::json Evaluation(const RunFolder& folder) {
  const absl::StatusOr<std::string> text = ReadFile(folder.OutputPath("evaluation.json"), size_t{1} << 20);
  if (!text.ok()) return nullptr;
  const nlohmann::json json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return json.is_object() ? json : nlohmann::json(nullptr);
}

void PrintOutcome(const RunOutcome& outcome, const RunFolder& folder, bool as_json) {
  const nlohmann::json evaluation = Evaluation(folder);
  const RunRecord& record = outcome.record;
  if (as_json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::parse(RunRecordToJson(record));
    out["run_folder"] = folder.path();
    if (!evaluation.is_null()) out["evaluation"] = evaluation;
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return;
  }
  const bool completed = outcome.phase == RunPhase::kCompleted;
  std::string line = absl::StrCat("run ", record.run_id, ": ", RunPhaseName(outcome.phase), " after ",
                                  ShortDuration(record.ended.value_or(record.created) - record.created));
  if (outcome.last_step > 0) absl::StrAppend(&line, ", ", outcome.last_step, " steps seen");
  if (!completed) absl::StrAppend(&line, ": ", record.reason);
  absl::StrAppend(&line, "\nfolder ", folder.path(), "\n");
  std::error_code error;
  if (const std::string model = folder.OutputPath("model.safetensors"); std::filesystem::exists(model, error)) {
    absl::StrAppend(&line, "model ", model, "\n");
  }
  if (completed && evaluation.is_object()) {
    const auto number = [&evaluation](const char* name) {
      return evaluation.contains(name) && evaluation[name].is_number();
    };
    if (number("test_loss")) absl::StrAppendFormat(&line, "test loss %.4f\n", evaluation["test_loss"].get<double>());
    if (number("test_accuracy"))
      absl::StrAppendFormat(&line, "test accuracy %.4f\n", evaluation["test_accuracy"].get<double>());
    if (number("test_auc")) absl::StrAppendFormat(&line, "test AUC %.4f\n", evaluation["test_auc"].get<double>());
  }
  std::fputs(line.c_str(), stdout);
}

absl::StatusOr<int> Submit(const CommandContext& context, const SubmitFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const Job job, ReadJob(flags));
  BASIN_ASSIGN_OR_RETURN(const std::string runs, RunsFolder(context, flags));
  NodeFacts facts;
  BASIN_ASSIGN_OR_RETURN(facts.ps_program, FindProgram("basin-ps", flags.programs, context.path));
  BASIN_ASSIGN_OR_RETURN(facts.worker_program, FindProgram("basin-worker", flags.programs, context.path));
  facts.run_id = absl::StrCat(absl::FormatTime("%Y%m%d-%H%M%S-", absl::Now(), absl::UTCTimeZone()), SecretHex(3));
  const RunFolder folder(RunFolder::PathFor(runs, job.experiment, facts.run_id));
  facts.run_folder = folder.path();
  const int in_cluster = job.parameter_server_count + job.chief_count + job.worker_count;
  BASIN_ASSIGN_OR_RETURN(const HeldPorts held, HeldPorts::Hold(in_cluster, job.ports));
  facts.nodes = {{"127.0.0.1", held.ports()}};
  BASIN_ASSIGN_OR_RETURN(const Plan plan, MakePlan(job, facts));
  if (flags.dry_run) {
    if (!flags.json) std::printf("dry run: nothing is started; ports are those that are free now\n");
    std::fputs((flags.json ? PlanToJson(plan) : PlanToText(plan)).c_str(), stdout);
    return kExitOk;
  }

  BASIN_RETURN_IF_ERROR(folder.Create());
  BASIN_RETURN_IF_ERROR(folder.WriteJob(JobToJson(job)));
  BASIN_RETURN_IF_ERROR(folder.WritePlan(PlanToJson(plan)));
  Info(absl::StrCat("run ", plan.run_id, ": ", plan.tasks.size(), " tasks, ps 0 at ", FirstPsAddress(plan), ", folder ",
                    folder.path()));
  SuperviseOptions options;
  options.limits.cancel_grace = absl::Seconds(job.cancel_grace_seconds);
  if (job.max_run_duration_seconds > 0) options.limits.max_duration = absl::Seconds(job.max_run_duration_seconds);
  options.terminal_width = TerminalWidth();
  options.open_stats = [&]() -> std::unique_ptr<StatsSource> {
    auto source = context.open_stats({FirstPsAddress(plan), folder.TokenPath(), plan.run_id});
    if (source.ok()) return *std::move(source);
    Warn(absl::StrCat("progress cannot be shown: ", source.status().message()));
    return nullptr;
  };
  const std::unique_ptr<Launcher> launcher = MakeLocalLauncher(options.limits.cancel_grace);
  BASIN_ASSIGN_OR_RETURN(const RunOutcome outcome, Supervise(plan, folder, *launcher, options));
  PrintOutcome(outcome, folder, flags.json);
  return outcome.exit_code;
}

}  // namespace

void AddSubmit(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* submit =
      app.add_subcommand("submit", "Runs a job: starts its tasks, follows them, and stops them together");
  const auto flags = std::make_shared<SubmitFlags>();  // the callback keeps it
  submit->add_option("JOB", flags->job, "The job file, YAML or JSON")->required();
  submit
      ->add_option("--param", flags->params,
                   "Sets one of script_params: --param --lr=.1, --param --verbose; repeatable")
      ->allow_extra_args(false)
      ->take_all();
  submit->add_option("--input", flags->inputs, "Sets the path of an input: --input data=/data/mnist; repeatable")
      ->allow_extra_args(false)
      ->take_all();
  submit
      ->add_option("--runs", flags->runs,
                   "Folder of the runs' folders; default: BASIN_RUNS, else ~/.local/state/basin/runs")
      ->take_last();
  submit
      ->add_option("--programs", flags->programs,
                   "Folder of basin-ps and basin-worker; default: that of basin, then PATH")
      ->take_last();
  submit->add_flag("--dry-run", flags->dry_run, "Print each task's command and TF_CONFIG, and start nothing");
  submit->add_flag("--json", flags->json,
                   "Print the plan (with --dry-run) or the run's record as JSON on standard output");
  submit->footer(
      "Ctrl-C cancels the run, a second one kills it. Exit code: 0 completed, 1 failed or canceled, 2 wrong input.\n"
      "The last line on standard output is the test accuracy (of wide_deep the test AUC), where the job has an "
      "evaluator.\n\n"
      "Fields of the job file: experiment, entry_script, script_params, inputs, environment_variables, "
      "distributed_backend,\n"
      "distributed_training, parameter_server_count, worker_count, chief_count, evaluator_count, training (rule, "
      "consistency),\n"
      "network (ports), max_run_duration_seconds, cancel_grace_seconds. Other fields of the estimator are known, and "
      "refused\n"
      "where they ask for more than this version does.");
  submit->callback([&context, exit_code, flags] {
    const absl::StatusOr<int> code = Submit(context, *flags);
    *exit_code = code.ok() ? *code : Complain(code.status());
  });
}

}  // namespace basin
