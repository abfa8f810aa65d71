#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "estimator/job/job.h"
#include "estimator/job/kubernetes_settings.h"
#include "estimator/kubernetes/manifests.h"
#include "estimator/launch/targets_file.h"

namespace basin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Job JobWith(const std::string& more) {
  const absl::StatusOr<Job> job = ParseJob(
      absl::StrCat("entry_script: train.py\nsource_directory: /src\ndistributed_backend: ps\nworker_count: 2\n", more),
      "job.yaml");
  EXPECT_TRUE(job.ok()) << job.status();
  return job.value_or(Job());
}

TEST(KubernetesSettingsTest, ResourcesOfARoleThatTheJobHasNotAreRefused) {
  const absl::StatusOr<Job> job = ParseJob(
      "entry_script: t.py\ndistributed_backend: ps\nkubernetes: {resources: {evaluator: {cpu: 1}}}\n", "job.yaml");
  EXPECT_THAT(job.status().message(),
              AllOf(HasSubstr("job.yaml:3:"), HasSubstr("resources.evaluator: the job has no task of that role")));
}

TEST(KubernetesSettingsTest, JobWinsOverTargetAndBothReadBack) {
  const absl::StatusOr<std::vector<Target>> targets = ParseTargets(
      "c: {kind: kubernetes, kubernetes: {context: prod, image: a, pull_secrets: [s], pod_overlay: {hostNetwork: "
      "true}}}",
      "targets.yaml");
  ASSERT_TRUE(targets.ok()) << targets.status();
  const absl::StatusOr<Target> again = ParseTargetJson(TargetToJson((*targets)[0]));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->kubernetes, (*targets)[0].kubernetes);
  EXPECT_EQ(again->kind, TargetKind::kKubernetes);
  const Job job = JobWith(
      "kubernetes: {image: b, resources: {worker: {cpu: 2}}, labels: {team: x}, pull_seconds: 9, pod_overlay: "
      "{schedulerName: '1', priority: 2, hostIPC: true}}\n");
  const KubernetesSettings merged = MergedSettings((*targets)[0].kubernetes, job.kubernetes);
  EXPECT_EQ(merged.image, "b");
  EXPECT_EQ(merged.context, "prod");
  EXPECT_EQ(merged.pod_overlay, R"({"schedulerName":"1","priority":2,"hostIPC":true})");
  const absl::StatusOr<Job> reread = ParseJob(JobToJson(job), "job.json");
  ASSERT_TRUE(reread.ok()) << reread.status();
  EXPECT_EQ(reread->kubernetes, job.kubernetes);
}

TEST(KubernetesSettingsTest, WhatTheGroupLeavesOpenTheJobsOwnFieldsSay) {
  KubernetesSettings target;
  target.image = "usual";
  const KubernetesSettings open = SettingsOfJob(
      target, JobWith("custom_docker_image: mine\nshm_size: 1g\nroles: {worker: {cpus: 2, memory: 1GiB}}\n"));
  EXPECT_EQ(open.image, "mine");
  EXPECT_FALSE(open.shm_size.empty());
  ASSERT_EQ(open.resources.size(), 1u);
  EXPECT_THAT(open.resources[0].second,
              ::testing::ElementsAre(std::pair("cpu", "2"), std::pair("memory", "1073741824")));
  const KubernetesSettings said =
      SettingsOfJob(target, JobWith("custom_docker_image: mine\nroles: {worker: {cpus: 2}}\n"
                                    "kubernetes: {image: other, resources: {worker: {cpu: 4}}}\n"));
  EXPECT_EQ(said.image, "other");
  EXPECT_THAT(said.resources[0].second, ::testing::ElementsAre(std::pair("cpu", "4")));
  EXPECT_EQ(SettingsOfJob(target, JobWith("")).image, "usual");
}

