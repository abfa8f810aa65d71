#include "estimator/commands/start_run.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "estimator/agent/node_facts.h"
#include "estimator/agent/port_holder.h"
#include "estimator/job/plan.h"
#include "estimator/kubernetes/pod_plan.h"
#include "estimator/launch/slurm_allocation.h"
#include "estimator/snapshot/left_out.h"

namespace basin {
namespace {

// Ports that may be had; the nodes choose for good.
absl::StatusOr<std::vector<int>> ProvisionalPorts(const Job& job, const Target& target, int count) {
  std::vector<int> ports;
  if (target.kind != TargetKind::kLocal) {
    for (int i = 0; i < count; ++i) ports.push_back(2222 + i);
    return ports;
  }
  PortHolder holder;
  BASIN_ASSIGN_OR_RETURN(const std::vector<uint32_t> held, holder.Hold({static_cast<uint32_t>(count),
                                                                        static_cast<uint32_t>(job.ports.first),
                                                                        static_cast<uint32_t>(job.ports.last),
                                                                        target.nodes[0].address,
                                                                        {}}));
  ports.assign(held.begin(), held.end());
  return ports;
}

}  // namespace

absl::StatusOr<Plan> ProvisionalPlan(const Job& job, const Target& target, const std::string& run_id) {
  PlanFacts facts;
  facts.run_id = run_id;
  const std::vector<int> needed = PortsNeeded(job, static_cast<int>(target.nodes.size()));
  for (size_t i = 0; i < target.nodes.size(); ++i) {
    NodeFacts node;
    node.host = target.nodes[i].address;
    BASIN_ASSIGN_OR_RETURN(node.free_ports, ProvisionalPorts(job, target, needed[i]));
    if (job.use_gpu && target.kind == TargetKind::kLocal) {
      agent::Welcome here;
      GatherNodeFacts(&here);
      node.gpus.assign(here.gpus().begin(), here.gpus().end());
      node.gpu_problem = here.gpu_problem();
    } else if (job.use_gpu) {
      // As many as could be asked for: only the node knows.
      for (int gpu = 0; gpu < job.worker_count + job.chief_count; ++gpu) node.gpus.push_back(absl::StrCat("GPU-", gpu));
    }
    facts.nodes.push_back(std::move(node));
  }
  return MakePlan(job, facts);
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadSecrets(const CommandContext& context,
                                                                             const Job& job) {
  std::vector<std::pair<std::string, std::string>> secrets;
  for (const std::string& name : job.secrets) {
    std::optional<std::string> value = context.variable(name);
    if (!value) {
      return absl::InvalidArgumentError(
          absl::StrCat("secrets: ", name, " is not set here; export it, and submit again"));
    }
    secrets.emplace_back(name, *std::move(value));
  }
  return secrets;
}

absl::Status CheckScriptTravels(const Job& job, const Target& target) {
  if (job.script.empty()) return absl::OkStatus();
  // In a pod it may come with the image, or lie on a claim.
  if (target.kind == TargetKind::kKubernetes &&
      ParsePodPlace(target.kubernetes.source, "configmap").kind != "configmap")
    return absl::OkStatus();
  const absl::Status status = CheckIsKept(job.source_directory, job.script);
  return status.ok() ? status : absl::Status(status.code(), absl::StrCat("entry_script: ", status.message()));
}

std::string ContainerOf(const Job& job, const Target& target) {
  if (job.image.empty()) return "";
  ContainerRequest request;
  request.settings = target.containers;
  request.image = job.image;
  request.shm_bytes = job.shm_bytes;
  request.gpus = job.use_gpu;
  for (const JobInput& input : job.inputs) request.paths.push_back(input.path);
  if (!job.resume_from.empty()) request.paths.push_back(job.resume_from);
  return ContainerRequestToText(request);
}

void JournalSnapshot(RunHistory& history, const StagedSnapshot& snapshot) {
  history.Journal(absl::Now(), "snapshot",
                  nlohmann::json({{"digest", snapshot.tree.digest},
                                  {"files", snapshot.tree.files},
                                  {"bytes", snapshot.tree.bytes},
                                  {"ignore_file", snapshot.tree.ignore_file}})
                      .dump());
}

absl::StatusOr<StagedSnapshot> StagedAgain(const std::string& staged, int64_t limit_mb) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(staged + "/snapshots", error)) {
    // Beside it lies its lock.
    if (!entry.is_directory() || absl::StrContains(entry.path().filename().string(), '.')) continue;
    TreeOptions options;
    options.limit_mb = limit_mb;
    return StageSnapshot(entry.path().string(), staged, options);
  }
  return absl::NotFoundError(
      absl::StrCat("the snapshot of the source directory is not in ", staged, " any more; submit the job again"));
}

void HeedSlurm(const SupervisedRun& run, int restarts, SuperviseOptions* options) {
  if (run.target.kind != TargetKind::kSlurm) return;
  const std::string& job_id = run.target.slurm.job_id;
  options->batch_verdict = VerdictOfAllocation(job_id, restarts, run.target.lease);
  options->time_is_over = absl::StrCat("the time limit of Slurm's job ", job_id,
                                       " is nearly over; set a longer slurm.time, or max_run_duration_seconds");
}

}  // namespace basin
