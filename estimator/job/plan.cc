#include "estimator/job/plan.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cluster_spec/cluster_spec.h"
#include "cluster_spec/tf_config.h"
#include "common/base/status_macros.h"
#include "estimator/agent/placeholders.h"
#include "estimator/job/mpi_command.h"
#include "estimator/job/plan_command.h"
#include "estimator/job/role_needs.h"

namespace basin {
namespace {

// The evaluator stands outside: it is in no job.
absl::StatusOr<ClusterSpec> ClusterOf(const std::vector<PlacedTask>& tasks) {
  std::vector<ClusterSpec::Job> jobs;
  for (const PlacedTask& task : tasks) {
    if (task.port == 0) continue;
    const std::string job(Name(task.name.role));
    if (jobs.empty() || jobs.back().name != job) jobs.push_back({job, {}});
    jobs.back().tasks[task.name.index] = absl::StrCat(task.host, ":", task.port);
  }
  return ClusterSpec::Make(std::move(jobs));
}

bool StartsRanks(Role role) { return role == Role::kMpirun || role == Role::kOrted; }

// The later of two equal names wins, at the place of the first.
void Set(const std::string& name, const std::string& value, PlannedTask* task) {
  for (auto& [other, text] : task->environment) {
    if (other != name) continue;
    text = value;
    return;
  }
  task->environment.emplace_back(name, value);
}

// GPUs of a node go to its training tasks in turn; with mpi all of them to each. A rank on the node itself inherits
// what the node shows; in a container nothing is inherited, and the engine shows every GPU of the machine: the rank is
// told which are the job's (of those that Slurm granted, NodeFacts has no others).
class Devices {
 public:
  Devices(const Job& job, const std::vector<NodeFacts>& nodes) : job_(job), nodes_(nodes), given_(nodes.size(), 0) {}

  // REQUIRES: `places` are all tasks.
  absl::Status Check(const std::vector<PlacedTask>& places) const {
    if (!job_.use_gpu) return absl::OkStatus();
    std::vector<size_t> wanted(nodes_.size(), 0);
    for (const PlacedTask& place : places) wanted[place.node] += Trains(place.name.role) ? 1 : 0;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const NodeFacts& node = nodes_[i];
      if (wanted[i] == 0) continue;
      if (node.gpus.empty()) {
        return absl::FailedPreconditionError(
            absl::StrCat("use_gpu: node ", node.host, " has no GPU",
                         node.gpu_problem.empty() ? "" : absl::StrCat(" (", node.gpu_problem, ")"),
                         "; set use_gpu: false, or take a compute_target whose nodes have one"));
      }
      // Ranks see all GPUs of the job on their node.
      if (job_.backend == Backend::kMpi) continue;
      const size_t each = GpusOfEach();
      if (each > 1 && wanted[i] * each > node.gpus.size()) {
        return absl::FailedPreconditionError(absl::StrCat("roles.worker.gpus: node ", node.host, " has ",
                                                          node.gpus.size(), " GPUs for ", wanted[i], " workers of ",
                                                          each, " each; lower it, or worker_count"));
      }
      if (wanted[i] > node.gpus.size() * static_cast<size_t>(job_.workers_per_gpu)) {
        const size_t needed = (wanted[i] + node.gpus.size() - 1) / node.gpus.size();
        return absl::FailedPreconditionError(absl::StrCat(
            "use_gpu: node ", node.host, " has ", node.gpus.size(), node.gpus.size() == 1 ? " GPU" : " GPUs", " for ",
            wanted[i], " workers, and workers_per_gpu is ", job_.workers_per_gpu, "; set workers_per_gpu: ", needed,
            ", or a smaller worker_count"));
      }
    }
    return absl::OkStatus();
  }

  // Of the next training task on a node.
  std::vector<std::string> Next(int node, bool in_container) {
    if (!job_.use_gpu) return {};
    const std::vector<std::string>& gpus = nodes_[node].gpus;
    if (job_.backend == Backend::kMpi) return in_container ? gpus : std::vector<std::string>();
    std::vector<std::string> devices;
    for (size_t i = 0; i < GpusOfEach(); ++i) devices.push_back(gpus[given_[node]++ % gpus.size()]);
    return devices;
  }