TEST(KubernetesSettingsTest, WrongValuesAreNamedWithTheirPlace) {
  const std::pair<const char*, const char*> wrong[] = {
      {"{imge: x}", "did you mean \"image\""},
      {"{namespace: Big_One}", "kubernetes.namespace"},
      {"{source: ftp}", "image:/PATH, claim:NAME"},
      {"{outputs: 'claim:a/../b'}", "kubernetes.outputs"},
      {"{shm_size: lots}", "expected a quantity"},
      {"{shm_size: 512m}", "thousandths of a byte; write 512Mi"},
      {"{resources: {ps: {memory: 512m}}}", "kubernetes.resources.ps.memory: found \"512m\""},
      {"{resources: {ps: {ephemeral-storage: 512m}}}", "write 512Mi"},
      {"{resources: {ps: {'a b': 1}}}", "no name of a resource"},
      {"{labels: {basin-run: x}}", "kubernetes.labels.basin-run"},
      {"{labels: {basin-role: x}}", "Basin sets this label itself"},
      {"{labels: {app.kubernetes.io/managed-by: x}}", "Basin sets this label itself"},
      {"{labels: {batch.kubernetes.io/job-name: x}}", "the cluster's controllers set this label"},
      {"{labels: {'my team': x}}", "no name of a label"},
      {"{labels: {-a/b: x}}", "no name of a label"},
      {"{labels: {team: 'vision and more'}}", "expected a label's value"},
      {"{labels: {team: [x]}}", "kubernetes.labels.team"},
      {"{resources: {worker: {cpu: many}}}", "kubernetes.resources.worker.cpu"},
      {"{resources: {boss: {cpu: 1}}}", "boss"},
      {"{resources: {worker: {nvidia.com/gpu: 1}}}", "use_gpu"},
      {"{controller: cron}", "jobset, jobs"},
      {"{pod_overlay: [a]}", "kubernetes.pod_overlay"},
      {"{pod_overlay: {nodeSelectr: {a: b}}}", "did you mean \"nodeSelector\""},
      {"{pod_overlay: {restartPolicy: Always}}", "kubernetes.pod_overlay.restartPolicy"},
      {"{pod_overlay: {subdomain: x}}", "the run depends on it; remove it"},
      {"{pod_overlay: {containers: {name: basin}}}", "expected a list of mappings that have a name"},
      {"{pod_overlay: {containers: null}}", "kubernetes.pod_overlay.containers"},
      {"{pod_overlay: {containers: [{image: x}]}}", "add name: ..."},
      {"{pod_overlay: {containers: [basin]}}", "found \"basin\""},
      {"{pod_overlay: {containers: [{name: basin, command: [sh]}]}}", "containers.command: the container \"basin\""},
      {"{pod_overlay: {containers: [{name: basin, args: [x]}]}}", "entry_script"},
      {"{pod_overlay: {containers: [{name: basin, env: null}]}}", "containers.env"},
      {"{pod_overlay: {containers: [{name: basin, volumeMounts: [{name: x}]}]}}", "add mountPath: ..."},
      {"{pod_overlay: {containers: [{name: a}, {name: a}]}}", "is there twice"},
      {"{pod_overlay: {volumes: null}}", "kubernetes.pod_overlay.volumes"},
      {"{programs: bin}", "absolute path"},
      {"{pull_seconds: 0}", "kubernetes.pull_seconds"}};
  for (const auto& [text, message] : wrong) {
    const absl::StatusOr<Job> job =
        ParseJob(absl::StrCat("entry_script: basin:mlp\nkubernetes: ", text, "\n"), "job.yaml");
    EXPECT_THAT(job.status().message(), AllOf(HasSubstr("job.yaml:2"), HasSubstr(message))) << text;
  }
  EXPECT_THAT(ParseTargets("c: {kind: kubernetes, nodes: [h0]}", "t").status().message(),
              HasSubstr("is not of kind: kubernetes"));
  EXPECT_THAT(ParseTargets("c: {kind: ssh, nodes: [h0], kubernetes: {image: i}}", "t").status().message(),
              HasSubstr("is of targets of kind: kubernetes"));
}

}  // namespace
}  // namespace basin
