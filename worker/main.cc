// basin-worker: the chief, a worker or the evaluator of a run, as TF_CONFIG says, with a built-in program.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "cluster_spec/cluster_view.h"
#include "cluster_spec/tf_config.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/device/device.h"
#include "common/device/device_list.h"
#include "common/device/device_of_rank.h"
#include "worker/model_file.h"
#include "worker/mpi/mpi_group.h"
#include "worker/own_ps.h"
#include "worker/workload.h"

namespace basin {
namespace {

struct Flags {
  TaskOptions task;
  std::string hidden = "256";
  std::string rule = "adam", wide_rule = "ftrl", embedding_rule = "adagrad";
  std::string schedule = "constant";
  std::string tf_config, run_id, token_file, evaluate, transport, metrics_file, gradient_dtype;
  std::string device = "cpu";
  std::string backend = "ps";
  int threads = 1;
  int lanes = 1;
  bool local = false;
  double start_timeout_s = 600, unreachable_timeout_s = 60;
};

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// `kinds`: those that have their flags, two or more.
absl::Status ReadRule(absl::string_view flag, const std::string& name, const std::vector<RuleKind>& kinds,
                      RuleSpec* rule) {
  const std::optional<RuleKind> kind = RuleKindFromName(name);
  if (!kind || std::find(kinds.begin(), kinds.end(), *kind) == kinds.end()) {
    const auto append = [](std::string* out, RuleKind known) { absl::StrAppend(out, Name(known)); };
    const absl::Span<const RuleKind> all = kinds;
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", name, ": expected ",
                                                   absl::StrJoin(all.first(all.size() - 1), ", ", append), " or ",
                                                   Name(all.back())));
  }
  rule->kind = *kind;
  const absl::Status valid = Validate(*rule);
  return valid.ok() ? valid : absl::InvalidArgumentError(absl::StrCat(flag, ": ", valid.message()));
}

// Flags that say something which --backend mpi cannot do.
absl::Status CheckOfMpi(const Flags& flags) {
  const auto conflict = [](absl::string_view flag, absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("--backend mpi conflicts with ", flag, ": ", why));
  };
  if (flags.task.pipeline) {
    return conflict("--pipeline", "all ranks compute on the same parameters, the newest; leave it out");
  }
  if (flags.local) return conflict("--no-ps", "that trains in this process alone; leave one of them out");
  return absl::OkStatus();
}

absl::Status Check(Flags& flags) {
  BASIN_RETURN_IF_ERROR(ReadRule("--rule", flags.rule,
                                 {RuleKind::kSgd, RuleKind::kMomentum, RuleKind::kAdagrad, RuleKind::kAdam},
                                 &flags.task.rule));
  const std::vector<RuleKind> of_rows = {RuleKind::kSgd, RuleKind::kAdagrad, RuleKind::kAdam, RuleKind::kFtrl,
                                         RuleKind::kRowwiseAdagrad};
  WideDeepFlags& wide_deep = flags.task.wide_deep;
  BASIN_RETURN_IF_ERROR(ReadRule("--wide-rule", flags.wide_rule, of_rows, &wide_deep.wide_rule));
  BASIN_RETURN_IF_ERROR(ReadRule("--embedding-rule", flags.embedding_rule, of_rows, &wide_deep.embedding_rule));
  const std::optional<Schedule> schedule = ScheduleFromName(flags.schedule);
  if (!schedule)
    return absl::InvalidArgumentError(
        absl::StrCat("--schedule ", flags.schedule, ": expected constant, linear or cosine"));
  flags.task.schedule = *schedule;
  flags.task.backend = flags.backend == "mpi" ? TrainingBackend::kMpi : TrainingBackend::kPs;
  if (flags.task.backend == TrainingBackend::kMpi) BASIN_RETURN_IF_ERROR(CheckOfMpi(flags));
  flags.task.hidden.clear();
  for (const absl::string_view part : absl::StrSplit(flags.hidden, ',', absl::SkipWhitespace())) {
    int64_t width = 0;
    if (!absl::SimpleAtoi(part, &width) || width < 1 || width > (1 << 20)) {
      return absl::InvalidArgumentError(absl::StrCat("--hidden ", flags.hidden, ": \"", part,
                                                     "\" is no layer width; write widths such as 256 or 256,128"));
    }
    flags.task.hidden.push_back(width);
  }
  return absl::OkStatus();
}

