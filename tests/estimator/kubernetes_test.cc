#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/kubernetes/cluster_view.h"
#include "estimator/kubernetes/kubectl.h"
#include "estimator/kubernetes/manifests.h"
#include "estimator/kubernetes/pod_log.h"
#include "estimator/kubernetes/pod_plan.h"
#include "estimator/kubernetes/source_archive.h"
#include "yaml-cpp/yaml.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kRunId[] = "20260102-030405-a1b2c3";

Job JobOf(const std::string& more) {
  const absl::StatusOr<Job> job = ParseJob(
      absl::StrCat("entry_script: train.py\nsource_directory: /src\ndistributed_backend: ps\nworker_count: 2\n", more),
      "job.yaml");
  EXPECT_TRUE(job.ok()) << job.status();
  return job.value_or(Job());
}

std::vector<Json> ManifestsOf(const Job& job, bool jobset = true) {
  const absl::StatusOr<Plan> plan = MakePodPlan(job, kRunId, jobset);
  EXPECT_TRUE(plan.ok()) << plan.status();
  ManifestInput input{job, *plan, job.kubernetes};
  input.jobset = jobset;
  input.token = "the-token";
  input.secrets = {{"KEY", "the-key"}};
  const absl::StatusOr<std::vector<Json>> made = MakeManifests(input);
  EXPECT_TRUE(made.ok()) << made.status();
  return *made;
}

const Json& Find(const std::vector<Json>& manifests, const std::string& kind, const std::string& name) {
  for (const Json& one : manifests) {
    if (one["kind"] == kind && one["metadata"]["name"] == name) return one;
  }
  static const Json none;
  ADD_FAILURE() << "no " << kind << " " << name;
  return none;
}

TEST(KubernetesManifestsTest, ClusterIsKnownBeforeThereArePods) {
  const Job job = JobOf("kubernetes: {image: i}\n");
  const absl::StatusOr<Plan> plan = MakePodPlan(job, kRunId, true);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const Json config = Json::parse(plan->tasks.back().tf_config);
  const std::string run = absl::StrCat("basin-", kRunId);
  EXPECT_EQ(config["cluster"]["ps"], Json::array({absl::StrCat(run, "-ps-0-0.", run, ":2222")}));
  EXPECT_EQ(config["cluster"]["worker"], Json::array({absl::StrCat(run, "-worker-0-0.", run, ":2222"),
                                                      absl::StrCat(run, "-worker-0-1.", run, ":2222")}));
  EXPECT_EQ(PodHostOf(kRunId, {Role::kWorker, 1}, false), absl::StrCat(run, "-worker-1.", run));
}

TEST(KubernetesManifestsTest, ServersDoNotHoldTheJobOpen) {
  const std::string run = absl::StrCat("basin-", kRunId);
  const auto decides = [&run](const std::string& more) {
    const std::vector<Json> made = ManifestsOf(JobOf(absl::StrCat("kubernetes: {image: i}\n", more)));
    const Json& spec = Find(made, "JobSet", run)["spec"];
    return spec["successPolicy"]["targetReplicatedJobs"].dump();
  };
  EXPECT_EQ(decides(""), R"(["worker"])");
  EXPECT_EQ(decides("chief_count: 1\nevaluator_count: 1\n"), R"(["chief","evaluator"])");
}

TEST(KubernetesManifestsTest, PodsHaveWhatTheJobAsksFor) {
  const Job job = JobOf(
      "use_gpu: true\nnode_count: 2\nmax_run_duration_seconds: 100\n"
      "kubernetes: {image: r/i:1, programs: /opt/basin/bin, shm_size: 2Gi, namespace: ml, source: 'claim:code/p', "
      "outputs: 'claim:out',\n"
      "  resources: {ps: {memory: 8Gi}}, pod_overlay: {tolerations: [{key: gpu, operator: Exists}], containers: "
      "[{name: basin, env: [{name: A, value: b}]}]}}\n");
  const std::vector<Json> made = ManifestsOf(job);
  const Json& set = Find(made, "JobSet", absl::StrCat("basin-", kRunId));
  EXPECT_EQ(set["metadata"]["namespace"], "ml");
  const Json& ps = set["spec"]["replicatedJobs"][0]["template"]["spec"];
  const Json& worker = set["spec"]["replicatedJobs"][1]["template"]["spec"];
  EXPECT_EQ(worker["completions"], 2);
  EXPECT_EQ(worker["backoffLimit"], 0);
  EXPECT_FALSE(worker.contains("activeDeadlineSeconds"));  // it would run while the pods wait in a queue
  EXPECT_GT(worker["template"]["spec"]["activeDeadlineSeconds"], 100);
  const Json& container = worker["template"]["spec"]["containers"][0];
  EXPECT_EQ(container["command"].dump(), R"(["/opt/basin/bin/basin","agent","--pod"])");
  EXPECT_EQ(container["resources"]["limits"]["nvidia.com/gpu"], "1");
  EXPECT_EQ(ps["template"]["spec"]["containers"][0]["resources"]["limits"].dump(), R"({"memory":"8Gi"})");
  EXPECT_EQ(worker["template"]["spec"]["tolerations"][0]["key"], "gpu");
  EXPECT_EQ(worker["template"]["spec"]["topologySpreadConstraints"].size(), 1u);
  EXPECT_EQ(container["image"], "r/i:1");  // the overlay adds to the container
  const std::string volumes = worker["template"]["spec"]["volumes"].dump();
  EXPECT_THAT(volumes, AllOf(HasSubstr(R"("sizeLimit":"2Gi")"), HasSubstr(R"("claimName":"code")"),
                             HasSubstr(R"("claimName":"out")")));
  EXPECT_EQ(container["env"].size(), 3u);
}

