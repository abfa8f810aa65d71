#include "cluster_spec/cluster_view.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace basin {
namespace {

absl::StatusOr<ClusterView> TryView(absl::string_view json, const TaskOverrides& overrides = {}) {
  const auto config = ParseTfConfig(json);
  if (!config.ok()) return config.status();
  return Resolve(*config, overrides);
}

ClusterView View(absl::string_view json, const TaskOverrides& overrides = {}) {
  auto view = TryView(json, overrides);
  EXPECT_TRUE(view.ok()) << json << ": " << view.status();
  return view.ok() ? *std::move(view) : ClusterView();
}

std::string ErrorOfView(absl::string_view json, const TaskOverrides& overrides = {}) {
  const auto view = TryView(json, overrides);
  return view.ok() ? "no error" : std::string(view.status().message());
}

std::string Config(absl::string_view cluster, absl::string_view type, int index) {
  return absl::StrCat("{\"cluster\": ", cluster, ", \"task\": {\"type\": \"", type, "\", \"index\": ", index,
                      "}, \"environment\": \"cloud\"}");
}

constexpr char kAzure[] =
    R"({"ps": ["host0:2222", "host1:2222"], "worker": ["host2:2222", "host3:2222", "host4:2222"]})";

TEST(ClusterViewTest, AzuresWorkerZeroIsTheChief) {
  const ClusterView view = View(Config(kAzure, "worker", 0));
  EXPECT_EQ(view.self, (TaskId{Role::kWorker, 0}));
  EXPECT_EQ(view.self_address, "host2:2222");
  EXPECT_TRUE(view.is_chief);
  EXPECT_EQ(view.chief, view.self);
  EXPECT_FALSE(view.standalone);
  EXPECT_EQ(view.ps, (std::vector<Peer>{{0, "host0:2222"}, {1, "host1:2222"}}));
  EXPECT_EQ(view.workers.size(), 3u);
  EXPECT_EQ(view.trainers().size(), 3u);
  EXPECT_FALSE(view.self_ps.has_value());
  EXPECT_TRUE(view.warnings.empty());
}

TEST(ClusterViewTest, AzuresOtherTasksAreNotTheChief) {
  EXPECT_FALSE(View(Config(kAzure, "worker", 1)).is_chief);
  const ClusterView ps = View(Config(kAzure, "ps", 1));
  EXPECT_FALSE(ps.is_chief);
  EXPECT_EQ(ps.self_ps, PsOrdinal(1));
  EXPECT_EQ(ps.self_address, "host1:2222");
  EXPECT_EQ(ps.chief, (TaskId{Role::kWorker, 0}));
}

TEST(ClusterViewTest, AnEvaluatorOutsideTheClusterIsAccepted) {
  const ClusterView view = View(Config(kAzure, "evaluator", 0));
  EXPECT_EQ(view.self, (TaskId{Role::kEvaluator, 0}));
  EXPECT_EQ(view.self_address, "");
  EXPECT_EQ(view.ps.size(), 2u);
  EXPECT_FALSE(view.evaluator_address.has_value());
  EXPECT_FALSE(view.is_chief);
}

TEST(ClusterViewTest, AnEvaluatorWithAnEmptySpecIsWarnedThatItHasNothingToRead) {
  const ClusterView view = View(R"({"task": {"type": "evaluator", "index": 0}})");
  EXPECT_TRUE(view.ps.empty());
  EXPECT_FALSE(view.standalone);
  ASSERT_EQ(view.warnings.size(), 1u);
  EXPECT_TRUE(absl::StrContains(view.warnings[0], "names no ps"));
}

constexpr char kKubeflow[] =
    R"({"chief": ["j-chief-0.ns.svc:2222"], "evaluator": ["j-evaluator-0.ns.svc:2222"], "ps": ["j-ps-0.ns.svc:2222"],
        "worker": ["j-worker-0.ns.svc:2222", "j-worker-1.ns.svc:2222"]})";

