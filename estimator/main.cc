// `basin`: starts jobs and looks at clusters. The one place of this program that reads the environment.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/run/client_stats.h"

namespace basin {
namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// `--param --lr=.1` is how users write it, and the parser would take `--lr=.1` for a flag of its own. In `--hosts=` it
// would take the next word for the value. What follows `--` is another program's.
std::vector<std::string> WordsToParse(int argc, char** argv) {
  std::vector<std::string> words;
  bool own = true;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    own = own && word != "--";
    if (own && word == "--param" && i + 1 < argc) word = absl::StrCat("--param=", argv[++i]);
    const bool is_empty = own && absl::StartsWith(word, "--") && word.find('=') == word.size() - 1;
    if (is_empty) word.pop_back();
    words.push_back(std::move(word));
    if (is_empty) words.emplace_back();
  }
  return words;
}

int Main(int argc, char** argv) {
  const std::vector<std::string> words = WordsToParse(argc, argv);
  if (!words.empty() && words[0] == "guard") return GuardCommand({argv + 2, argv + argc});
  if (!words.empty() && words[0] == "doctor-node") return DoctorNodeCommand();
  SetLogPrefix("basin");
  CommandContext context;
  if (const char* tf_config = std::getenv("TF_CONFIG")) context.tf_config = tf_config;
  context.home = Variable("HOME");
  context.path = Variable("PATH");
  context.cache = Variable("BASIN_CACHE");
  context.xdg_cache = Variable("XDG_CACHE_HOME");
  context.runs = Variable("BASIN_RUNS");
  context.run_id = Variable("BASIN_RUN_ID");
  context.token_file = Variable("BASIN_TOKEN_FILE");
  context.xdg_config = Variable("XDG_CONFIG_HOME");
  context.variable = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
  context.metrics_file = Variable("BASIN_METRICS_FILE");
  if (!words.empty() && words[0] == "agent") return AgentCommand({argv + 2, argv + argc}, context, BASIN_VERSION);
  if (!words.empty() && words[0] == "mpi-rank") return MpiRankCommand(context, environ);
  if (!words.empty() && words[0] == "mpi-daemon") return MpiDaemonCommand({argv + 2, argv + argc}, context);
  context.open_stats = OpenClientStats;
  if (!words.empty() && words[0] == "supervise") return SuperviseCommand({argv + 2, argv + argc}, context);

  CLI::App app("basin: parameter-server training jobs. `basin COMMAND --help` says more.", "basin");
  app.set_version_flag("--version", std::string("basin ") + BASIN_VERSION);
  app.require_subcommand(1);
  app.footer(
      "A job from its file to its model: basin doctor JOB, basin submit JOB, basin show latest, basin download latest\n"
      "outputs/FILE. What is kept of runs lies in --runs, else BASIN_RUNS, else ~/.local/state/basin/runs.\n"
      "Exit code of each command: 0 done, 1 failed, 2 wrong input (words, files, names), which only a change mends.");
  int exit_code = kExitOk;
  AddSubmit(app, context, &exit_code);
  AddAttach(app, context, &exit_code);
  AddCancel(app, context, &exit_code);
  AddExec(app, context, &exit_code);
  AddTargets(app, context, &exit_code);
  AddDoctor(app, context, &exit_code);
  AddCluster(app, context, &exit_code);
  AddTop(app, context, &exit_code);
  AddEnvironment(app, &exit_code);
  AddRuns(app, context, &exit_code);
  AddShow(app, context, &exit_code);
  AddLogs(app, context, &exit_code);
  AddMetrics(app, context, &exit_code);
  AddDownload(app, context, &exit_code);
  AddDelete(app, context, &exit_code);
  AddModels(app, context, &exit_code);
  AddMetric(app, context, &exit_code);
  if (const absl::Status status = CheckCommand(app, words); !status.ok()) return Complain(status);
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    Error(ParseComplaint(app, words, error.what()));
    return kExitUsage;
  }
  return exit_code;
}

}  // namespace

int Complain(const absl::Status& status) {
  Error(std::string(status.message()));
  return ExitCodeFor(status);
}

}  // namespace basin

int main(int argc, char** argv) { return basin::Main(argc, argv); }
