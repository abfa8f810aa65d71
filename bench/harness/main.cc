// basin-bench: what this machine, or a cluster, can do with Basin, beside what it could do at most.
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <functional>

#include "absl/strings/str_cat.h"
#include "bench/harness/flags.h"
#include "bench/harness/iperf3.h"
#include "bench/harness/limits.h"
#include "bench/harness/machine.h"
#include "bench/harness/stress.h"
#include "bench/harness/task.h"
#include "bench/harness/workloads.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

constexpr int kStressWorkers = 64;

// What goes on, on one line that is written over, where somebody looks at a terminal; else nothing.
class Progress {
 public:
  ~Progress() { Clear(); }
  void Say(const std::string& text) {
    if (!terminal_) return;
    winsize size = {};
    const size_t width = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
    std::fprintf(stderr, "\r\033[K%s", text.substr(0, width).c_str());
    shown_ = true;
  }
  void Clear() {
    if (shown_) std::fputs("\r\033[K", stderr);
    shown_ = false;
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  bool shown_ = false;
};

// Runs them one after the other, says each figure as it comes, and ends with one table.
absl::Status Measure(std::vector<Experiment> experiments, const Flags& flags, Progress& progress) {
  RunOptions times = TimesFrom(flags);
  std::vector<Result> results;
  for (size_t i = 0; i < experiments.size(); ++i) {
    times.progress = [&](const std::string& text) {
      progress.Say(experiments.size() > 1 ? absl::StrCat("[", i + 1, "/", experiments.size(), "] ", text) : text);
    };
    BASIN_ASSIGN_OR_RETURN(std::vector<Result> some, Run(experiments[i], times));
    experiments[i] = {};  // its processes are gone before the next begins
    progress.Clear();
    for (Result& result : some) {
      std::fprintf(stderr, "%s\n", Line(result).c_str());
      results.push_back(std::move(result));
    }
  }
  std::printf("%s", Table(results).c_str());
  std::fflush(stdout);
  if (!flags.json.empty())
    BASIN_RETURN_IF_ERROR(WriteFileAtomically(flags.json, ToJson(MachineFacts(), results).dump(2) + "\n"));
  return absl::OkStatus();
}

struct Context {
  Flags flags;
  Progress progress;
  std::optional<TwoHosts> hosts;

