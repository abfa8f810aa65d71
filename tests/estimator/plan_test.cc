#include "estimator/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/layout.h"
#include "estimator/local_node.h"

namespace basin {
namespace {

TaskCounts Counts(uint32_t ps, uint32_t chief, uint32_t worker, uint32_t evaluator) {
  TaskCounts counts;
  counts.ps = ps;
  counts.chief = chief;
  counts.worker = worker;
  counts.evaluator = evaluator;
  return counts;
}

std::string Text(const std::vector<PlacedTask>& tasks) {
  return absl::StrJoin(tasks, " ", [](std::string* out, const PlacedTask& task) {
    absl::StrAppend(out, task.name.Name(), "=", task.host, ":", task.port);
  });
}

TEST(LayoutTest, TheEstimatorsWorkedExample) {
  const auto tasks = LayOut(Counts(1, 0, 2, 0), {{"n0", {2222, 2223}}, {"n1", {2222, 2223}}});
  ASSERT_TRUE(tasks.ok()) << tasks.status();
  EXPECT_EQ(Text(*tasks), "ps/0=n0:2222 worker/0=n0:2223 worker/1=n1:2222");
}

TEST(LayoutTest, EvaluatorTakesNoPort) {
  const auto tasks = LayOut(Counts(1, 1, 1, 1), {{"n0", {5, 6, 7}}});
  ASSERT_TRUE(tasks.ok()) << tasks.status();
  EXPECT_EQ(Text(*tasks), "ps/0=n0:5 chief/0=n0:6 worker/0=n0:7 evaluator/0=n0:0");
}

TEST(LayoutTest, TooFewPortsNameTheTask) {
  const auto tasks = LayOut(Counts(1, 0, 2, 0), {{"n0", {5, 6}}});
  ASSERT_FALSE(tasks.ok());
  EXPECT_TRUE(absl::StrContains(tasks.status().message(), "worker 1: no free port left on n0")) << tasks.status();
}

Job SmallJob() {
  const auto job = ParseJob(R"(experiment: e
entry_script: basin:mlp
distributed_backend: ps
parameter_server_count: 2
worker_count: 2
evaluator_count: 1
inputs: [{name: data, path: /data}]
script_params: {--hidden: 256, --fast: ""}
environment_variables: {SHOWN: "1"}
training: {rule: {name: sgd, learning_rate: 0.1, momentum: 0.9, nesterov: true}}
)",
                            "job.yaml");
  EXPECT_TRUE(job.ok()) << job.status();
  return *job;
}

NodeFacts SmallNode() {
  return {{{"127.0.0.1", {2222, 2223, 20000, 20001}}}, "/bin/basin-ps", "/bin/basin-worker", "/runs/r", "r1"};
}

std::string Variable(const PlannedTask& task, const std::string& name) {
  std::string value = "(not set)";
  for (const auto& [one, text] : task.environment) {
    if (one == name) value = text;
  }
  return value;
}

TEST(PlanTest, CommandsOfEachRole) {
  const auto plan = MakePlan(SmallJob(), SmallNode());
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->tasks.size(), 5u);
  EXPECT_EQ(absl::StrJoin(plan->tasks[0].argv, " "), "/bin/basin-ps --lanes 1 --token-file /runs/r/token --run-id r1");
  const std::string worker =
      "/bin/basin-worker --program mlp --token-file /runs/r/token --run-id r1 --outputs /runs/r/outputs --data /data "
      "--rule sgd --learning-rate 0.1 --momentum 0.9 --nesterov --hidden 256 --fast";
  EXPECT_EQ(absl::StrJoin(plan->tasks[2].argv, " "), worker);
  EXPECT_EQ(absl::StrJoin(plan->tasks[4].argv, " "), worker);
  EXPECT_EQ(FirstPsAddress(*plan), "127.0.0.1:2222");
}

TEST(PlanTest, TfConfigIsStrictJsonWithTheEvaluatorOutsideTheCluster) {
  const auto plan = MakePlan(SmallJob(), SmallNode());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto worker = nlohmann::json::parse(plan->tasks[3].tf_config);
  const auto expected = nlohmann::json::parse(R"({"cluster": {"ps": ["127.0.0.1:2222", "127.0.0.1:2223"],
      "worker": ["127.0.0.1:20000", "127.0.0.1:20001"]}, "task": {"type": "worker", "index": 1}})");
  EXPECT_EQ(worker, expected);
  const auto evaluator = nlohmann::json::parse(plan->tasks[4].tf_config);
  EXPECT_EQ(evaluator["cluster"], expected["cluster"]);
  EXPECT_EQ(evaluator["task"], nlohmann::json::parse(R"({"type": "evaluator", "index": 0})"));
}

TEST(PlanTest, EnvironmentOfATask) {
  const auto plan = MakePlan(SmallJob(), SmallNode());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const PlannedTask& task = plan->tasks[2];
  EXPECT_EQ(Variable(task, "TF_CONFIG"), task.tf_config);
  EXPECT_EQ(Variable(task, "BASIN_RUN_ID"), "r1");
  EXPECT_EQ(Variable(task, "BASIN_TOKEN_FILE"), "/runs/r/token");
  EXPECT_EQ(Variable(task, "BASIN_RUN_DIR"), "/runs/r");
  EXPECT_EQ(Variable(task, "BASIN_INPUT_DATA"), "/data");
  EXPECT_EQ(Variable(task, "AZUREML_DATAREFERENCE_data"), "/data");
  EXPECT_EQ(Variable(task, "OPENBLAS_NUM_THREADS"), "1");
  EXPECT_EQ(Variable(task, "SHOWN"), "1");
}

TEST(PlanTest, AFlagOfScriptParamsReplacesTheLaunchersOwn) {
  Job job = SmallJob();
  job.script_params = {{"--learning-rate", "0.5"}, {"--data", "/other"}};
  const auto plan = MakePlan(job, SmallNode());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto& argv = plan->tasks[2].argv;
  EXPECT_EQ(std::count(argv.begin(), argv.end(), "--learning-rate"), 1);
  EXPECT_EQ(std::count(argv.begin(), argv.end(), "--data"), 1);
  EXPECT_EQ(argv.back(), "/other");
}

TEST(PlanTest, ChiefJobIsThereOnlyWhereAskedFor) {
  Job job = SmallJob();
  job.parameter_server_count = 1;
  job.chief_count = 1;
  const auto plan = MakePlan(job, SmallNode());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(nlohmann::json::parse(plan->tasks[0].tf_config)["cluster"].contains("chief"));
  EXPECT_EQ(plan->tasks[1].place.name, (TaskId{Role::kChief, 0}));
}

TEST(PlanTest, TextIsQuotedForAShell) {
  Job job = SmallJob();
  job.script_params = {{"--note", "it's two words"}};
  const auto plan = MakePlan(job, SmallNode());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(absl::StrContains(PlanToText(*plan), R"(--note 'it'\''s two words')")) << PlanToText(*plan);
}

TEST(HeldPortsTest, TwoHoldersGetDifferentPorts) {
  const auto first = HeldPorts::Hold(3, {20000, 29999});
  const auto second = HeldPorts::Hold(3, {20000, 29999});
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  for (const int port : first->ports()) {
    EXPECT_EQ(std::count(second->ports().begin(), second->ports().end(), port), 0) << port;
  }
}

}  // namespace
}  // namespace basin