TEST(KubernetesManifestsTest, LabelsOfTheJobNeverHideTheRun) {
  Job job = JobOf("kubernetes: {image: i, labels: {kueue.x-k8s.io/queue-name: team, empty: ''}}\n");
  job.kubernetes.labels.emplace_back("basin-run", "other");  // which no file may say
  for (const bool jobset : {true, false}) {
    for (const Json& one : ManifestsOf(job, jobset)) {
      EXPECT_EQ(one["metadata"]["labels"]["basin-run"], kRunId) << one["kind"];
      EXPECT_EQ(one["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "team") << one["kind"];
    }
  }
}

TEST(KubernetesManifestsTest, SecretsAreInTheSecretAlone) {
  for (const bool jobset : {true, false}) {
    for (const Json& one : ManifestsOf(JobOf("kubernetes: {image: i}\n"), jobset)) {
      const bool is_secret = one["kind"] == "Secret";
      EXPECT_EQ(one.dump().find("dGhlLXRva2Vu") != std::string::npos, is_secret) << one["kind"];
      EXPECT_EQ(one.dump().find("dGhlLWtleQ") != std::string::npos, is_secret) << one["kind"];
      EXPECT_EQ(one.dump().find("the-token"), std::string::npos);
    }
  }
}

TEST(KubernetesManifestsTest, YamlReadsBackAsTheObjects) {
  Json tricky = {{"text", "yes"},
                 {"number", "12"},
                 {"lines", "a\nb: c\n# d"},
                 {"empty", ""},
                 {"colon", "a: b"},
                 {"null", "null"},
                 {"list", Json::array({Json::array({1, 2}),
                                       Json::object(),
                                       Json::array(),
                                       {{"a", {{"b", Json::array({true, "x"})}}}, {"c", 1.5}}})}};
  const YAML::Node read = YAML::Load(ManifestsToYaml({tricky}));
  for (const char* name : {"text", "number", "lines", "empty", "colon", "null"}) {
    EXPECT_EQ(read[name].as<std::string>(), tricky[name].get<std::string>()) << name;
  }
  EXPECT_EQ(read["list"][0][1].as<int>(), 2);
  EXPECT_TRUE(read["list"][1].IsMap());
  EXPECT_EQ(read["list"][3]["a"]["b"][1].as<std::string>(), "x");
  EXPECT_EQ(YAML::LoadAll(ManifestsToYaml(ManifestsOf(JobOf("kubernetes: {image: i}\n")))).size(), 4u);
}

TEST(KubernetesManifestsTest, AMissingImageIsToldWithThePlaceInTheJobFileWhereItWouldStand) {
  const std::string says =
      "kubernetes.image: not given, nor is custom_docker_image; pods run in an image that has Basin's programs: "
      "write kubernetes: {image: REGISTRY/NAME:TAG} in the job, or image in the target";
  EXPECT_EQ(CheckKubernetesJob(JobOf(""), {}).message(), absl::StrCat("job.yaml:1:1: ", says));
  EXPECT_EQ(CheckKubernetesJob(JobOf("kubernetes:\n  namespace: lab\n"), {}).message(),
            absl::StrCat("job.yaml:6:3: ", says));
}

TEST(KubernetesManifestsTest, WhatCannotBeOnKubernetesIsRefusedByName) {
  KubernetesSettings settings;
  settings.image = "i";
  EXPECT_THAT(CheckKubernetesJob(JobOf("use_gpu: true\nworkers_per_gpu: 2\n"), settings).message(),
              HasSubstr("job.yaml:6:1: workers_per_gpu: pods do not share"));
  EXPECT_THAT(CheckKubernetesJob(JobOf("roles: {worker: {nodes: 1}}\n"), settings).message(),
              HasSubstr("job.yaml:5:1: roles: worker.nodes: not on a target of kind kubernetes"));
  Job mpi = JobOf("");
  mpi.backend = Backend::kMpi;
  EXPECT_THAT(CheckKubernetesJob(mpi, settings).message(), HasSubstr("distributed_backend: mpi"));
  const Job job = JobOf("kubernetes: {image: i}\n");
  const absl::StatusOr<Plan> plan = MakePodPlan(job, kRunId, true);
  ManifestInput input{job, *plan, job.kubernetes};
  input.source_archive.assign(kMostConfigMapBytes + 1, 'x');
  EXPECT_THAT(MakeManifests(input).status().message(), AllOf(HasSubstr("1048577 bytes"), HasSubstr("claim:NAME/PATH")));
}

TEST(KubernetesManifestsTest, OverlayMergesByNameAndRemovesByNull) {
  Json spec = Json::parse(
      R"({"a": 1, "containers": [{"name": "basin", "image": "i", "args": ["x"]}], "volumes": [{"name": "w"}], "keep": {"x": 1}})");
  MergeOverlay(
      Json::parse(
          R"({"a": null, "containers": [{"name": "basin", "args": ["y", "z"]}, {"name": "side"}], "volumes": [{"name": "v"}], "keep": {"y": 2}})"),
      &spec);
  EXPECT_EQ(
      spec.dump(),
      R"({"containers":[{"name":"basin","image":"i","args":["y","z"]},{"name":"side"}],"volumes":[{"name":"w"},{"name":"v"}],"keep":{"x":1,"y":2}})");
}

TEST(KubernetesManifestsTest, OverlayThatTakesWhatBasinNeedsIsRefusedWithItsPlace) {
  const std::pair<const char*, const char*> wrong[] = {
      {"{volumes: [{name: token, emptyDir: {}}]}", "\"token\" is Basin's own volume"},
      {"{containers: [{name: basin, volumeMounts: [{name: x, mountPath: /run/basin/plan}]}]}", "\"/run/basin/plan\""},
      {"{containers: [{name: basin, volumeMounts: [{name: x, mountPath: /dev/shm}]}]}", "or leave out shm_size"},
      {"{containers: [{name: basin, env: [{name: BASIN_POD_IP, value: x}]}]}", "BASIN_POD_IP"}};
  for (const auto& [overlay, message] : wrong) {
    const Job job = JobOf(absl::StrCat("kubernetes: {image: i, shm_size: 1Gi,\n  pod_overlay: ", overlay, "}\n"));
    const absl::StatusOr<Plan> plan = MakePodPlan(job, kRunId, true);
    ASSERT_TRUE(plan.ok()) << plan.status();
    for (const bool jobset : {true, false}) {
      ManifestInput input{job, *plan, SettingsOfJob({}, job)};
      input.jobset = jobset;
      EXPECT_THAT(MakeManifests(input).status().message(),
                  AllOf(HasSubstr("job.yaml:6:16: kubernetes.pod_overlay: "), HasSubstr(message)))
          << overlay;
    }
  }
  // Beside what is Basin's, everything may be said, of its container too.
  const std::vector<Json> made = ManifestsOf(
      JobOf("kubernetes: {image: i, pod_overlay: {restartPolicy: Never, volumes: [{name: shm, emptyDir: {}}],\n"
            "  containers: [{name: side, image: s}, {name: basin, image: j, env: [{name: A, value: b}],\n"
            "  volumeMounts: [{name: shm, mountPath: /dev/shm}]}]}}\n"));
  const std::string run = absl::StrCat("basin-", kRunId);
  const Json& pod = Find(made, "JobSet", run)["spec"]["replicatedJobs"][1]["template"]["spec"]["template"]["spec"];
  EXPECT_EQ(pod["containers"].size(), 2u);
  EXPECT_EQ(pod["containers"][0]["image"], "j");
}

TEST(PodPlanTest, GivesEachTaskWhatThePlanSays) {
  const Job job = JobOf("kubernetes: {image: i}\nsetup: [module load x]\nenvironment_variables: {A: 'b c'}\n");
  const absl::StatusOr<Plan> plan = MakePodPlan(job, kRunId, true);
  ASSERT_TRUE(plan.ok());
  const absl::StatusOr<PodPlan> read =
      ParsePodPlan(PodPlanToJson(PodPlanOf(job, *plan, Role::kWorker, job.kubernetes, "spec", 7)));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->source, "archive");
  EXPECT_EQ(read->wait_seconds, 7);
  ASSERT_EQ(read->tasks.size(), 2u);
  for (const PlannedTask& task : read->tasks) {
    const PlannedTask& planned = plan->tasks[static_cast<size_t>(task.place.node)];
    EXPECT_EQ(task.argv, planned.argv);
    EXPECT_EQ(task.tf_config, planned.tf_config);
    EXPECT_THAT(task.environment, ::testing::UnorderedElementsAreArray(planned.environment));
  }
  EXPECT_EQ(PodPlanOf(job, *plan, Role::kPs, job.kubernetes, "spec", 7).source, "");
  EXPECT_FALSE(ParsePodPlan("{}").ok());
}

// As text: of two readings of the same log, one may have got a stretch of output in more pieces.
std::string Told(const std::vector<PodEvent>& events) {
  std::string text;
  for (const PodEvent& one : events) {
    if (one.kind == PodEvent::kLog) {
      absl::StrAppend(&text, one.text);
    } else {
      absl::StrAppend(&text, "<", one.kind, " ", one.text, " ", one.number, " ", one.exit.code, " ", one.exit.signal,
                      " ", one.chunk.path(), one.chunk.data(), ">");
    }
  }
  return text;
}

TEST(PodLogTest, ReadsTheSameWhereverItIsCut) {
  agent::FileChunk chunk;
  chunk.set_stream(agent::METRICS);
  chunk.set_data(std::string("{}\n\x1e\0", 5));
  const std::string log = absl::StrCat(
      PodLine("pod", "1.0"), PodLine("agent"), PodLine("started", "12"), "hello ", PodChunkLine(chunk),
      "world\n\x1e"
      "BAS\n\x1e\x1e",
      PodLine("log", "20"), "x", PodLine("exited", "3 0 a\\b\nc"), PodLine("of a later version"), PodLine("gone"));
  PodLogReader whole;
  const std::string told = Told(whole.Take(log));
  EXPECT_THAT(told, AllOf(HasSubstr("hello <"),
                          HasSubstr("world\n\x1e"
                                    "BAS\n\x1e\x1ex<"),
                          HasSubstr(absl::StrCat("<", PodEvent::kAgent, " ")), HasSubstr("a\\b\nc 0 3 0")));
  for (size_t cut = 1; cut < log.size(); ++cut) {
    PodLogReader reader;
    std::vector<PodEvent> events = reader.Take(log.substr(0, cut));
    for (PodEvent& event : reader.Take(log.substr(cut))) events.push_back(std::move(event));
    ASSERT_EQ(Told(events), told) << cut;
    EXPECT_FALSE(reader.begins_late());
  }
}

TEST(PodLogTest, OutputOfALogWhoseBeginningIsGoneIsTakenFromTheNextMark) {
  PodLogReader reader;
  const std::vector<PodEvent> events = reader.Take(absl::StrCat("lost\n", PodLine("log", "1048576"), "kept\n"));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].offset, 1048576u);
  EXPECT_EQ(events[0].text, "kept\n");
  EXPECT_TRUE(reader.begins_late());
}

