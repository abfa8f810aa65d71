#include "estimator/kubernetes/pod_spec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "estimator/job/layout.h"
#include "estimator/kubernetes/pod_plan.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

// How much later than the supervisor the cluster ends a pod by itself.
constexpr int kDeadlineSlackSeconds = 120;

Json ResourcesOf(const ManifestInput& input, Role role) {
  Json amounts = Json::object();
  for (const auto& [name, pairs] : input.settings.resources) {
    if (name != Name(role)) continue;
    for (const auto& [resource, quantity] : pairs) amounts[resource] = quantity;
  }
  if (input.job.use_gpu && Trains(role)) amounts["nvidia.com/gpu"] = "1";
  return amounts;
}

class PodSpec {
 public:
  PodSpec(const ManifestInput& input, Role role)
      : input_(input), settings_(input.settings), role_(role), run_(ObjectNameOf(input.plan.run_id)) {}

  Json Make() {
    Json spec = {{"restartPolicy", "Never"},
                 {"terminationGracePeriodSeconds", input_.job.cancel_grace_seconds + kPodFarewellSeconds},
                 {"enableServiceLinks", false}};
    // A pod's deadline, not its Job's: that one runs while the pod waits in a queue.
    if (input_.job.max_run_duration_seconds > 0) {
      spec["activeDeadlineSeconds"] = input_.job.max_run_duration_seconds + kDeadlineSlackSeconds;
    }
    if (settings_.service_account.empty()) {
      spec["automountServiceAccountToken"] = false;  // nothing in the pod speaks to the cluster
    } else {
      spec["serviceAccountName"] = settings_.service_account;
    }
    for (const std::string& name : settings_.pull_secrets) spec["imagePullSecrets"].push_back({{"name", name}});
    if (!input_.jobset) spec["subdomain"] = run_;
    if (input_.job.node_count > 1) {
      // As asked for where the cluster can: a job should not wait for machines that it does not need.
      spec["topologySpreadConstraints"] = Json::array(
          {{{"maxSkew", 1},
            {"topologyKey", "kubernetes.io/hostname"},
            {"whenUnsatisfiable", "ScheduleAnyway"},
            {"labelSelector",
             {{"matchLabels", {{kRunLabel, input_.plan.run_id}, {kRoleLabel, std::string(Name(role_))}}}}}}});
    }
    AddVolumes();
    spec["containers"] = Json::array({Container()});
    spec["volumes"] = volumes_;
    return spec;
  }

 private:
  void Mount(const char* name, const std::string& at, bool read_only, Json volume) {
    volume["name"] = name;
    volumes_.push_back(std::move(volume));
    Json mount = {{"name", name}, {"mountPath", at}};
    if (read_only) mount["readOnly"] = true;
    mounts_.push_back(std::move(mount));
  }

  void AddVolumes() {
    Mount("plan", kPodPlanFolder, true, {{"configMap", {{"name", absl::StrCat(run_, "-", std::string(Name(role_)))}}}});
    // Readable for whatever user the image names; the pod is the run's alone.
    Mount("token", kPodTokenFolder, true,
          {{"secret",
            {{"secretName", run_},
             {"defaultMode", 0444},
             {"items", Json::array({{{"key", "token"}, {"path", "token"}}})}}}});
    Mount("work", kPodWorkFolder, false, {{"emptyDir", Json::object()}});
    if (!settings_.shm_size.empty()) {
      Mount("shm", "/dev/shm", false, {{"emptyDir", {{"medium", "Memory"}, {"sizeLimit", settings_.shm_size}}}});
    }
    const PodPlan plan = PodPlanOf(input_.job, input_.plan, role_, settings_, input_.environment_spec, 0);
    if (plan.source == "archive") {
      Mount("archive", kPodArchiveFolder, true, {{"configMap", {{"name", absl::StrCat(run_, "-source")}}}});
    }
    const PodPlace source = ParsePodPlace(settings_.source, "configmap");
    if (plan.source == "folder" && source.kind == "claim") {
      Mount("source", kPodSourceFolder, true,
            {{"persistentVolumeClaim", {{"claimName", source.claim}, {"readOnly", true}}}});
    }
    if (plan.outputs == "folder") {
      const std::string claim = ParsePodPlace(settings_.outputs, "exec").claim;
      Mount("kept", kPodKeptFolder, false, {{"persistentVolumeClaim", {{"claimName", claim}}}});
    }
  }

  Json Container() {
    const std::string program = settings_.programs.empty() ? "basin" : settings_.programs + "/basin";
    Json environment = Json::array();
    environment.push_back({{"name", kPodIpVariable}, {"valueFrom", {{"fieldRef", {{"fieldPath", "status.podIP"}}}}}});
    for (const auto& [name, value] : input_.secrets) {
      environment.push_back(
          {{"name", name},
           {"valueFrom", {{"secretKeyRef", {{"name", run_}, {"key", absl::StrCat("secret.", name)}}}}}});
    }
    Json container = {{"name", kPodContainer},
                      {"image", settings_.image},
                      {"command", Json::array({program, "agent", "--pod"})},
                      {"env", environment}};
    if (!settings_.image_pull_policy.empty()) container["imagePullPolicy"] = settings_.image_pull_policy;
    const bool listens =
        std::any_of(input_.plan.tasks.begin(), input_.plan.tasks.end(),
                    [this](const PlannedTask& task) { return task.place.name.role == role_ && task.place.port != 0; });
    if (listens) container["ports"] = Json::array({{{"name", "basin"}, {"containerPort", kPodPort}}});
    if (const Json amounts = ResourcesOf(input_, role_); !amounts.empty()) {
      container["resources"] = {{"requests", amounts}, {"limits", amounts}};
    }
    container["volumeMounts"] = mounts_;
    return container;
  }

  const ManifestInput& input_;
  const KubernetesSettings& settings_;
  const Role role_;
  const std::string run_;
  Json volumes_ = Json::array();
  Json mounts_ = Json::array();
};

}  // namespace

absl::StatusOr<nlohmann::ordered_json> PodSpecOf(const ManifestInput& input, Role role) {
  const Json made = PodSpec(input, role).Make();
  if (input.settings.pod_overlay.empty()) return made;
  Json spec = made;
  MergeOverlay(Json::parse(input.settings.pod_overlay, nullptr, /*allow_exceptions=*/false), &spec);
  if (const std::string wrong = WhatOverlayBreaks(made, spec); !wrong.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(input.settings.pod_overlay_place.text, "kubernetes.pod_overlay: ", wrong));
  }
  return spec;
}

}  // namespace basin
