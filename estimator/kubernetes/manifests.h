// A job and its plan as objects of Kubernetes. Pure.
//
//   ConfigMap  RUN-ROLE, one a role: the pods' piece of the plan
//   ConfigMap  RUN-source: the source directory, where it travels so
//   Secret     RUN: the token, and the values of the job's secrets
//   JobSet     RUN: one replicated job a role, whose Job is indexed: pod i is task i
//              or, without the CRD, a headless Service RUN and an indexed Job RUN-ROLE a role
//
// All carry the label basin-run, by which they are looked at and deleted.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/job/job.h"
#include "estimator/job/kubernetes_settings.h"
#include "estimator/job/plan.h"

namespace basin {

inline constexpr char kPodContainer[] = "basin";
// What a ConfigMap holds, all its values together.
inline constexpr size_t kMostConfigMapBytes = size_t{1} << 20;

// The name of a run's objects: "basin-20260102-030405-a1b2c3".
std::string ObjectNameOf(const std::string& run_id);
// A pod's name for the others, before there is a pod: what JobSet, or an indexed Job behind a headless Service, gives.
std::string PodHostOf(const std::string& run_id, const TaskId& task, bool jobset);

// One pod a task; every pod has an address of its own, so all listen on the same port.
absl::StatusOr<Plan> MakePodPlan(const Job& job, const std::string& run_id, bool jobset);

// What the target says, the job's group over it, and where neither does, what the job's own fields say: the image,
// /dev/shm, and the roles' cores and memory.
KubernetesSettings SettingsOfJob(const KubernetesSettings& target, const Job& job);

// INVALID_ARGUMENT naming the field, for a job that cannot be on Kubernetes, or misses what it needs there.
absl::Status CheckKubernetesJob(const Job& job, const KubernetesSettings& settings);

struct ManifestInput {
  const Job& job;
  const Plan& plan;  // of MakePodPlan
  KubernetesSettings settings;
  bool jobset = true;
  std::string token;
  std::vector<std::pair<std::string, std::string>> secrets;
  std::string environment_spec;
  std::string source_archive;  // source_archive.h; empty where it does not travel so
  int wait_seconds = 600;      // that a pod waits for its outputs to be fetched
};
// In the order in which they are created. INVALID_ARGUMENT where one would be too large, or the overlay breaks a pod.
absl::StatusOr<std::vector<nlohmann::ordered_json>> MakeManifests(const ManifestInput& input);

// A pod's spec with the overlay merged into it: objects member by member, lists of objects by their `name` (volumes of
// a container by mountPath, its ports by containerPort), other lists replaced; a null removes.
void MergeOverlay(const nlohmann::ordered_json& overlay, nlohmann::ordered_json* into);

// What the run needs of a pod's spec as it was made, and does not find in `merged`, with what to do; empty where all is
// there: the container "basin" with its command, variables and mounts, their volumes, the pod's name for the others,
// and that it is not started again.
std::string WhatOverlayBreaks(const nlohmann::ordered_json& made, const nlohmann::ordered_json& merged);

// Documents of YAML, "---" between them.
std::string ManifestsToYaml(const std::vector<nlohmann::ordered_json>& manifests);

}  // namespace basin
