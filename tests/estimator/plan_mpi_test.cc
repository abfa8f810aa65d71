// Plans of jobs with distributed_backend: mpi.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/agent/granted_gpus.h"
#include "tests/estimator/planned_job.h"

namespace basin {
namespace {

constexpr char kJob[] = R"(entry_script: train.py
distributed_backend: mpi
node_count: 2
process_count_per_node: 2
script_params: {--rate: 0.1}
environment_variables: {OMPI_MCA_mpi_yield_when_idle: "0", MINE: "1"}
secrets: [KEY]
)";

PlanFacts TwoNodes(std::vector<std::string> gpus = {}) {
  PlanFacts facts{"r1", {{}, {}}};
  for (size_t i = 0; i < 2; ++i) {
    facts.nodes[i].host = absl::StrCat("h", i);
    facts.nodes[i].gpus = gpus;
  }
  return facts;
}

Plan PlanOf(const Job& job, const PlanFacts& facts = TwoNodes()) {
  const auto plan = MakePlan(job, facts);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *plan;
}

TEST(PlanMpiTest, RanksGoNodeByNodeAndMpirunFollows) {
  const Plan plan = PlanOf(JobOf(kJob));
  std::vector<std::string> seen;
  for (const PlannedTask& task : plan.tasks) {
    EXPECT_EQ(task.place.port, 0);
    seen.push_back(absl::StrCat(task.place.name.Name(), "@", task.place.host, task.is_rank ? " rank" : ""));
  }
  EXPECT_EQ(absl::StrJoin(seen, ", "),
            "worker/0@h0 rank, worker/1@h0 rank, worker/2@h1 rank, worker/3@h1 rank, mpirun/0@h0, orted/1@h1");
  EXPECT_EQ(ChiefTask(plan), 0u);
  EXPECT_EQ(PortsNeeded(JobOf(kJob), 2), (std::vector<int>{0, 0}));
}

TEST(PlanMpiTest, ARankIsStartedAsAnyTaskOfItsJob) {
  const PlannedTask rank = PlanOf(JobOf(kJob)).tasks[3];
  EXPECT_EQ(absl::StrJoin(rank.argv, " "), "{python} {task}/train.py --rate 0.1");
  EXPECT_TRUE(rank.uses_snapshot);
  EXPECT_EQ(rank.tf_config, "");
  const std::pair<const char*, const char*> expected[] = {{"RANK", "3"},
                                                          {"WORLD_SIZE", "4"},
                                                          {"LOCAL_RANK", "1"},
                                                          {"BASIN_RANK", "3"},
                                                          {"MINE", "1"},
                                                          {"TF_CONFIG", "(not set)"},
                                                          {"BASIN_ROLE", "worker"},
                                                          {"BASIN_TASK_INDEX", "3"},
                                                          {"CUDA_VISIBLE_DEVICES", "(not set)"},
                                                          {"OPENBLAS_NUM_THREADS", "1"}};
  for (const auto& [name, value] : expected) EXPECT_EQ(Variable(rank, name), value) << name;
}

TEST(PlanMpiTest, ARankThatHasItsNodeAloneTakesAllItsCores) {
  Job job = JobOf(kJob);
  job.process_count_per_node = 1;
  EXPECT_EQ(Variable(PlanOf(job).tasks[0], "OPENBLAS_NUM_THREADS"), "(not set)");
}

TEST(PlanMpiTest, MpirunHasTheJobsSettingsAndNoneOfARanksOwn) {
  const Plan plan = PlanOf(JobOf(kJob));
  for (const size_t i : {4, 5}) {
    EXPECT_EQ(Variable(plan.tasks[i], "OMPI_MCA_mpi_yield_when_idle"), "0");  // the job's own word is the last
    EXPECT_EQ(Variable(plan.tasks[i], "OMPI_MCA_btl_tcp_port_min_v4"), "20000");
    EXPECT_EQ(Variable(plan.tasks[i], "RANK"), "(not set)");
    EXPECT_EQ(Variable(plan.tasks[i], "BASIN_TOKEN_FILE"), "(not set)");
    EXPECT_FALSE(plan.tasks[i].uses_snapshot);
  }
  EXPECT_EQ(plan.tasks[4].argv[0], "mpirun");
}

TEST(PlanMpiTest, AllGpusOfANodeAreSeenByEachRank) {
  Job job = JobOf(absl::StrCat(kJob, "use_gpu: true\n"));
  const Plan plan = PlanOf(job, TwoNodes({"GPU-a"}));  // fewer than ranks
  for (const PlannedTask& task : plan.tasks) {
    EXPECT_TRUE(task.devices.empty());
    EXPECT_EQ(Variable(task, "CUDA_VISIBLE_DEVICES"), "(not set)");
  }
  const auto none = MakePlan(job, TwoNodes());
  ASSERT_FALSE(none.ok());
  EXPECT_TRUE(absl::StrContains(none.status().message(), "use_gpu: node h0 has no GPU")) << none.status();
}

// The engine shows a container every GPU of the machine, and none of the node's variables: what Slurm granted, which is
// what the node's facts have, must be said again.
TEST(PlanMpiTest, RanksInContainersAreToldTheGpusOfTheGrant) {
  const Job job = JobOf(absl::StrCat(kJob, "use_gpu: true\ncustom_docker_image: a/b\n"));
  const GrantedGpus granted = GpusGrantedBySlurm({"GPU-a", "GPU-b", "GPU-c", "GPU-d"},
                                                 {{"SLURM_JOB_ID", "7"}, {"CUDA_VISIBLE_DEVICES", "3,1"}});
  const Plan plan = PlanOf(job, TwoNodes(granted.gpus));
  for (const PlannedTask& task : plan.tasks) {
    EXPECT_EQ(Variable(task, "CUDA_VISIBLE_DEVICES"), task.is_rank ? "GPU-d,GPU-b" : "(not set)")
        << task.place.name.Name();
    EXPECT_EQ(task.devices, task.is_rank ? granted.gpus : std::vector<std::string>());
  }
  const auto parsed = ParsePlan(PlanToJson(plan));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, plan);
  // A job that asks for no GPU gets none, whatever was granted.
  const Job without = JobOf(absl::StrCat(kJob, "custom_docker_image: a/b\n"));
  EXPECT_EQ(Variable(PlanOf(without, TwoNodes(granted.gpus)).tasks[0], "CUDA_VISIBLE_DEVICES"), "(not set)");
}

TEST(PlanMpiTest, PlanIsReadBackAndShown) {
  const Plan plan = PlanOf(JobOf(kJob));
  const auto parsed = ParsePlan(PlanToJson(plan));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, plan);
  const std::string text = PlanToText(plan);
  EXPECT_TRUE(absl::StrContains(text, "worker 3  h1 (rank 3)\n  {python} {task}/train.py --rate 0.1\n")) << text;
  EXPECT_TRUE(absl::StrContains(text, "mpirun  h0\n  mpirun --allow-run-as-root")) << text;
  EXPECT_TRUE(absl::StrContains(text, "orted 1  h1\n")) << text;
}

TEST(PlanMpiTest, TheJobIsReadBackFromItsJson) {
  const Job job = JobOf(kJob);
  const auto parsed = ParseJob(JobToJson(job), "job.json");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, job);
  EXPECT_EQ(job.parameter_server_count, 0);
  EXPECT_EQ(
      JobOf("entry_script: a.py\ndistributed_training: {MpiConfiguration: {process_count_per_node: 3}}\n").backend,
      Backend::kMpi);
}

}  // namespace
}  // namespace basin