absl::Status RunTask(const Flags& flags, const std::string& tf_config, Role role, Workload& workload) {
  Options options;
  options.tf_config = tf_config;
  options.run_id = flags.run_id;
  options.token_file = flags.token_file;
  options.transport = flags.transport;
  options.metrics_file = flags.metrics_file;
  options.gradient_dtype = flags.gradient_dtype;
  options.start_timeout = std::chrono::duration<double>(flags.start_timeout_s);
  options.unreachable_timeout = std::chrono::duration<double>(flags.unreachable_timeout_s);
  uint64_t examples = 0;
  if (role != Role::kEvaluator) {
    BASIN_ASSIGN_OR_RETURN(examples, workload.LoadTraining());
  }
  auto client = Client::Connect(options);
  if (!client.ok()) return ToAbslStatus(client.status());
  if (role == Role::kEvaluator) {
    Info(absl::StrCat("run ", client->run_id(), ": evaluating ", flags.task.program));
    return workload.Evaluate(*client);
  }
  Info(absl::StrCat("run ", client->run_id(), ": training ", flags.task.program, " on ", examples, " examples",
                    client->is_chief() ? ", as the chief" : ""));
  return workload.Train(*client);
}

// `group` is joined here, and left by the caller once it has said how this ended.
absl::Status RunRank(const Flags& flags, Workload& workload, const Device& device,
                     std::unique_ptr<MpiGroup>* group) {
  MpiOptions options;
  options.start_timeout = absl::Seconds(flags.start_timeout_s);
  options.timeout = absl::Seconds(flags.unreachable_timeout_s);
  options.progress_thread = flags.task.mpi.progress_thread;
  BASIN_ASSIGN_OR_RETURN(*group, MpiGroup::Join(options));
  SetLogPrefix(absl::StrCat("worker ", (*group)->rank()));
  BASIN_ASSIGN_OR_RETURN(const uint64_t examples, workload.LoadTraining());
  Info(absl::StrCat("rank ", (*group)->rank(), " of ", (*group)->size(), " (", (*group)->library(), "): training ",
                    flags.task.program, " on ", examples, " examples, computed on ", device.name(),
                    (*group)->size() == 1 ? "; for more ranks start it by mpirun or srun" : ""));
  return workload.TrainInRanks(**group);
}

absl::Status Run(Flags& flags, std::unique_ptr<MpiGroup>* group) {
  BASIN_RETURN_IF_ERROR(Check(flags));
  const bool is_rank = flags.task.backend == TrainingBackend::kMpi;
  if (is_rank) flags.device = DeviceOfRank(flags.device, LocalRank(Environment), ListDevices());
  BASIN_ASSIGN_OR_RETURN(auto device, OpenDevice(flags.device, flags.threads));
  BASIN_ASSIGN_OR_RETURN(auto workload, MakeWorkload(flags.task, *device));
  if (!flags.evaluate.empty()) return workload->EvaluateFile(flags.evaluate);

  if (is_rank) return RunRank(flags, *workload, *device, group);
  if (flags.local) {
    BASIN_RETURN_IF_ERROR(workload->LoadTraining().status());
    return workload->TrainWithoutPs();
  }
  if (!flags.tf_config.empty()) {
    BASIN_ASSIGN_OR_RETURN(const TfConfig config, ParseTfConfig(flags.tf_config));
    BASIN_ASSIGN_OR_RETURN(const ClusterView view, Resolve(config));
    if (!view.standalone) {
      SetLogPrefix(view.self.Sentence());
      return RunTask(flags, flags.tf_config, view.self.role, *workload);
    }
  }
  SetLogPrefix("worker 0");
  Info("TF_CONFIG names no cluster: training alone, with a parameter server of this process's own");
  BASIN_ASSIGN_OR_RETURN(auto ps, OwnPs::Start(flags.lanes));
  flags.start_timeout_s = std::min(flags.start_timeout_s, 30.0);  // it starts at once, or not at all
  flags.run_id.clear();
  flags.token_file.clear();
  BASIN_RETURN_IF_ERROR(RunTask(flags, ps->worker_tf_config(), Role::kWorker, *workload));
  if (flags.task.outputs.empty()) return absl::OkStatus();
  return workload->EvaluateFile(absl::StrCat(flags.task.outputs, "/model.safetensors"));
}