TEST(ClusterViewTest, KubeflowListsTheEvaluatorInTheCluster) {
  const ClusterView evaluator = View(Config(kKubeflow, "evaluator", 0));
  EXPECT_EQ(evaluator.self_address, "j-evaluator-0.ns.svc:2222");
  const ClusterView worker = View(Config(kKubeflow, "worker", 0));
  EXPECT_FALSE(worker.is_chief);
  EXPECT_EQ(worker.chief, (TaskId{Role::kChief, 0}));
  EXPECT_EQ(*worker.chief_address, "j-chief-0.ns.svc:2222");
  EXPECT_EQ(*worker.evaluator_address, "j-evaluator-0.ns.svc:2222");
  EXPECT_EQ(worker.trainers(), (std::vector<TaskId>{{Role::kChief, 0}, {Role::kWorker, 0}, {Role::kWorker, 1}}));
  EXPECT_TRUE(View(Config(kKubeflow, "chief", 0)).is_chief);
}

TEST(ClusterViewTest, KubeflowsSingleReplicaHasNoTfConfigAndTrainsAlone) {
  const ClusterView view = View("{}");
  EXPECT_TRUE(view.standalone);
  EXPECT_TRUE(view.is_chief);
  EXPECT_EQ(view.self, (TaskId{Role::kWorker, 0}));
  EXPECT_EQ(view.trainers().size(), 1u);
  EXPECT_TRUE(view.ps.empty());
}

TEST(ClusterViewTest, ADynamicWorkerSeesItselfAndAllPs) {
  const ClusterView view = View(Config(R"({"worker": {"1": "w1:2222"}, "ps": ["p0:2222", "p1:2222"]})", "worker", 1));
  EXPECT_EQ(view.self_address, "w1:2222");
  EXPECT_FALSE(view.is_chief);
  EXPECT_EQ(view.chief, (TaskId{Role::kWorker, 0}));
  EXPECT_EQ(view.ps.size(), 2u);
  ASSERT_EQ(view.warnings.size(), 1u);
  EXPECT_TRUE(absl::StrContains(view.warnings[0], "enableDynamicWorker"));
  EXPECT_TRUE(View(Config(R"({"worker": {"0": "w0:2222"}, "ps": ["p0:2222"]})", "worker", 0)).is_chief);
}

TEST(ClusterViewTest, ADynamicPsUsesItsOnlyAddressUnderItsOwnIndex) {
  for (int index : {0, 1, 7}) {
    const ClusterView view = View(Config(R"({"worker": {}, "ps": ["own:2222"]})", "ps", index));
    EXPECT_EQ(view.self, (TaskId{Role::kPs, static_cast<uint32_t>(index)}));
    EXPECT_EQ(view.self_address, "own:2222");
    EXPECT_FALSE(view.knows_all_ps);
    EXPECT_EQ(view.self_ps, PsOrdinal(static_cast<uint32_t>(index)));
    EXPECT_EQ(view.ps, (std::vector<Peer>{{static_cast<uint32_t>(index), "own:2222"}}));
  }
}

// The operator's own key for it (training-operator v1.8, SparseTFConfig).
TEST(ClusterViewTest, TheOperatorsSparseClusterIsTheCluster) {
  const ClusterView worker = View(
      R"({"sparseCluster": {"worker": {"1": "w1:2222"}, "ps": ["p0:2222"]}, "task": {"type": "worker", "index": 1}})");
  EXPECT_EQ(worker.self_address, "w1:2222");
  EXPECT_EQ(worker.ps.size(), 1u);
  const ClusterView ps =
      View(R"({"sparseCluster": {"worker": {}, "ps": ["own:2222"]}, "task": {"type": "ps", "index": 1}})");
  EXPECT_EQ(ps.self_ps, PsOrdinal(1));
}

TEST(ClusterViewTest, AWrongPsIndexIsNoDynamicPs) {
  EXPECT_EQ(ErrorOfView(Config(R"({"worker": ["w:1"], "ps": ["p0:1", "p1:1"]})", "ps", 2)),
            "TF_CONFIG task ps 2: expected job \"ps\" to list index 2, found indices 0 at p0:1, 1 at p1:1; set "
            "task.index to this task's own, "
            "or add its address");
  EXPECT_NE(ErrorOfView(Config(R"({"worker": ["w:1"], "ps": ["p0:1"]})", "ps", 1)), "no error");
  EXPECT_NE(ErrorOfView(Config(R"({"ps": ["p0:1"]})", "ps", 1)), "no error");
  EXPECT_NE(ErrorOfView(Config(R"({"worker": {}, "ps": ["p0:1", "p1:1"]})", "ps", 2)), "no error");
}