  absl::Status Prepare(bool needs_ps, int workers = 1) {
    if (flags.workers == 0) flags.workers = workers;
    BASIN_RETURN_IF_ERROR(Check(flags));
    if (needs_ps && flags.target.empty()) BASIN_RETURN_IF_ERROR(BesideThisProgram("basin-ps").status());
    if (!flags.netns) return absl::OkStatus();
    BASIN_ASSIGN_OR_RETURN(TwoHosts made, TwoHosts::Make());
    hosts.emplace(std::move(made));
    return absl::OkStatus();
  }
  const TwoHosts* two() const { return hosts ? &*hosts : nullptr; }
};

std::vector<Experiment> One(Experiment experiment) {
  std::vector<Experiment> all;
  all.push_back(std::move(experiment));
  return all;
}

using Command = std::function<absl::Status(Context&)>;

absl::Status Limits(Context& context) {
  BASIN_RETURN_IF_ERROR(context.Prepare(/*needs_ps=*/false));
  BASIN_RETURN_IF_ERROR(Measure(One(AllLimits(context.two())), context.flags, context.progress));
  return context.flags.check ? CompareWithIperf3(context.flags.duration_s) : absl::OkStatus();
}

Command Dense(const std::string& op) {
  return [op](Context& context) -> absl::Status {
    BASIN_RETURN_IF_ERROR(context.Prepare(/*needs_ps=*/true));
    if (context.flags.variables % context.flags.call_variables != 0) {
      return absl::InvalidArgumentError(absl::StrCat("--variables ", context.flags.variables,
                                                     " is no multiple of --call-variables ",
                                                     context.flags.call_variables));
    }
    if (!context.flags.target.empty() &&
        context.flags.bytes.size() * std::max<size_t>(1, context.flags.rules.size()) > 1)
      return absl::InvalidArgumentError("a running cluster (--target) serves one run: give one --bytes and one --rule");
    return Measure(One(DenseExperiment(op, context.flags, context.two())), context.flags, context.progress);
  };
}

absl::Status Small(Context& context) {
  BASIN_RETURN_IF_ERROR(context.Prepare(/*needs_ps=*/true));
  if (!context.flags.target.empty())
    return absl::InvalidArgumentError("small measures two runs, and a running cluster (--target) serves one");
  return Measure(One(SmallExperiment(context.flags, context.two())), context.flags, context.progress);
}

absl::Status Latency(Context& context) {
  BASIN_RETURN_IF_ERROR(context.Prepare(/*needs_ps=*/true));
  return Measure(One(LatencyExperiment(context.flags, context.two())), context.flags, context.progress);
}

absl::Status Table(Context& context) {
  BASIN_RETURN_IF_ERROR(context.Prepare(/*needs_ps=*/!context.flags.in_process));
  const Flags& flags = context.flags;
  if (!flags.target.empty() && (flags.op == "both" || (flags.rows.size() != 1 && flags.keys == "uniform"))) {
    return absl::InvalidArgumentError(
        "a running cluster (--target) serves one run: give --op push or --op pull, and one --rows");
  }
  for (const uint64_t rows : flags.rows) {
    if (flags.batch <= rows) continue;
    return absl::InvalidArgumentError(absl::StrCat("--batch ", flags.batch, ": the keys of a call differ, and --rows ",
                                                   rows, " has fewer; give a smaller --batch"));
  }
  return Measure(TableExperiments(flags, context.two()), flags, context.progress);
}

absl::Status ApplyRules(Context& context) {
  return Measure(ApplyExperiments(context.flags), context.flags, context.progress);
}

absl::Status Canonical(Context& context) {
  BASIN_RETURN_IF_ERROR(context.Prepare(/*needs_ps=*/true));
  std::vector<Experiment> all = CanonicalExperiments(context.flags, context.two());
  std::optional<TwoHosts> apart;
  if (!context.flags.netns) {
    absl::StatusOr<TwoHosts> made = TwoHosts::Make();
    if (made.ok()) {
      apart.emplace(*std::move(made));
      for (Experiment& one : CanonicalExperiments(context.flags, &*apart)) all.push_back(std::move(one));
    } else {
      std::fprintf(stderr, "TCP between two network namespaces is left out: %s\n",
                   std::string(made.status().message()).c_str());
    }
  }
  return Measure(std::move(all), context.flags, context.progress);
}

absl::Status Stress(Context& context) {
  BASIN_RETURN_IF_ERROR(context.Prepare(/*needs_ps=*/true, kStressWorkers));
  // The proxies stand before the first lane of each ps; further lanes would be reached around them.
  if (context.flags.lanes == 0) context.flags.lanes = 1;
  return RunStress(context.flags, context.two(), [&](const std::string& text) { context.progress.Say(text); });
}

void AddRules(CLI::App& app, Flags& flags) {
  app.add_option("--rule", flags.rules, "Optimizer rules: sgd, momentum, adagrad, adam (may be repeated)")
      ->check(CLI::IsMember({"sgd", "momentum", "adagrad", "adam"}))
      ->group("Work");
}

void AddBytes(CLI::App& app, Flags& flags, const std::string& of) {
  app.add_option("--bytes", flags.bytes, "Bytes of " + of + ", such as 1MiB (may be repeated)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::Range(uint64_t{4}, uint64_t{1} << 30))
      ->group("Work");
}

void AddDense(CLI::App& app, Flags& flags) {
  AddClusterFlags(app, flags);
  AddCommonFlags(app, flags);
  AddBytes(app, flags, "a variable");
  app.add_option("--variables", flags.variables, "Variables that the calls go round; 0: as many as make 64 MiB")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 20))
      ->group("Work");
  app.add_option("--call-variables", flags.call_variables, "Variables in one call")
      ->check(CLI::Range(uint64_t{1}, uint64_t{4096}))
      ->group("Work");
  app.add_option("--in-flight", flags.in_flight, "Bytes of calls that have started and are not done, for each worker")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->group("Work");
  AddRules(app, flags);
  app.add_option("--gradient-dtype", flags.gradient_dtype, "What gradients are sent as; figures count them as float32")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16"}))
      ->group("Work");
}