std::string PodJson(const std::string& index, const std::string& rest) {
  return absl::StrCat(R"({"kind": "Pod", "metadata": {"name": "p)", index,
                      R"(", "labels": {"basin-role": "worker", "batch.kubernetes.io/job-completion-index": ")", index,
                      R"("}}, )", rest, "}");
}

TEST(ClusterViewTest, SaysWhyPodsWaitAndHowTheyEnded) {
  const std::string list = absl::StrCat(
      R"({"items": [)",
      absl::StrJoin(
          {PodJson(
               "0",
               R"("spec": {}, "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]})"),
           PodJson(
               "1",
               R"("spec": {"nodeName": "n"}, "status": {"phase": "Pending", "containerStatuses": [{"name": "basin", "image": "i:1", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}}]})"),
           PodJson(
               "2",
               R"("spec": {"nodeName": "n"}, "status": {"phase": "Failed", "containerStatuses": [{"name": "basin", "image": "i", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]})"),
           PodJson(
               "3",
               R"("spec": {"nodeName": "n"}, "status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."})"),
           PodJson(
               "4",
               R"("spec": {"nodeName": "n"}, "status": {"phase": "Running", "containerStatuses": [{"name": "basin", "image": "i", "state": {"running": {}}}]})"),
           std::string(R"({"kind": "JobSet", "metadata": {"name": "r"}, "spec": {"suspend": true}, "status": {}})")},
          ","),
      "]}");
  const absl::StatusOr<PodsView> view = ReadClusterView(list);
  ASSERT_TRUE(view.ok()) << view.status();
  const auto pod = [&view](uint32_t index) { return view->pods.at({Role::kWorker, index}); };
  EXPECT_EQ(pod(0).reason, "Unschedulable: 0/3 nodes");
  EXPECT_FALSE(pod(0).is_scheduled);
  EXPECT_TRUE(pod(1).cannot_pull);
  EXPECT_THAT(pod(1).reason, HasSubstr("image i:1 cannot be pulled: ImagePullBackOff: no such"));
  EXPECT_EQ(pod(2).reason, "OOMKilled");
  EXPECT_EQ(pod(2).exit_code, 137);
  EXPECT_EQ(pod(3).reason, "Evicted: The node was low on memory.");
  EXPECT_TRUE(pod(3).has_ended);
  EXPECT_TRUE(pod(4).is_running);
  EXPECT_FALSE(pod(4).has_ended);
  EXPECT_THAT(view->waiting, HasSubstr("suspended"));
  EXPECT_FALSE(ReadClusterView("no list").ok());
  EXPECT_TRUE(ReadClusterView(R"({"items": [1, null, {}, {"kind": "Pod", "metadata": 3, "status": []}]})").ok());
}