int Main(int argc, char** argv) {
  Flags flags;
  TaskOptions& task = flags.task;
  flags.tf_config = Environment("TF_CONFIG");
  flags.run_id = Environment("BASIN_RUN_ID");
  flags.token_file = Environment("BASIN_TOKEN_FILE");
  flags.transport = Environment("BASIN_TRANSPORT");
  flags.metrics_file = Environment("BASIN_METRICS_FILE");
  flags.gradient_dtype = Environment("BASIN_GRADIENT_DTYPE");
  task.data = Environment("BASIN_INPUT_DATA");
  task.wide_deep.schema = Environment("BASIN_INPUT_SCHEMA");
  task.rule.learning_rate = 0.001f;

  CLI::App app(
      "Trains a built-in program as the chief, a worker or the evaluator that TF_CONFIG says this is.\n"
      "Without TF_CONFIG it starts a parameter server of its own and trains alone. With --backend mpi it is one rank "
      "of\n"
      "an MPI launch.");
  app.set_version_flag("--version", BASIN_VERSION);
  app.option_defaults()->always_capture_default();
  app.add_option(
         "--program", task.program,
         "Built-in program: mlp (multi-layer perceptron), softmax (softmax regression) or wide_deep (categories "
         "and numbers of a CSV file)")
      ->group("Model");
  app.add_option("--hidden", flags.hidden, "Widths of the hidden layers of mlp and wide_deep, such as 256 or 256,128")
      ->group("Model");
  app.add_option("--seed", task.seed,
                 "Seed of initial values and of the order of examples; the same for all tasks of a run")
      ->group("Model");
  app.add_option("--init-from", task.init_from, "Start from this model.safetensors; the rule's slots start afresh")
      ->group("Model");
  app.add_option("--data", task.data,
                 "Folder of the IDX files, gzip or not; wide_deep: the CSV file (default: $BASIN_INPUT_DATA)")
      ->group("Data");
  app.add_option("--epochs", task.epochs, "Passes over the training examples")
      ->check(CLI::Range(1u, 1000000u))
      ->group("Data");
  app.add_option("--batch-size", task.batch_size, "Examples a step of each worker or rank")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 20))
      ->group("Data");
  app.add_option("--piece-batches", task.piece_batches,
                 "Batches of a leased piece of the input: what is handed to another worker when one dies")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 20))
      ->group("Data");
  app.add_option(
         "--max-steps", task.max_steps,
         "End after this many steps of all workers together (mpi: steps that all ranks take at once); 0: after the "
         "epochs")
      ->group("Data");
  app.add_flag("--pipeline", task.pipeline,
               "Compute gradients while the push before is under way: hides a slow network, on parameters that are one "
               "push older")
      ->group("Rule");
  app.add_option("--rule", flags.rule, "Optimizer rule, applied on the parameter servers: sgd, momentum, adagrad, adam")
      ->group("Rule");
  app.add_option("--learning-rate", task.rule.learning_rate, "Learning rate")->group("Rule");
  app.add_option("--schedule", flags.schedule,
                 "Learning rate over the run: constant, linear or cosine (to zero at the end)")
      ->group("Rule");
  app.add_option("--momentum", task.rule.momentum, "Of rule momentum")->group("Rule");
  app.add_flag("--nesterov", task.rule.nesterov, "Of rule momentum: look ahead (Nesterov)")->group("Rule");
  app.add_option("--beta1", task.rule.beta1, "Of rule adam")->group("Rule");
  app.add_option("--beta2", task.rule.beta2, "Of rule adam")->group("Rule");
  app.add_option("--epsilon", task.rule.epsilon, "Of rules adagrad and adam")->group("Rule");
  app.add_option("--initial-accumulator", task.rule.initial_accumulator, "Of rule adagrad")->group("Rule");
  WideDeepFlags& wide_deep = task.wide_deep;
  app.add_option("--schema", wide_deep.schema,
                 "YAML file that says what the CSV file's columns mean (default: $BASIN_INPUT_SCHEMA)")
      ->group("Wide & deep");
  app.add_option("--embedding-dim", wide_deep.embedding_dim, "Numbers that stand for each value of a category")
      ->check(CLI::Range(1u, 4096u))
      ->group("Wide & deep");
  app.add_option("--wide-rule", flags.wide_rule, "Rule of the weights of categories and crosses")->group("Wide & deep");
  app.add_option("--wide-learning-rate", wide_deep.wide_rule.learning_rate, "Its learning rate")->group("Wide & deep");
  app.add_option("--wide-l1", wide_deep.wide_rule.l1, "Of --wide-rule ftrl: pulls weights to exactly 0")
      ->group("Wide & deep");
  app.add_option("--wide-l2", wide_deep.wide_rule.l2, "Of --wide-rule ftrl: keeps weights small")->group("Wide & deep");
  app.add_option("--embedding-rule", flags.embedding_rule, "Rule of the embeddings")->group("Wide & deep");
  app.add_option("--embedding-learning-rate", wide_deep.embedding_rule.learning_rate, "Its learning rate")
      ->group("Wide & deep");
  app.add_option("--outputs", task.outputs,
                 "Folder for model.safetensors (chief) and evaluation.json (evaluator); none: nothing is written")
      ->group("Results");
  app.add_option("--evaluate", flags.evaluate, "Evaluate this model.safetensors and end; needs no parameter server")
      ->group("Results");
  app.add_option(
         "--timeline", task.timeline,
         "Write what was done when as Chrome trace events to this file (chrome://tracing, ui.perfetto.dev); mpi: "
         "rank 0 for all ranks")
      ->group("Results");
  app.add_option("--evaluate-every", task.evaluate_every_s, "Seconds between the evaluator's looks at the parameters")
      ->check(CLI::Range(0.05, 1e6))
      ->group("Results");
  app.add_option(
         "--backend", flags.backend,
         "ps: parameter servers apply the gradients as they come. mpi: one process a rank, started by mpirun or "
         "srun; gradients are averaged by all-reduce, in step")
      ->check(CLI::IsMember({"ps", "mpi"}))
      ->group("Cluster");
  app.add_option("--fusion-bytes", task.mpi.fusion_bytes,
                 "With --backend mpi: bytes of a buffer in which gradients travel together; a larger variable has one "
                 "of its own")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 32))
      ->group("Cluster");
  app.add_flag("--progress-thread", task.mpi.progress_thread,
               "With --backend mpi: a thread lets all-reduces go on while gradients are computed; for machines with a "
               "core to spare")
      ->group("Cluster");
  app.add_flag("--no-ps", flags.local,
               "Train in this process without any parameter server: what a cluster is compared with")
      ->group("Cluster");
  app.add_option("--tf-config", flags.tf_config, "The cluster, as JSON (default: $TF_CONFIG)")->group("Cluster");
  app.add_option("--run-id", flags.run_id, "Run this task belongs to (default: $BASIN_RUN_ID; none: ps 0 tells)")
      ->group("Cluster");
  app.add_option("--token-file", flags.token_file, "File with the run's token (default: $BASIN_TOKEN_FILE)")
      ->group("Cluster");
  app.add_option(
         "--transport", flags.transport,
         "auto: shared memory to parameter servers of this host and user, TCP to others; tcp; shm: an error where "
         "shared memory cannot be had (default: $BASIN_TRANSPORT, or auto)")
      ->check(CLI::IsMember({"", "auto", "tcp", "shm"}))
      ->group("Cluster");
  app.add_option(
         "--gradient-dtype", flags.gradient_dtype,
         "float32; float16 or bfloat16: gradients are sent to parameter servers in half of the bytes, rounded to the "
         "nearest (default: $BASIN_GRADIENT_DTYPE, or float32)")
      ->check(CLI::IsMember({"", "float32", "float16", "bfloat16"}))
      ->group("Cluster");
  app.add_option(
         "--metrics-file", flags.metrics_file,
         "Append the metrics of each step's second to this file, as lines of JSON (default: $BASIN_METRICS_FILE)")
      ->group("Results");
  app.add_option("--start-timeout", flags.start_timeout_s,
                 "Seconds to wait for parameter servers (mpi: ranks) that are not there yet")
      ->check(CLI::Range(0.1, 1e9))
      ->group("Cluster");
  app.add_option("--unreachable-timeout", flags.unreachable_timeout_s,
                 "Seconds that a parameter server (mpi: any rank) may be out of reach before this task fails")
      ->check(CLI::Range(0.1, 1e9))
      ->group("Cluster");
  app.add_option("--device", flags.device,
                 "Where gradients are computed: cpu, cuda or cuda:N, or auto (a GPU that can be used, else the CPU); with "
                 "--backend mpi, cuda and auto give the ranks of a node its GPUs in turn")
      ->group("Machine");
  app.add_option("--threads", flags.threads, "Threads for computing gradients")
      ->check(CLI::Range(1, 1024))
      ->group("Machine");
  app.add_option("--lanes", flags.lanes, "Lanes of the own parameter server, when training alone")
      ->check(CLI::Range(1, 64))
      ->group("Machine");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  SetLogPrefix("basin-worker");  // until TF_CONFIG has said which task this is
  task.metrics_file = flags.metrics_file;
  std::unique_ptr<MpiGroup> group;
  const absl::Status status = Run(flags, &group);
  if (!status.ok()) Error(status.message());
  if (group != nullptr) group->Leave(ExitCodeFor(status));
  return ExitCodeFor(status);
}

}  // namespace
}  // namespace basin

int main(int argc, char** argv) { return basin::Main(argc, argv); }
