#include "estimator/job/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/job/layout.h"
#include "tests/estimator/planned_job.h"

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

NodeFacts Node(const std::string& host, std::vector<int> ports = {2222, 2223, 2224, 2225}) {
  NodeFacts node;
  node.host = host;
  node.free_ports = std::move(ports);
  return node;
}

PlanFacts SmallNode() { return {"r1", {Node("127.0.0.1", {2222, 2223, 20000, 20001})}}; }

TEST(PlanTest, CommandsOfEachRole) {
  const auto plan = MakePlan(SmallJob(), SmallNode());
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->tasks.size(), 5u);
  EXPECT_EQ(absl::StrJoin(plan->tasks[0].argv, " "), "{programs}/basin-ps --lanes 1 --token-file {token} --run-id r1");
  const std::string worker =
      "{programs}/basin-worker --program mlp --token-file {token} --run-id r1 --outputs {task}/outputs --data /data "
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
  EXPECT_EQ(Variable(task, "BASIN_TOKEN_FILE"), "{token}");
  EXPECT_EQ(Variable(task, "BASIN_RUN_DIR"), "{task}");
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
  // The placeholders are no reason to quote, other braces are.
  EXPECT_TRUE(absl::StrContains(PlanToText(*plan), "\n  {programs}/basin-worker --program mlp ")) << PlanToText(*plan);
}

std::vector<PlacedTask> Places(const Plan& plan) {
  std::vector<PlacedTask> places;
  for (const PlannedTask& task : plan.tasks) places.push_back(task.place);
  return places;
}

TEST(PlanTest, TheEstimatorsWorkedExample) {
  const Job job = JobOf(
      "entry_script: train.py\nnode_count: 2\nworker_count: 2\nparameter_server_count: 1\n"
      "distributed_backend: ps\nscript_params: {--batch-size: 50, --learning-rate: 0.01}\n");
  EXPECT_EQ(PortsNeeded(job, 2), (std::vector<int>{2, 1}));
  const auto plan = MakePlan(job, {"r1", {Node("n0"), Node("n1")}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Text(Places(*plan)), "ps/0=n0:2222 worker/0=n0:2223 worker/1=n1:2222");
  EXPECT_EQ(FirstPsAddress(*plan), "n0:2222");
  EXPECT_EQ(ChiefTask(*plan), 1u);
  const PlannedTask &ps = plan->tasks[0], &worker = plan->tasks[2];
  EXPECT_TRUE(ps.takes_listener);
  EXPECT_FALSE(ps.uses_snapshot);
  EXPECT_FALSE(worker.takes_listener);
  EXPECT_TRUE(worker.uses_snapshot);
  EXPECT_EQ(worker.place.node, 1);
  EXPECT_EQ(absl::StrJoin(worker.argv, " "), "{python} {task}/train.py --batch-size 50 --learning-rate 0.01");
  EXPECT_EQ(nlohmann::json::parse(worker.tf_config), nlohmann::json::parse(R"({"cluster": {"ps": ["n0:2222"],
      "worker": ["n0:2223", "n1:2222"]}, "task": {"type": "worker", "index": 1}})"));
}