TEST(ClusterViewTest, SageMakersMasterIsTheChief) {
  constexpr char kCluster[] =
      R"({"master": ["h0:2222"], "worker": ["h1:2222", "h2:2222"], "ps": ["h0:2223", "h1:2223", "h2:2223"]})";
  const ClusterView view = View(Config(kCluster, "master", 0));
  EXPECT_EQ(view.self, (TaskId{Role::kChief, 0}));
  EXPECT_TRUE(view.is_chief);
  EXPECT_EQ(*view.chief_address, "h0:2222");
  EXPECT_EQ(view.ps.size(), 3u);
  EXPECT_EQ(view.trainers().size(), 3u);
  EXPECT_EQ(View(Config(kCluster, "chief", 0)).self, view.self);
  EXPECT_FALSE(View(Config(kCluster, "worker", 0)).is_chief);
}

TEST(ClusterViewTest, GoogleAiPlatformsShapeResolves) {
  const ClusterView view = View(R"({"cluster": {"chief": ["c:2222"], "worker": ["w:2222"], "ps": ["p:2222"]},
      "task": {"type": "worker", "index": 0, "trial": "3", "cloud": "x"}, "environment": "cloud", "job": {"a": 1}})");
  EXPECT_EQ(view.chief, (TaskId{Role::kChief, 0}));
  EXPECT_TRUE(view.warnings.empty());
}

TEST(ClusterViewTest, VertexClusterSpecsWorkerPoolsAreRoles) {
  constexpr char kCluster[] =
      R"({"workerpool0": ["a-0:2222"], "workerpool1": ["b-0:2222"], "workerpool2": ["c-0:2222"], "workerpool3": ["d-0:2222"]})";
  EXPECT_TRUE(View(Config(kCluster, "workerpool0", 0)).is_chief);
  EXPECT_EQ(View(Config(kCluster, "workerpool2", 0)).self_ps, PsOrdinal(0));
  EXPECT_EQ(View(Config(kCluster, "workerpool3", 0)).self_address, "d-0:2222");
}

TEST(ClusterViewTest, BatchAisThreeNodesResolve) {
  constexpr char kCluster[] = R"({"ps": ["n0:2222"], "worker": ["n0:2223", "n1:2222", "n2:2222"]})";
  EXPECT_TRUE(View(Config(kCluster, "worker", 0)).is_chief);
  EXPECT_EQ(View(Config(kCluster, "ps", 0)).self_address, "n0:2222");
}

TEST(ClusterViewTest, InASparseClusterTheOrdinalIsThePosition) {
  const ClusterView view = View(Config(R"({"ps": {"2": "a:1", "5": "b:1"}, "worker": ["w:1"]})", "ps", 5));
  EXPECT_EQ(view.self_ps, PsOrdinal(1));
  EXPECT_EQ(view.ps, (std::vector<Peer>{{2, "a:1"}, {5, "b:1"}}));
  EXPECT_TRUE(view.knows_all_ps);
}

TEST(ClusterViewTest, AnEmptyChiefJobLeavesWorkerZeroTheChief) {
  EXPECT_TRUE(View(Config(R"({"chief": [], "ps": ["p:1"], "worker": ["w:1"]})", "worker", 0)).is_chief);
  EXPECT_TRUE(View(Config(R"({"chief": [], "master": ["m:1"], "ps": ["p:1"]})", "master", 0)).is_chief);
}

TEST(ClusterViewTest, OverridesWin) {
  const ClusterView view = View(Config(kAzure, "ps", 0), {"worker", 2, {}});
  EXPECT_EQ(view.self, (TaskId{Role::kWorker, 2}));
  EXPECT_EQ(View(R"({"cluster": {"ps": ["p:1"], "worker": ["w:1"]}})", {"ps", 0, {}}).self_address, "p:1");
}

TEST(ClusterViewTest, AMissingIndexIsFilledWhereOnlyOneFits) {
  const ClusterView view = View(R"({"cluster": {"ps": ["p:1"], "worker": ["w:1"]}, "task": {"type": "ps"}})");
  EXPECT_EQ(view.self, (TaskId{Role::kPs, 0}));
  EXPECT_EQ(view.warnings.size(), 1u);
  EXPECT_EQ(View(R"({"cluster": {"worker": ["w:1"]}})").self, (TaskId{Role::kWorker, 0}));
  EXPECT_TRUE(absl::StartsWith(ErrorOfView(absl::StrCat("{\"cluster\": ", kAzure, ", \"task\": {\"type\": \"ps\"}}")),
                               "TF_CONFIG task.index is missing: expected it, because job \"ps\" has 2 tasks"));
  EXPECT_TRUE(absl::StartsWith(ErrorOfView(absl::StrCat("{\"cluster\": ", kAzure, "}")),
                               "TF_CONFIG task.type is missing: expected it, because the cluster has 5 tasks"));
}