void AddTableFlags(CLI::App& app, Flags& flags) {
  AddClusterFlags(app, flags);
  AddCommonFlags(app, flags);
  app.add_option("--rows", flags.rows, "Rows of the table (may be repeated); default 10000 and 1000000")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32))
      ->group("Work");
  app.add_option("--dim", flags.dim, "Elements of a row")->check(CLI::Range(1u, 4096u))->group("Work");
  app.add_option("--batch", flags.batch, "Keys in one call")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 22))
      ->group("Work");
  app.add_option(
         "--keys", flags.keys,
         "uniform: keys of a call differ and are spread evenly over the table; criteo: synthetic, by Zipf's law "
         "over columns with the cardinalities of the Criteo data set")
      ->check(CLI::IsMember({"uniform", "criteo"}))
      ->group("Work");
  app.add_option("--op", flags.op, "push, pull, or both, one after the other")
      ->check(CLI::IsMember({"push", "pull", "both"}))
      ->group("Work");
  app.add_option("--in-flight", flags.in_flight, "Bytes of calls that have started and are not done, for each worker")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->group("Work");
  app.add_option("--seed", flags.seed, "Of the keys")->group("Work");
  app.add_flag("--in-process", flags.in_process, "A lane's table alone, without servers and clients")->group("Work");
}

int Main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "task") == 0) return TaskMain();
  SetLogPrefix("basin-bench");
  WatchSignals();
  Context context;
  Flags& flags = context.flags;
  Command command = Canonical;

  CLI::App app(
      "Measures what Basin does on this machine, or on a running cluster, beside the limits of the machine, in one "
      "run.\n"
      "Without a command: everything that has a goal, in a few minutes, ending in one table. Each figure is the "
      "median\n"
      "of rounds that alternate with those of its limit, and counts only if the parameters and the servers' counts "
      "are\n"
      "exactly those of the pushes sent. `basin-bench COMMAND --help` says more.",
      "basin-bench");
  app.set_version_flag("--version", std::string("basin-bench ") + BASIN_VERSION);
  app.require_subcommand(0, 1);
  AddCommonFlags(app, flags);
  app.add_flag("--netns", flags.netns,
               "Only TCP between two network namespaces (needs root and iproute2; with them it is part of everything)")
      ->group("Cluster");
  const auto add = [&](const std::string& name, const std::string& help, Command what) {
    CLI::App* one = app.add_subcommand(name, help);
    one->callback([&command, what = std::move(what)] { command = what; });
    return one;
  };
  CLI::App* limits = add("limits", "What the machine can do: memory, raw TCP, ZeroMQ, shared memory", Limits);
  AddCommonFlags(*limits, flags);
  limits->add_flag("--netns", flags.netns, "Network limits between two network namespaces (needs root and iproute2)");
  limits->add_flag("--check", flags.check, "Compare the raw TCP stream with iperf3, where that is installed");
  AddDense(*add("push", "Workers push gradients, and the rule is applied", Dense("push")), flags);
  AddDense(*add("pull", "Workers pull parameters into their own memory", Dense("pull")), flags);
  AddDense(*add("pushpull", "Both in one call; bytes count both ways", Dense("pushpull")), flags);
  CLI::App* small = add("small", "Pushes of 16 floats, each applied on its own: 64 variables a call, and one", Small);
  CLI::App* latency = add("latency", "A push of 64 bytes that is waited for", Latency);
  for (CLI::App* one : {small, latency}) {
    AddClusterFlags(*one, flags);
    AddCommonFlags(*one, flags);
  }
  AddTableFlags(*add("table", "Rows of an embedding table, pushed and pulled by key", Table), flags);
  CLI::App* apply = add("apply", "The optimizer rules in one process, without servers", ApplyRules);
  AddCommonFlags(*apply, flags);
  AddBytes(*apply, flags, "the gradient");
  AddRules(*apply, flags);
  CLI::App* stress =
      add("stress", "Many workers, mixed sizes, cut connections, killed workers; then every sum is checked", Stress);
  AddClusterFlags(*stress, flags, kStressWorkers);
  AddStressFlags(*stress, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  const absl::Status status = command(context);
  context.progress.Clear();
  if (!status.ok()) Error(status.message());
  return ExitCodeFor(status);
}

}  // namespace
}  // namespace basin::bench

int main(int argc, char** argv) { return basin::bench::Main(argc, argv); }
