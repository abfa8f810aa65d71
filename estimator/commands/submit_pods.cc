#include "estimator/commands/submit_pods.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/commands/run_flags.h"
#include "estimator/kubernetes/kubectl.h"
#include "estimator/kubernetes/manifests.h"
#include "estimator/kubernetes/pod_plan.h"
#include "estimator/kubernetes/source_archive.h"
#include "estimator/kubernetes/supervise_pods.h"

namespace basin {
namespace {

ManifestInput InputOf(const SupervisedRun& run) {
  ManifestInput input{run.job, run.plan, run.target.kubernetes};
  input.jobset = run.target.kubernetes.controller == "jobset";
  input.environment_spec = run.environment_spec;
  input.secrets = run.secrets;
  input.wait_seconds = static_cast<int>(absl::ToInt64Seconds(run.target.detach_grace));
  return input;
}

}  // namespace

absl::Status PlanPods(SupervisedRun* run, const std::string& run_id, bool dry_run) {
  KubernetesSettings& settings = run->target.kubernetes;
  settings = SettingsOfJob(settings, run->job);
  BASIN_RETURN_IF_ERROR(CheckKubernetesJob(run->job, settings));
  absl::StatusOr<std::string> controller = AskController(settings);
  if (!controller.ok() && dry_run) {
    Warn(absl::StrCat(controller.status().message(), "; shown as for a cluster with JobSet"));
    controller = "jobset";
  }
  BASIN_ASSIGN_OR_RETURN(settings.controller, controller);
  BASIN_ASSIGN_OR_RETURN(run->plan, MakePodPlan(run->job, run_id, settings.controller == "jobset"));
  return MakeManifests(InputOf(*run)).status();  // what is wrong with them is told before there is a run
}

absl::StatusOr<std::string> PackedSource(const CommandContext& context, const SupervisedRun& run,
                                         const std::vector<std::string>& never, RunHistory* history) {
  const bool travels = ParsePodPlace(run.target.kubernetes.source, "configmap").kind == "configmap";
  if (run.job.source_directory.empty() || !travels) return std::string();
  BASIN_ASSIGN_OR_RETURN(const std::string base, BaseFolder(context, run.target));
  TreeOptions options;
  options.limit_mb = run.job.snapshot_limit_mb;
  options.never = never;
  options.never.push_back(base);
  BASIN_ASSIGN_OR_RETURN(const StagedSnapshot snapshot, StageSnapshot(run.job.source_directory, base, options));
  if (history != nullptr) {
    history->Journal(absl::Now(), "snapshot",
                     nlohmann::json({{"digest", snapshot.tree.digest},
                                     {"files", snapshot.tree.files},
                                     {"bytes", snapshot.tree.bytes},
                                     {"ignore_file", snapshot.tree.ignore_file}})
                         .dump());
  }
  return PackSource(snapshot);
}

absl::Status PrintManifests(const CommandContext& context, const SupervisedRun& run, bool json) {
  ManifestInput input = InputOf(run);
  input.token = "made at submit";
  for (auto& [name, value] : input.secrets) value = "of the environment at submit";
  BASIN_ASSIGN_OR_RETURN(input.source_archive, PackedSource(context, run, {}, nullptr));
  BASIN_ASSIGN_OR_RETURN(const std::vector<nlohmann::ordered_json> manifests, MakeManifests(input));
  if (json) {
    const nlohmann::ordered_json list = {{"apiVersion", "v1"}, {"kind", "List"}, {"items", manifests}};
    std::printf("%s\n", list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    Info("dry run: nothing is created; the token and the secrets' values are not shown");
    std::fputs(ManifestsToYaml(manifests).c_str(), stdout);
  }
  return absl::OkStatus();
}

absl::StatusOr<RunOutcome> SuperviseOnPods(const SupervisedRun& run, const std::string* packed_source,
                                           const RunFolder& folder, RunHistory& history,
                                           const SuperviseOptions& options) {
  PodRun pods;
  pods.settings = run.target.kubernetes;
  if (packed_source != nullptr) {
    ManifestInput input = InputOf(run);
    input.source_archive = *packed_source;
    BASIN_ASSIGN_OR_RETURN(const std::string token, ReadFile(folder.TokenPath(), 4096));
    input.token = std::string(absl::StripAsciiWhitespace(token));
    BASIN_ASSIGN_OR_RETURN(pods.manifests, MakeManifests(input));
  }
  return SupervisePods(run, pods, folder, history, options);
}

}  // namespace basin
