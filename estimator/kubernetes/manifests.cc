#include "estimator/kubernetes/manifests.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "estimator/kubernetes/pod_plan.h"
#include "estimator/kubernetes/pod_spec.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

std::vector<Role> RolesOf(const Plan& plan) {
  std::vector<Role> roles;
  for (const PlannedTask& task : plan.tasks) {
    if (roles.empty() || roles.back() != task.place.name.role) roles.push_back(task.place.name.role);
  }
  return roles;
}

size_t CountOf(const Plan& plan, Role role) {
  size_t count = 0;
  for (const PlannedTask& task : plan.tasks) count += task.place.name.role == role ? 1 : 0;
  return count;
}

class Manifests {
 public:
  explicit Manifests(const ManifestInput& input) : input_(input), run_(ObjectNameOf(input.plan.run_id)) {}

  absl::StatusOr<std::vector<Json>> Make() {
    BASIN_RETURN_IF_ERROR(AddConfigMaps());
    AddSecret();
    BASIN_RETURN_IF_ERROR(input_.jobset ? AddJobSet() : AddServiceAndJobs());
    return std::move(objects_);
  }

 private:
  Json Labels(const Role* role) const {
    Json labels = Json::object();
    for (const auto& [name, value] : input_.settings.labels) labels[name] = value;
    // Last: whatever settings came here, the run is found and deleted by these.
    labels[kManagedByLabel] = "basin";
    labels[kRunLabel] = input_.plan.run_id;
    if (role != nullptr) labels[kRoleLabel] = std::string(Name(*role));
    return labels;
  }

  Json Metadata(const std::string& name) const {
    Json metadata = {{"name", name}};
    if (!input_.settings.name_space.empty()) metadata["namespace"] = input_.settings.name_space;
    metadata["labels"] = Labels(nullptr);
    return metadata;
  }

  absl::Status AddConfigMaps() {
    for (const Role role : RolesOf(input_.plan)) {
      const std::string text = PodPlanToJson(
          PodPlanOf(input_.job, input_.plan, role, input_.settings, input_.environment_spec, input_.wait_seconds));
      if (text.size() > kMostConfigMapBytes) {
        return absl::InvalidArgumentError(absl::StrCat(
            Name(role), ": the plan of ", CountOf(input_.plan, role), " tasks is ", text.size(),
            " bytes, more than a ConfigMap holds (1 MiB); take fewer tasks, or fewer environment_variables"));
      }
      objects_.push_back({{"apiVersion", "v1"},
                          {"kind", "ConfigMap"},
                          {"metadata", Metadata(absl::StrCat(run_, "-", Name(role)))},
                          {"data", {{"plan.json", text}}}});
    }
    if (input_.source_archive.empty()) return absl::OkStatus();
    objects_.push_back({{"apiVersion", "v1"},
                        {"kind", "ConfigMap"},
                        {"metadata", Metadata(run_ + "-source")},
                        {"binaryData", {{"source", absl::Base64Escape(input_.source_archive)}}}});
    return absl::OkStatus();
  }

  void AddSecret() {
    Json data = {{"token", absl::Base64Escape(input_.token)}};
    for (const auto& [name, value] : input_.secrets) data[absl::StrCat("secret.", name)] = absl::Base64Escape(value);
    objects_.push_back(
        {{"apiVersion", "v1"}, {"kind", "Secret"}, {"metadata", Metadata(run_)}, {"type", "Opaque"}, {"data", data}});
  }

  absl::StatusOr<Json> JobSpec(Role role) const {
    const size_t count = CountOf(input_.plan, role);
    Json spec = {{"completionMode", "Indexed"}, {"completions", count}, {"parallelism", count}, {"backoffLimit", 0}};
    BASIN_ASSIGN_OR_RETURN(const Json pod, PodSpecOf(input_, role));
    spec["template"] = {{"metadata", {{"labels", Labels(&role)}}}, {"spec", pod}};
    return spec;
  }

  // The run is done when its training is, and the evaluator, which reads from the servers: these do not hold it open.
  Json RolesThatDecide() const {
    Json roles = Json::array({input_.job.chief_count > 0 && input_.job.backend == Backend::kPs ? "chief" : "worker"});
    if (CountOf(input_.plan, Role::kEvaluator) > 0) roles.push_back("evaluator");
    return roles;
  }

  absl::Status AddJobSet() {
    Json replicated = Json::array();
    for (const Role role : RolesOf(input_.plan)) {
      BASIN_ASSIGN_OR_RETURN(const Json job, JobSpec(role));
      replicated.push_back({{"name", std::string(Name(role))}, {"replicas", 1}, {"template", {{"spec", job}}}});
    }
    objects_.push_back(
        {{"apiVersion", "jobset.x-k8s.io/v1alpha2"},
         {"kind", "JobSet"},
         {"metadata", Metadata(run_)},
         {"spec",
          {{"network", {{"enableDNSHostnames", true}, {"publishNotReadyAddresses", true}, {"subdomain", run_}}},
           {"successPolicy", {{"operator", "All"}, {"targetReplicatedJobs", RolesThatDecide()}}},
           {"failurePolicy", {{"maxRestarts", 0}}},
           {"replicatedJobs", replicated}}}});
    return absl::OkStatus();
  }