TEST(ClusterViewTest, AtMostOneChief) {
  EXPECT_EQ(ErrorOfView(Config(R"({"chief": ["a:1", "b:1"], "ps": ["p:1"]})", "ps", 0)),
            "TF_CONFIG job \"chief\" index 1 address \"b:1\": expected at most one chief, found 2; move the others to "
            "the job \"worker\"");
  EXPECT_EQ(
      ErrorOfView(Config(R"({"chief": ["a:1"], "master": ["b:1"], "ps": ["p:1"]})", "ps", 0)),
      "TF_CONFIG jobs \"chief\" and \"master\" both mean chief, at a:1 and b:1: expected one of them; remove one");
  EXPECT_EQ(
      ErrorOfView(Config(R"({"chief": {"1": "a:1"}, "ps": ["p:1"]})", "ps", 0)),
      "TF_CONFIG job \"chief\" index 1 address \"a:1\": expected the only chief to have index 0; write [\"a:1\"]");
  EXPECT_EQ(ErrorOfView(Config(R"({"chief": ["a:1"], "ps": ["p:1"]})", "chief", 1)),
            "TF_CONFIG task chief 1: expected index 0, because there is at most one chief; set task.index to 0");
}

TEST(ClusterViewTest, AtMostOneEvaluator) {
  EXPECT_EQ(
      ErrorOfView(Config(R"({"evaluator": ["a:1", "b:1"], "ps": ["p:1"]})", "ps", 0)),
      "TF_CONFIG job \"evaluator\" index 1 address \"b:1\": expected at most one evaluator, found 2; keep the first");
  EXPECT_EQ(
      ErrorOfView(Config(kAzure, "evaluator", 1)),
      "TF_CONFIG task evaluator 1: expected index 0, because there is at most one evaluator; set task.index to 0");
}

TEST(ClusterViewTest, UnknownRolesAreNamedWithTheNearest) {
  EXPECT_EQ(ErrorOfView(Config(kAzure, "Worker", 0)),
            "TF_CONFIG task.type \"Worker\": expected chief (or master), worker, ps or evaluator; did you mean "
            "\"worker\"?; change task.type");
  const ClusterView view = View(Config(R"({"workers": ["x:1"], "ps": ["p:1"], "worker": ["w:1"]})", "worker", 0));
  ASSERT_EQ(view.warnings.size(), 1u);
  EXPECT_TRUE(absl::StrContains(view.warnings[0], "job \"workers\" is no role")) << view.warnings[0];
  EXPECT_TRUE(absl::StrContains(view.warnings[0], "did you mean \"worker\"?")) << view.warnings[0];
}

TEST(ClusterViewTest, ATaskThatIsNotInTheClusterIsRefused) {
  EXPECT_EQ(ErrorOfView(Config(kAzure, "chief", 0)),
            "TF_CONFIG task chief 0: expected a job \"chief\" in the cluster, found none; add it with this task's "
            "address, or change task.type");
  EXPECT_NE(ErrorOfView(Config(kAzure, "worker", 3)), "no error");
  EXPECT_NE(ErrorOfView(R"({"task": {"type": "ps", "index": 0}})"), "no error");
  EXPECT_NE(ErrorOfView(Config(R"({"worker": {}, "ps": []})", "chief", 0)), "no error");
}

TEST(ClusterViewTest, SeveralTrainersNeedAPs) {
  EXPECT_TRUE(absl::StartsWith(ErrorOfView(Config(R"({"worker": ["a:1", "b:1"]})", "worker", 0)),
                               "TF_CONFIG the cluster has 2 tasks that train and no ps"));
  EXPECT_TRUE(View(Config(R"({"worker": ["a:1"]})", "worker", 0)).is_chief);
}

TEST(ClusterViewTest, OutOfRangeOverridesAreRefused) {
  EXPECT_NE(ErrorOfView(Config(kAzure, "worker", 0), {{}, -1, {}}), "no error");
  EXPECT_NE(ErrorOfView(Config(kAzure, "worker", 0), {{}, int64_t{1} << 40, {}}), "no error");
}

}  // namespace
}  // namespace basin