 private:
  size_t GpusOfEach() const {
    const auto worker = job_.roles.find(Role::kWorker);
    return worker == job_.roles.end() ? 1 : static_cast<size_t>(std::max(1, worker->second.gpus));
  }

  const Job& job_;
  const std::vector<NodeFacts>& nodes_;
  std::vector<size_t> given_;
};

// Ranks over the training roles, the chief first.
struct Rank {
  size_t rank = 0, world = 0, local = 0;
};

void SetRank(const Rank& rank, PlannedTask* task) {
  const std::pair<const char*, size_t> values[] = {
      {"RANK", rank.rank}, {"WORLD_SIZE", rank.world}, {"LOCAL_RANK", rank.local}};
  for (const auto& [name, value] : values) {
    Set(absl::StrCat("BASIN_", name), absl::StrCat(value), task);
    Set(name, absl::StrCat(value), task);
  }
}

// What mpirun and its daemons are started with: the settings of the job that are Open MPI's, and where the run is.
void SetLauncherEnvironment(const Job& job, const std::string& run_id, PlannedTask* task) {
  for (const auto& [name, value] : MpirunSettings(job.ports)) Set(name, value, task);
  for (const auto& [name, value] : job.environment_variables) Set(name, value, task);
  Set("TMPDIR", kSharedMemoryPlaceholder, task);
  Set("BASIN_RUN_ID", run_id, task);
  Set("BASIN_ROLE", std::string(Name(task->place.name.role)), task);
  Set("BASIN_TASK_INDEX", absl::StrCat(task->place.name.index), task);
}

void SetEnvironment(const Job& job, const std::string& run_id, bool shares_node, PlannedTask* task) {
  const Role role = task->place.name.role;
  // Before the job's own, which may differ: tasks that share a machine's cores would fight with a BLAS that starts a
  // thread a core in each; what Python prints is to be seen while it runs; a ps or evaluator beside a worker must not
  // take its GPU (TensorFlow reserves all memory of every device it sees).
  if (shares_node) Set("OPENBLAS_NUM_THREADS", "1", task);
  if (!job.script.empty() && !RunsBasinPs(job, role)) Set("PYTHONUNBUFFERED", "1", task);
  if (!Trains(role)) Set("CUDA_VISIBLE_DEVICES", "", task);
  if (task->is_rank) Set(kSharedMemorySetting, kSharedMemoryPlaceholder, task);
  // Between containers the kernel may refuse one to read another's memory; by then it is too late for another way.
  if (task->is_rank && !task->image.empty()) Set("OMPI_MCA_btl_vader_single_copy_mechanism", "none", task);
  for (const auto& [name, value] : job.environment_variables) Set(name, value, task);
  if (!task->devices.empty()) Set("CUDA_VISIBLE_DEVICES", absl::StrJoin(task->devices, ","), task);
  if (!task->tf_config.empty()) Set("TF_CONFIG", task->tf_config, task);
  Set("BASIN_RUN_ID", run_id, task);
  Set("BASIN_TOKEN_FILE", kTokenPlaceholder, task);
  Set("BASIN_RUN_DIR", kTaskPlaceholder, task);
  Set("BASIN_ROLE", std::string(Name(role)), task);
  Set("BASIN_TASK_INDEX", absl::StrCat(task->place.name.index), task);
  Set("AZ_BATCHAI_TASK_INDEX", absl::StrCat(task->place.name.index), task);
  for (const JobInput& input : job.inputs) {
    Set(absl::StrCat("BASIN_INPUT_", absl::AsciiStrToUpper(input.name)), input.path, task);
    Set(absl::StrCat("AZUREML_DATAREFERENCE_", input.name), input.path, task);
  }
}

}  // namespace