  absl::Status AddServiceAndJobs() {
    objects_.push_back({{"apiVersion", "v1"},
                        {"kind", "Service"},
                        {"metadata", Metadata(run_)},
                        {"spec",
                         {{"clusterIP", "None"},
                          {"publishNotReadyAddresses", true},
                          {"selector", {{kRunLabel, input_.plan.run_id}}}}}});
    for (const Role role : RolesOf(input_.plan)) {
      BASIN_ASSIGN_OR_RETURN(const Json job, JobSpec(role));
      objects_.push_back({{"apiVersion", "batch/v1"},
                          {"kind", "Job"},
                          {"metadata", Metadata(absl::StrCat(run_, "-", Name(role)))},
                          {"spec", job}});
    }
    return absl::OkStatus();
  }

  const ManifestInput& input_;
  const std::string run_;
  std::vector<Json> objects_;
};

}  // namespace

std::string ObjectNameOf(const std::string& run_id) { return "basin-" + run_id; }

std::string PodHostOf(const std::string& run_id, const TaskId& task, bool jobset) {
  const std::string run = ObjectNameOf(run_id);
  return absl::StrCat(run, "-", Name(task.role), jobset ? "-0-" : "-", task.index, ".", run);
}

absl::StatusOr<Plan> MakePodPlan(const Job& job, const std::string& run_id, bool jobset) {
  const TaskCounts counts = CountsOf(job);
  PlanFacts facts;
  facts.run_id = run_id;
  facts.node_per_task = true;
  const std::pair<Role, uint32_t> in_order[] = {{Role::kPs, counts.ps},
                                                {Role::kChief, counts.chief},
                                                {Role::kWorker, counts.worker},
                                                {Role::kEvaluator, counts.evaluator}};
  for (const auto& [role, count] : in_order) {
    for (uint32_t index = 0; index < count; ++index) {
      NodeFacts pod;
      pod.host = PodHostOf(run_id, {role, index}, jobset);
      pod.free_ports = {kPodPort};
      if (job.use_gpu) pod.gpus = {"0"};  // the only one that the pod sees
      facts.nodes.push_back(std::move(pod));
    }
  }
  return MakePlan(job, facts);
}

KubernetesSettings SettingsOfJob(const KubernetesSettings& target, const Job& job) {
  KubernetesSettings settings = MergedSettings(target, job.kubernetes);
  // A script's image is its pods'; a target's is for jobs that name none.
  if (!job.image.empty() && job.kubernetes.image.empty()) settings.image = job.image;
  if (job.shm_bytes > 0 && job.kubernetes.shm_size.empty()) settings.shm_size = absl::StrCat(job.shm_bytes);
  for (const auto& [role, resources] : job.roles) {
    const std::string name(Name(role));
    auto found = std::find_if(settings.resources.begin(), settings.resources.end(),
                              [&name](const auto& one) { return one.first == name; });
    if (found == settings.resources.end()) {
      found = settings.resources.insert(found, {name, {}});
    }
    const std::pair<const char*, std::string> amounts[] = {
        {"cpu", resources.cpus > 0 ? absl::StrCat(resources.cpus) : ""},
        {"memory", resources.memory_bytes > 0 ? absl::StrCat(resources.memory_bytes) : ""}};
    for (const auto& [resource, amount] : amounts) {
      const bool given = std::any_of(found->second.begin(), found->second.end(),
                                     [resource = resource](const auto& one) { return one.first == resource; });
      if (!amount.empty() && !given) found->second.emplace_back(resource, amount);
    }
  }
  return settings;
}

absl::Status CheckKubernetesJob(const Job& job, const KubernetesSettings& settings) {
  if (job.backend == Backend::kMpi) {
    return absl::UnimplementedError(
        absl::StrCat(job.places.Lead("distributed_backend"),
                     "mpi does not run on a target of kind kubernetes, whose pods know no mpirun; use ps, or "
                     "another target"));
  }
  if (job.workers_per_gpu > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(job.places.Lead("workers_per_gpu"),
                     "pods do not share a GPU; remove it (a cluster may offer parts of GPUs as resources of their "
                     "own: kubernetes.resources)"));
  }
  for (const auto& [role, resources] : job.roles) {
    const char* field = resources.nodes > 0            ? "nodes"
                        : !resources.partition.empty() ? "partition"
                        : resources.gpus > 1           ? "gpus"
                                                       : nullptr;
    if (field == nullptr) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(job.places.Lead("roles"), Name(role), ".", field,
                     ": not on a target of kind kubernetes, where each task is a pod with at most one GPU; "
                     "remove it (kubernetes.pod_overlay places pods: nodeSelector, affinity)"));
  }
  if (settings.image.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(job.places.Lead("kubernetes.image"),
                     "not given, nor is custom_docker_image; pods run in an image that has Basin's programs: write "
                     "kubernetes: {image: REGISTRY/NAME:TAG} in the job, or image in the target"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Json>> MakeManifests(const ManifestInput& input) {
  if (input.source_archive.size() > kMostConfigMapBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "source_directory: packed it is ", input.source_archive.size(),
        " bytes, more than a ConfigMap holds (1 MiB); leave things out by .basinignore, or write kubernetes: {source: "
        "\"image:/PATH\"} or {source: \"claim:NAME/PATH\"} and put it there"));
  }
  return Manifests(input).Make();
}

}  // namespace basin