TEST(PlanTest, ChiefAndEvaluatorGoRoundRobinToo) {
  const Job job = JobOf(
      "entry_script: train.py\nnode_count: 2\nworker_count: 3\nparameter_server_count: 2\n"
      "chief_count: 1\nevaluator_count: 1\ndistributed_backend: ps\n");
  EXPECT_EQ(PortsNeeded(job, 2), (std::vector<int>{4, 2}));
  const auto plan = MakePlan(job, {"r1", {Node("n0"), Node("n1")}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Text(Places(*plan)),
            "ps/0=n0:2222 ps/1=n1:2222 chief/0=n0:2223 worker/0=n0:2224 worker/1=n1:2223 worker/2=n0:2225 "
            "evaluator/0=n0:0");
  EXPECT_EQ(ChiefTask(*plan), 2u);
}

TEST(PlanTest, RanksCountTheTrainingRoles) {
  const Job job = JobOf(
      "entry_script: train.py\nnode_count: 2\nworker_count: 3\nchief_count: 1\n"
      "evaluator_count: 1\ndistributed_backend: ps\n");
  const auto plan = MakePlan(job, {"r1", {Node("n0"), Node("n1")}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<std::string> ranks;
  for (const PlannedTask& task : plan->tasks) {
    ranks.push_back(absl::StrCat(Variable(task, "BASIN_ROLE"), Variable(task, "BASIN_TASK_INDEX"), ":",
                                 Variable(task, "RANK"), "/", Variable(task, "BASIN_WORLD_SIZE"), "@",
                                 Variable(task, "LOCAL_RANK"), ",", Variable(task, "AZ_BATCHAI_TASK_INDEX")));
  }
  EXPECT_EQ(absl::StrJoin(ranks, " "),
            "ps0:(not set)/(not set)@(not set),0 chief0:0/4@0,0 worker0:1/4@1,0 worker1:2/4@0,1 worker2:3/4@2,2 "
            "evaluator0:(not set)/(not set)@(not set),0");
}

TEST(PlanTest, WithoutABackendOneProcessStandsAlone) {
  for (const char* script : {"train.sh", "basin:mlp"}) {
    const Job job = JobOf(absl::StrCat("entry_script: ", script, "\n"));
    EXPECT_EQ(PortsNeeded(job, 1), std::vector<int>{0});
    const auto plan = MakePlan(job, {"r1", {Node("n0", {})}});
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_EQ(plan->tasks.size(), 1u);
    const PlannedTask& task = plan->tasks[0];
    EXPECT_EQ(task.place.name, (TaskId{Role::kWorker, 0}));
    EXPECT_EQ(task.place.port, 0);
    EXPECT_EQ(task.tf_config, "");
    EXPECT_EQ(Variable(task, "TF_CONFIG"), "(not set)");
    EXPECT_EQ(Variable(task, "OPENBLAS_NUM_THREADS"), "(not set)");  // the machine is its own
    EXPECT_EQ(Variable(task, "WORLD_SIZE"), "1");
    EXPECT_EQ(FirstPsAddress(*plan), "");
    EXPECT_TRUE(absl::StrContains(PlanToText(*plan), "worker 0  n0 (no cluster)\n")) << PlanToText(*plan);
  }
}

TEST(PlanTest, TheScriptCanBeTheParameterServer) {
  const Job job = JobOf(
      "entry_script: bin/train\ndistributed_backend: ps\nparameter_server: script\n"
      "script_params: {--x: ''}\nresume_from: /c/1\n");
  const auto plan = MakePlan(job, {"r1", {Node("n0")}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const PlannedTask& task : plan->tasks) {
    EXPECT_EQ(absl::StrJoin(task.argv, " "), "{task}/bin/train --x --resume-from /c/1");
    EXPECT_FALSE(task.takes_listener);
    EXPECT_TRUE(task.uses_snapshot);
  }
  EXPECT_EQ(FirstPsAddress(*plan), "");
}

Job GpuJob(int workers, const std::string& more = "") {
  return JobOf(
      absl::StrCat("entry_script: train.py\ndistributed_backend: ps\nuse_gpu: true\nevaluator_count: 1\n"
                   "node_count: 2\nworker_count: ",
                   workers, "\n", more));
}

TEST(PlanTest, WorkersGetDistinctDevicesAndOthersNone) {
  NodeFacts first = Node("n0"), second = Node("n1");
  first.gpus = {"GPU-a", "GPU-b"};
  second.gpus = {"GPU-c"};
  const auto plan = MakePlan(GpuJob(3), {"r1", {first, second}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<std::string> seen;
  for (const PlannedTask& task : plan->tasks) {
    EXPECT_EQ(absl::StrJoin(task.devices, ","), Variable(task, "CUDA_VISIBLE_DEVICES"));
    seen.push_back(absl::StrCat(task.place.name.Name(), "=", Variable(task, "CUDA_VISIBLE_DEVICES")));
  }
  EXPECT_EQ(absl::StrJoin(seen, " "), "ps/0= worker/0=GPU-a worker/1=GPU-c worker/2=GPU-b evaluator/0=");

  const auto shared = MakePlan(GpuJob(4, "workers_per_gpu: 2\n"), {"r1", {first, second}});
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_EQ(shared->tasks[4].devices, std::vector<std::string>{"GPU-c"});
}

TEST(PlanTest, TooFewDevicesNameTheNode) {
  NodeFacts first = Node("n0"), second = Node("n1");
  first.gpus = {"GPU-a", "GPU-b"};
  second.gpu_problem = "no driver";
  const auto none = MakePlan(GpuJob(2), {"r1", {first, second}});
  EXPECT_EQ(
      none.status().message(),
      "use_gpu: node n1 has no GPU (no driver); set use_gpu: false, or take a compute_target whose nodes have one");
  second.gpus = {"GPU-c"};
  const auto few = MakePlan(GpuJob(5), {"r1", {first, second}});
  EXPECT_EQ(few.status().message(),
            "use_gpu: node n0 has 2 GPUs for 3 workers, and workers_per_gpu is 1; set workers_per_gpu: 2, or a smaller "
            "worker_count");
  // A node without a training task needs none.
  second.gpus.clear();
  EXPECT_TRUE(MakePlan(GpuJob(1), {"r1", {first, second}}).ok());
}

TEST(PlanTest, AJobMayTellItsPsToUseAGpu) {
  Job job = SmallJob();
  EXPECT_EQ(Variable(MakePlan(job, SmallNode())->tasks[2], "CUDA_VISIBLE_DEVICES"), "(not set)");
  job.environment_variables = {{"CUDA_VISIBLE_DEVICES", "0"}};
  const auto plan = MakePlan(job, SmallNode());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Variable(plan->tasks[0], "CUDA_VISIBLE_DEVICES"), "0");
}

TEST(PlanTest, APsThatHasItsNodeAloneTakesAllItsLanes) {
  const Job job = JobOf(
      "entry_script: basin:mlp\ndistributed_backend: ps\nnode_count: 2\nworker_count: 1\n"
      "parameter_server_count: 2\n");
  const auto plan = MakePlan(job, {"r1", {Node("n0"), Node("n1")}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(absl::StrJoin(plan->tasks[0].argv, " "), "{programs}/basin-ps --lanes 1 --token-file {token} --run-id r1");
  EXPECT_EQ(absl::StrJoin(plan->tasks[1].argv, " "), "{programs}/basin-ps --token-file {token} --run-id r1");
}

TEST(PlanTest, PlanIsReadBackFromItsJson) {
  NodeFacts gpu = Node("n0");
  gpu.gpus = {"GPU-a", "GPU-b", "GPU-c"};
  NodeFacts other = gpu;
  other.host = "n1";
  const Plan plans[] = {
      *MakePlan(SmallJob(), SmallNode()),
      *MakePlan(GpuJob(3, "setup: [module load x]\nsecrets: [KEY]\n"), {"r2", {gpu, other}}),
      *MakePlan(JobOf("entry_script: train.sh\n"), {"r3", {Node("n0")}}),
  };
  for (const Plan& plan : plans) {
    const auto again = ParsePlan(PlanToJson(plan));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, plan);
  }
  EXPECT_EQ(plans[1].secrets, std::vector<std::string>{"KEY"});
  for (const PlannedTask& task : plans[1].tasks) EXPECT_EQ(Variable(task, "KEY"), "(not set)");
}

TEST(PlanTest, WhatIsNoPlanIsRefused) {
  const auto message = [](const std::string& json) { return std::string(ParsePlan(json).status().message()); };
  EXPECT_EQ(message("[]"), "plan: no JSON object");
  EXPECT_EQ(message("{}"), "plan: \"run_id\" is missing");
  nlohmann::json plan = nlohmann::json::parse(PlanToJson(*MakePlan(SmallJob(), SmallNode())));
  plan["tasks"][0]["role"] = "boss";
  EXPECT_EQ(message(plan.dump()), "plan: \"role\": \"boss\" is no role");
  plan["tasks"][0]["role"] = "ps";
  plan["tasks"][1]["argv"] = "one word";
  EXPECT_TRUE(absl::StrContains(message(plan.dump()), "plan: \"argv\": ")) << message(plan.dump());
  plan["tasks"] = nlohmann::json::array();
  EXPECT_EQ(message(plan.dump()), "plan: no task of it trains");
}

}  // namespace
}  // namespace basin