TaskCounts CountsOf(const Job& job) {
  TaskCounts counts;
  if (job.backend == Backend::kNone) {
    counts.worker = 1;
    counts.in_cluster = false;
    return counts;
  }
  if (job.backend == Backend::kMpi) {
    counts.ranks_per_node = static_cast<uint32_t>(job.process_count_per_node);
    counts.worker = static_cast<uint32_t>(job.node_count) * counts.ranks_per_node;
    counts.in_cluster = false;
    return counts;
  }
  counts.ps = static_cast<uint32_t>(job.parameter_server_count);
  counts.chief = static_cast<uint32_t>(job.chief_count);
  counts.worker = static_cast<uint32_t>(job.worker_count);
  counts.evaluator = static_cast<uint32_t>(job.evaluator_count);
  counts.spans = SpansOf(job);
  return counts;
}

std::vector<int> PortsNeeded(const Job& job, int nodes) { return PortsTaken(CountsOf(job), nodes); }

absl::StatusOr<Plan> MakePlan(const Job& job, const PlanFacts& facts) {
  const TaskCounts counts = CountsOf(job);
  const uint32_t tasks = counts.ps + counts.chief + counts.worker + counts.evaluator;
  if (facts.node_per_task && facts.nodes.size() != tasks) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan: facts are known of ", facts.nodes.size(), " pods, and there are ", tasks, " tasks"));
  }
  if (!facts.node_per_task && facts.nodes.size() != static_cast<size_t>(job.node_count)) {
    return absl::InvalidArgumentError(absl::StrCat("plan: node_count is ", job.node_count, ", and facts are known of ",
                                                   facts.nodes.size(), " nodes"));
  }
  std::vector<NodePorts> nodes;
  for (const NodeFacts& node : facts.nodes) nodes.push_back({node.host, node.free_ports});
  BASIN_ASSIGN_OR_RETURN(const std::vector<PlacedTask> places, LayOut(counts, nodes, facts.node_per_task));
  BASIN_ASSIGN_OR_RETURN(const ClusterSpec cluster, ClusterOf(places));
  Devices devices(job, facts.nodes);
  BASIN_RETURN_IF_ERROR(devices.Check(places));
  std::vector<size_t> tasks_of_node(nodes.size(), 0), trainers_of_node(nodes.size(), 0);
  Rank rank;
  for (const PlacedTask& place : places) {
    tasks_of_node[place.node] += StartsRanks(place.name.role) ? 0 : 1;
    rank.world += Trains(place.name.role) ? 1 : 0;
  }
  Plan plan{facts.run_id, job.experiment, job.setup, job.secrets, {}};
  for (const PlacedTask& place : places) {
    const Role role = place.name.role;
    const bool shares_node = tasks_of_node[place.node] > 1;
    PlannedTask task;
    task.place = place;
    if (StartsRanks(role)) {
      task.argv = role == Role::kMpirun ? MpirunCommand(job.node_count, job.process_count_per_node) : OrtedCommand();
      SetLauncherEnvironment(job, facts.run_id, &task);
      plan.tasks.push_back(std::move(task));
      continue;
    }
    task.is_rank = job.backend == Backend::kMpi;
    task.argv = CommandOf(job, role, facts.run_id, shares_node);
    if (job.backend == Backend::kPs) task.tf_config = FormatTfConfig(cluster, place.name);
    task.takes_listener = RunsBasinPs(job, role);
    task.uses_snapshot = !job.source_directory.empty() && !RunsBasinPs(job, role);
    // Basin's own servers need nothing of an image.
    if (!task.takes_listener) task.image = job.image;
    if (Trains(role)) task.devices = devices.Next(place.node, !task.image.empty());
    SetEnvironment(job, facts.run_id, shares_node, &task);
    if (Trains(role)) {
      rank.local = trainers_of_node[place.node]++;
      SetRank(rank, &task);
      ++rank.rank;
    }
    plan.tasks.push_back(std::move(task));
  }
  return plan;
}

std::string FirstPsAddress(const Plan& plan) {
  for (const PlannedTask& task : plan.tasks) {
    if (task.takes_listener) return absl::StrCat(task.place.host, ":", task.place.port);
  }
  return "";
}

size_t ChiefTask(const Plan& plan) {
  for (size_t i = 0; i < plan.tasks.size(); ++i) {
    if (Trains(plan.tasks[i].place.name.role)) return i;
  }
  BASIN_CHECK(false);
}

}  // namespace basin