TEST(KubectlTest, ComplaintsSayWhatToDo) {
  KubernetesSettings settings;
  settings.name_space = "ml";
  const auto status = [&settings](const std::string& said) { return KubectlStatus(settings, "do it", {1, "", said}); };
  EXPECT_TRUE(absl::IsPermissionDenied(status("Error from server (Forbidden): pods is forbidden: User cannot list")));
  EXPECT_TRUE(absl::IsUnauthenticated(status("error: You must be logged in to the server (Unauthorized)")));
  EXPECT_THAT(status("Error from server (Forbidden): x").message(), HasSubstr("in namespace ml"));
  EXPECT_TRUE(absl::IsFailedPrecondition(status("Error from server (Forbidden): exceeded quota: gpus")));
  EXPECT_THAT(status("Error from server (NotFound): namespaces \"ml\" not found").message(),
              HasSubstr("correct kubernetes.namespace"));
  EXPECT_THAT(status("error: context \"x\" does not exist").message(), HasSubstr("kubernetes.context"));
  EXPECT_TRUE(absl::IsUnavailable(status("The connection to the server 1.2.3.4:6443 was refused - did you ...")));
  EXPECT_TRUE(absl::IsUnavailable(KubectlStatus(settings, "do it", {124, "", ""})));
  EXPECT_THAT(status("E1129 04:10:03.3 41 memcache.go:265] \"Unhandled Error\"\nThe server said no").message(),
              AllOf(HasSubstr("The server said no"), Not(HasSubstr("memcache"))));
  EXPECT_TRUE(KubectlStatus(settings, "do it", {0, "x", "a warning"}).ok());
  settings.context = "prod";
  EXPECT_EQ(absl::StrJoin(KubectlWords(settings, {"get", "pods"}), " "),
            "kubectl --context=prod --namespace=ml get pods");
}

