// Which nodes the roles of a job have, and what they need there.
#include "estimator/job/role_needs.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/job/job.h"
#include "estimator/job/job_checks.h"
#include "estimator/job/plan.h"
#include "tests/estimator/ps_job.h"

namespace basin {
namespace {

TEST(RolesTest, PlacesFollowTheSpans) {
  const auto job = ParseJob(
      "{entry_script: t.py, distributed_backend: ps, node_count: 4, parameter_server_count: 2, worker_count: 4, "
      "chief_count: 1, roles: {ps: {nodes: 1, cpus: 2}, worker: {nodes: 3, cpus: 2}, chief: {cpus: 2}}}",
      "j.yaml");
  // ps: 2 tasks of 2 CPUs on node 0; workers 2+1+1 tasks and the chief on the first of theirs.
  EXPECT_FALSE(job.ok());
  EXPECT_TRUE(absl::StrContains(job.status().message(), "heterogeneous Slurm job")) << job.status();
  const auto even = ParseJob(
      "{entry_script: t.py, distributed_backend: ps, node_count: 3, parameter_server_count: 1, worker_count: 2, "
      "roles: {ps: {nodes: 1, cpus: 4}, worker: {nodes: 2, cpus: 4}}}",
      "j.yaml");
  ASSERT_TRUE(even.ok()) << even.status();
  const auto tasks = LayOut(CountsOf(*even), {{"n0", {1, 2}}, {"n1", {1, 2}}, {"n2", {1, 2}}});
  ASSERT_TRUE(tasks.ok()) << tasks.status();
  EXPECT_EQ(absl::StrJoin(*tasks, " ",
                          [](std::string* out, const PlacedTask& task) {
                            absl::StrAppend(out, task.name.Name(), "@", task.node);
                          }),
            "ps/0@0 worker/0@1 worker/1@2");
  EXPECT_EQ(PortsNeeded(*even, 3), (std::vector<int>{1, 1, 1}));
  EXPECT_EQ(NeedsOfNodes(*even).cpus, 4);
  const auto again = ParseJob(JobToJson(*even), "job.json");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->roles, even->roles);
}

TEST(RolesTest, NeedsAreThoseOfTheFullestNode) {
  // Over 4 nodes: 2 ps, 6 workers: nodes 0 and 1 have a ps and two workers.
  const Job job = GoodJob(", roles: {ps: {cpus: 8, memory: 40GiB}, worker: {cpus: 2, memory: 1024MiB}}");
  const NodeNeeds needs = NeedsOfNodes(job);
  EXPECT_EQ(needs.cpus, 12);
  EXPECT_EQ(needs.memory_bytes, (int64_t{42} << 30));
  EXPECT_EQ(needs.gpus, 0);
  EXPECT_EQ(NeedsOfNodes(GoodJob("")).cpus, 3);  // one a task
  EXPECT_EQ(NeedsOfNodes(GoodJob(", use_gpu: true")).gpus, 2);
  EXPECT_EQ(NeedsOfNodes(GoodJob(", use_gpu: true, workers_per_gpu: 2")).gpus, 1);
  EXPECT_EQ(NeedsOfNodes(GoodJob(", use_gpu: true, roles: {worker: {gpus: 4}}")).gpus, 8);
}

TEST(RolesTest, WhatIsWrongIsNamed) {
  const std::pair<const char*, const char*> rows[] = {
      {", roles: {wrker: {cpus: 1}}", "unknown field \"roles.wrker\"; did you mean \"worker\"?"},
      {", roles: {worker: {cores: 1}}", "unknown field \"roles.worker.cores\""},
      {", roles: {worker: {memory: lots}}", "\"lots\" is no amount of memory; write 40GiB or 512MB"},
      {", roles: {chief: {cpus: 1}}", "roles: chief: the job has no task of that role"},
      {", roles: {ps: {gpus: 1}}, use_gpu: true", "ps.gpus: GPUs go to workers and the chief alone"},
      {", roles: {worker: {gpus: 1}}", "worker.gpus: found 1, but use_gpu is false"},
      {", roles: {worker: {gpus: 2}}, use_gpu: true, workers_per_gpu: 2", "conflicts with workers_per_gpu: 2"},
      {", roles: {ps: {partition: bigmem}, worker: {partition: gpu}}",
       "worker.partition: gpu differs from roles.ps.partition: bigmem; nodes of several partitions would need a "
       "heterogeneous Slurm job"},
      {", roles: {ps: {partition: bigmem}}, slurm: {partition: gpu}", "differs from slurm.partition: gpu"},
      {", roles: {ps: {nodes: 3}}", "ps.nodes: 3 nodes for 2 tasks; set nodes: 2"},
      {", roles: {ps: {nodes: 2}, worker: {nodes: 3}}", "the roles take 5 nodes, and node_count is 4"},
      {", roles: {ps: {nodes: 1}, worker: {nodes: 1}}", "the roles take 2 nodes, and node_count is 4"},
      {", roles: {ps: {nodes: 2}, worker: {nodes: 2, cpus: 12}}",
       "node 0 would need 1 CPU, and node 2 36 CPUs; nodes that differ would need a heterogeneous Slurm job"},
  };
  for (const auto& [more, expected] : rows) {
    const auto job = JobWith(more);
    EXPECT_FALSE(job.ok()) << more;
    EXPECT_TRUE(absl::StrContains(job.status().message(), expected)) << more << ": " << job.status();
  }
}

TEST(RolesTest, NodesWithoutATaskAreNamed) {
  const auto idle = [](const std::string& counts) {
    const auto job = ParseJob(
        absl::StrCat("{entry_script: t.py, distributed_backend: ps, node_count: 4, parameter_server_count: 1, ", counts,
                     "}"),
        "j.yaml");
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? NodesWithoutTask(*job, {"h0", "h1", "h2", "h3"}) : "";
  };
  EXPECT_TRUE(absl::StartsWith(idle("worker_count: 2"), "nodes h2, h3 have no task: set node_count: 2"));
  EXPECT_TRUE(absl::StartsWith(idle("worker_count: 3"), "node h3 has no task: set node_count: 3"));
  EXPECT_EQ(idle("worker_count: 4"), "");
  EXPECT_EQ(idle("worker_count: 3, roles: {ps: {nodes: 1}, worker: {nodes: 3}}"), "");
}

TEST(RolesTest, NodesOfTheirOwnNeedThePsBackend) {
  const auto mpi = ParseJob(
      "{entry_script: t.py, distributed_backend: mpi, node_count: 2, process_count_per_node: 3, roles: {worker: "
      "{nodes: "
      "2}}}",
      "j.yaml");
  EXPECT_TRUE(absl::StrContains(mpi.status().message(), "worker.nodes: only the ps backend has roles with nodes"))
      << mpi.status();
  const auto good = ParseJob(
      "{entry_script: t.py, distributed_backend: mpi, node_count: 2, process_count_per_node: 3, roles: {worker: {cpus: "
      "2}}}",
      "j.yaml");
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(NeedsOfNodes(*good).cpus, 6);
}

TEST(RolesTest, ResourcesThatOnlySlurmGrantsAreRefusedElsewhere) {
  Job job = GoodJob(", roles: {worker: {cpus: 4}}");
  job.compute_target = "lab";
  EXPECT_TRUE(CheckRolesOnTarget(job, true).ok());
  EXPECT_TRUE(absl::StrContains(
      CheckRolesOnTarget(job, false).message(),
      "roles: worker.cpus: only Slurm and Kubernetes grant it, and the target lab is of neither kind"));
  EXPECT_TRUE(CheckRolesOnTarget(GoodJob(", roles: {worker: {gpus: 1}}, use_gpu: true"), false).ok());
}

TEST(RolesTest, WorkersGetTheirGpusTogether) {
  const auto job = ParseJob(
      "{entry_script: t.py, distributed_backend: ps, parameter_server_count: 0, worker_count: 2, use_gpu: true, "
      "roles: {worker: {gpus: 2}}}",
      "j.yaml");
  ASSERT_TRUE(job.ok()) << job.status();
  const auto plan = MakePlan(*job, {"r", {{"n0", {1, 2}, {"GPU-a", "GPU-b", "GPU-c", "GPU-d"}, ""}}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(absl::StrJoin(plan->tasks[0].devices, ","), "GPU-a,GPU-b");
  EXPECT_EQ(absl::StrJoin(plan->tasks[1].devices, ","), "GPU-c,GPU-d");
  EXPECT_TRUE(
      absl::StrContains(MakePlan(*job, {"r", {{"n0", {1, 2}, {"GPU-a", "GPU-b", "GPU-c"}, ""}}}).status().message(),
                        "roles.worker.gpus: node n0 has 3 GPUs for 2 workers of 2 each"));
}

}  // namespace
}  // namespace basin