TEST(SourceArchiveTest, CarriesTheSnapshotWhole) {
  const std::filesystem::path base = std::filesystem::path(::testing::TempDir()) / "basin-source-archive";
  std::filesystem::remove_all(base);
  std::filesystem::create_directories(base / "src/deep");
  std::ofstream(base / "src/deep/a.txt") << "hello\n";
  std::ofstream(base / "src/empty");
  const absl::StatusOr<StagedSnapshot> staged = StageSnapshot((base / "src").string(), (base / "cache").string(), {});
  ASSERT_TRUE(staged.ok()) << staged.status();
  const absl::StatusOr<std::string> packed = PackSource(*staged);
  ASSERT_TRUE(packed.ok()) << packed.status();
  const absl::StatusOr<std::vector<agent::ToAgent>> messages = UnpackSource(*packed);
  ASSERT_TRUE(messages.ok()) << messages.status();
  EXPECT_EQ(messages->front().offer_snapshot().digest(), staged->tree.digest);
  std::string text;
  for (const agent::ToAgent& one : *messages) text += one.tree_data().data();
  EXPECT_EQ(text, "hello\n");
  EXPECT_FALSE(UnpackSource(packed->substr(0, packed->size() / 2)).ok());
  EXPECT_FALSE(UnpackSource("rubbish").ok());
}

}  // namespace
}  // namespace basin
