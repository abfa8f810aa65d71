// Slurm without Slurm: what is read, written and understood. The real one: conformance_slurm.py,
// jobs_under_slurm_test.py.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/agent/granted_gpus.h"
#include "estimator/job/job.h"
#include "estimator/job/job_checks.h"
#include "estimator/job/plan.h"
#include "estimator/job/role_needs.h"
#include "estimator/launch/slurm_command.h"
#include "estimator/launch/slurm_doctor.h"
#include "estimator/launch/slurm_job.h"
#include "estimator/launch/slurm_script.h"
#include "estimator/launch/targets_file.h"

namespace basin {
namespace {

constexpr char kPsJob[] =
    "{experiment: ctr, entry_script: train.py, distributed_backend: ps, node_count: 4, parameter_server_count: 2, "
    "worker_count: 6";

absl::StatusOr<Job> JobWith(const std::string& more) { return ParseJob(absl::StrCat(kPsJob, more, "}"), "j.yaml"); }

Job GoodJob(const std::string& more) {
  absl::StatusOr<Job> job = JobWith(more);
  EXPECT_TRUE(job.ok()) << job.status();
  return job.value_or(Job());
}

TEST(SlurmOptionsTest, GroupIsReadAndWinsOverTheTargetsFieldByField) {
  const Job job = GoodJob(
      ", slurm: {partition: gpu, qos: high, time: '2:00:00', requeue: true, extra: ['--exclude=n7', '--licenses=a "
      "b']}");
  EXPECT_EQ(job.slurm.partition, "gpu");
  EXPECT_EQ(job.slurm.time, "2:00:00");
  SlurmOptions target;
  target.partition = "cpu";
  target.account = "ml";
  target.extra = {"--exclusive"};
  const SlurmOptions merged = MergedSlurmOptions(target, job.slurm);
  EXPECT_EQ(merged.partition, "gpu");
  EXPECT_EQ(merged.account, "ml");
  EXPECT_EQ(merged.qos, "high");
  EXPECT_TRUE(merged.requeue);
  EXPECT_EQ(absl::StrJoin(merged.extra, "|"), "--exclusive|--exclude=n7|--licenses=a b");
  const auto again = ParseJob(JobToJson(job), "job.json");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->slurm, job.slurm);
}

TEST(SlurmOptionsTest, WhatIsWrongIsNamedWithItsPlace) {
  const std::pair<const char*, const char*> rows[] = {
      {", slurm: {partion: a}", "unknown field \"slurm.partion\"; did you mean \"partition\"?"},
      {", slurm: {partition: 'a b'}", "slurm.partition: \"a b\" is no value that sbatch takes in one word"},
      {", slurm: {account: '--wrap=x'}", "slurm.account: \"--wrap=x\" is no value"},
      {", slurm: {time: tomorrow}", "slurm.time: \"tomorrow\" is no time as Slurm takes it"},
      {", slurm: {extra: [exclusive]}", "\"exclusive\" is no option of sbatch"},
      {", slurm: {extra: ['--nodes=3']}", "slurm.extra: --nodes=3 is set by Basin itself; remove it: set node_count"},
      {", slurm: {extra: ['-N3']}", "-N3 is set by Basin itself"},
      {", slurm: {extra: ['--array=0-9']}", "a run is one job"},
      {", slurm: {extra: ['--clusters=other']}", "--clusters=other is set by Basin itself"},
      {", slurm: {extra: ['--clus=other']}", "--clus=other is set by Basin itself"},
      {", slurm: {extra: ['-Mother']}", "-Mother is set by Basin itself"},
      {", roles: {ps: {partition: \"a\\nb\"}}", "is no value that sbatch takes in one word"},
      {", slurm: {extra: ['--het-group=1']}", "heterogeneous jobs are not supported"},
      {", slurm: {extra: [\"--comment=a\\nb\"]}", "is no option of sbatch"},
  };
  for (const auto& [more, expected] : rows) {
    const auto job = JobWith(more);
    EXPECT_FALSE(job.ok()) << more;
    EXPECT_TRUE(absl::StrContains(job.status().message(), expected)) << more << ": " << job.status();
  }
}

TEST(SlurmOptionsTest, TimesAreThoseOfSlurm) {
  const std::pair<const char*, int64_t> rows[] = {
      {"30", 1800},        {"30:15", 1815}, {"2:00:00", 7200}, {"1-12", 129600}, {"1-12:30", 131400}, {"0-0:0:5", 5},
      {"UNLIMITED", 0},    {"", -1},        {"1h", -1},        {"1:2:3:4", -1},  {"1-1:1:1:1", -1},   {"-5", -1},
      {"99999999999", -1}, {" 5", -1}};
  for (const auto& [text, seconds] : rows) EXPECT_EQ(SlurmTimeSeconds(text), seconds) << text;
}

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

TEST(SlurmScriptTest, SaysAllThatTheJobNeeds) {
  const Job job = GoodJob(
      ", use_gpu: true, roles: {worker: {cpus: 4, memory: 2GiB}}, max_run_duration_seconds: 3600, "
      "cancel_grace_seconds: 20, slurm: {partition: gpu, account: ml, qos: high, reservation: r1, constraint: "
      "'ib&v100', extra: ['--exclusive', '--comment=a \"b\"']}");
  EXPECT_EQ(*SlurmScript(job, job.slurm, "/opt/basin/bin/basin", "/home/ann/runs/ctr/it's 100%"),
            R"(#!/bin/bash
#SBATCH --job-name=basin-ctr
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=9
#SBATCH --mem=4096M
#SBATCH --gres=gpu:2
#SBATCH --partition=gpu
#SBATCH --account=ml
#SBATCH --qos=high
#SBATCH --reservation=r1
#SBATCH --constraint=ib&v100
#SBATCH --time=0-01:13:00
#SBATCH --signal=B:USR1@80
#SBATCH --no-requeue
#SBATCH --output="/home/ann/runs/ctr/it's 100%%/supervisor.log"
#SBATCH --open-mode=append
#SBATCH --exclusive
#SBATCH "--comment=a \"b\""
exec '/opt/basin/bin/basin' supervise '/home/ann/runs/ctr/it'\''s 100%'
)");
}

TEST(SlurmScriptTest, LimitsOfTimeAreSlurmsOrTheJobs) {
  SlurmOptions options;
  EXPECT_EQ(SlurmTimeLimit(GoodJob(""), options), 0);
  EXPECT_EQ(SlurmSignalLead(GoodJob(""), options), 65);
  options.time = "1";
  EXPECT_EQ(SlurmTimeLimit(GoodJob(", max_run_duration_seconds: 999"), options), 60);
  EXPECT_EQ(SlurmSignalLead(GoodJob(""), options), 15);  // not longer than a part of it
  options.requeue = true;
  const std::string script =
      *SlurmScript(GoodJob(", use_gpu: true, roles: {ps: {partition: big}}"), options, "b", "/r");
  EXPECT_TRUE(absl::StrContains(script, "#SBATCH --requeue\n"));
  EXPECT_TRUE(absl::StrContains(script, "#SBATCH --time=1\n"));
  EXPECT_TRUE(absl::StrContains(script, "#SBATCH --partition=big\n"));
  options.extra = {"--gres=gpu:a100:2"};
  EXPECT_FALSE(absl::StrContains(*SlurmScript(GoodJob(", use_gpu: true"), options, "b", "/r"), "--gres=gpu:2"));
}

TEST(SlurmScriptTest, ALineEndWouldBeALineOfItsOwn) {
  const absl::Status status = SlurmScript(GoodJob(""), {}, "b", "/runs\n#SBATCH --uid=0").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "the run's folder is \"/runs\\n#SBATCH --uid=0\"")) << status;
}

TEST(SlurmCommandTest, EachNodeHasAStepOfItsOwn) {
  Target target;
  target.kind = TargetKind::kSlurm;
  target.slurm.job_id = "12";
  target.slurm.cpus = {4, 8};
  EXPECT_EQ(absl::StrJoin(SrunCommand(target, {"run", 1, {"n7", "n7", "", 0}}, {"basin", "agent"}), " "),
            "srun --nodes=1 --ntasks=1 --nodelist=n7 --overlap --mem=0 --unbuffered --mpi=none --kill-on-bad-exit=0 "
            "--export=ALL --job-name=basin-node-1 --jobid=12 --cpus-per-task=8 basin agent");
}

TEST(SlurmCommandTest, ComplaintsSayWhatToDo) {
  EXPECT_EQ(SbatchComplaint("sbatch: error: invalid partition specified: nope\n"
                            "sbatch: error: Batch job submission failed: Invalid partition name specified\n"),
            "sbatch refused the job: sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified; sinfo lists the partitions; "
            "correct slurm.partition");
  EXPECT_TRUE(absl::StrContains(SbatchComplaint("what?"), "basin submit --dry-run prints the script"));
  const AgentRequest request = {"run", 0, {"n0", "n0", "", 0}};
  EXPECT_TRUE(absl::StrContains(
      SrunComplaint(request, "/opt/basin",
                    {2, "slurmstepd: error: execve(): /opt/basin: No such file or directory\n", "", false}),
      "/opt/basin must be there on every node"));
}

TEST(SlurmJobTest, IsReadFromWhatScontrolPrints) {
  const auto job = ParseSlurmJob(
      "JobId=5 JobName=a b UserId=root(0) Priority=1 JobState=PENDING Reason=Resources Dependency=(null) Requeue=1 "
      "Restarts=2 BatchFlag=1 ExitCode=0:9 RunTime=00:00:00 StartTime=2026-11-29T06:27:19 NodeList=(null) "
      "Comment=JobState=RUNNING \n");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(job->is_waiting());
  EXPECT_FALSE(job->is_over());
  EXPECT_EQ(job->restarts, 2);
  EXPECT_EQ(job->nodes, "");
  EXPECT_EQ(WaitingText(*job),
            "Slurm's job 5 waits: Resources, the nodes are busy (expected to start 2026-11-29T06:27:19)");
  EXPECT_FALSE(ParseSlurmJob("").ok());
  EXPECT_EQ(*ParseCpusPerNode("2(x3),4"), (std::vector<int>{2, 2, 2, 4}));
  for (const char* wrong : {"", "x", "2(x)", "2(x3", "0", "2(x-1)", "2,"})
    EXPECT_FALSE(ParseCpusPerNode(wrong).ok()) << wrong;
  EXPECT_EQ(ParseHostNames("h0\nh1\n"), (std::vector<std::string>{"h0", "h1"}));
}

SlurmJob State(const std::string& state, const std::string& reason = "", int restarts = 0) {
  SlurmJob job;
  job.id = "12";
  job.state = state;
  job.reason = reason;
  job.exit_code = "0:9";
  job.restarts = restarts;
  return job;
}

TEST(SlurmJobTest, VerdictSaysWhatSlurmDoesToALivingJob) {
  EXPECT_EQ(VerdictOf(State("RUNNING"), 0).kind, BatchVerdict::kGoesOn);
  EXPECT_EQ(VerdictOf(State("COMPLETING"), 0).kind, BatchVerdict::kCanceled);
  EXPECT_EQ(VerdictOf(State("CANCELLED"), 0).kind, BatchVerdict::kCanceled);
  EXPECT_EQ(VerdictOf(State("COMPLETING", "TimeLimit"), 0).kind, BatchVerdict::kFailed);
  EXPECT_EQ(VerdictOf(State("NODE_FAIL"), 0).reason, "Slurm's job 12: NODE_FAIL");
  EXPECT_EQ(VerdictOf(State("COMPLETING", "", 1), 0).kind, BatchVerdict::kRequeued);
  EXPECT_EQ(VerdictOf(State("PENDING", "BeginTime", 1), 0).kind, BatchVerdict::kRequeued);
  EXPECT_EQ(VerdictOf(State("RUNNING", "", 1), 1).kind, BatchVerdict::kGoesOn);
}

TEST(SlurmJobTest, PreemptionIsToldByItsTimeAlone) {
  const auto verdict = [](const std::string& start, const std::string& preempted) {
    const auto job = ParseSlurmJob(absl::StrCat("JobId=12 JobState=COMPLETING Reason=None Restarts=0 StartTime=", start,
                                                " PreemptEligibleTime=", start, " PreemptTime=", preempted));
    EXPECT_TRUE(job.ok()) << job.status();
    return VerdictOf(*job, 0);
  };
  EXPECT_EQ(verdict("2026-11-29T11:00:27", "2026-11-29T11:00:31").kind, BatchVerdict::kFailed);
  EXPECT_EQ(verdict("2026-11-29T11:00:27", "2026-11-29T11:00:31").reason, "Slurm's job 12: PREEMPTED");
  EXPECT_EQ(verdict("2026-11-29T11:00:27", "None").kind, BatchVerdict::kCanceled);
  EXPECT_EQ(verdict("2026-11-29T11:00:27", "2026-11-29T10:59:00").kind, BatchVerdict::kCanceled) << "of a life before";
}

TEST(SlurmJobTest, EndIsSlurmsWhereNobodyElseSaidIt) {
  EXPECT_EQ(EndOf("12", State("CANCELLED"), true, "/r").phase, RunPhase::kCanceled);
  const std::pair<SlurmEnd, const char*> rows[] = {
      {EndOf("12", State("NODE_FAIL"), true, "/r"), "Slurm's job 12: NODE_FAIL"},
      {EndOf("12", State("TIMEOUT", "TimeLimit"), true, "/r"), "reason TimeLimit; set a longer slurm.time"},
      {EndOf("12", State("FAILED"), true, "/r"), "its supervisor ended without a word"},
      {EndOf("12", State("FAILED"), false, "/r"), "the run's folder /r and Basin's programs must lie on a file system"},
      {EndOf("12", std::nullopt, true, "/r"), "Slurm does not know its job 12 any more"},
  };
  for (const auto& [end, expected] : rows) {
    EXPECT_EQ(end.phase, RunPhase::kFailed);
    EXPECT_TRUE(absl::StrContains(end.reason, expected)) << end.reason;
  }
}

TEST(GrantedGpusTest, WhatSlurmGrantedIsNeverWidened) {
  const std::vector<std::string> all = {"GPU-a0", "GPU-b1", "GPU-c2", "GPU-d3"};
  const auto granted = [&all](std::vector<std::pair<std::string, std::string>> environment) {
    return absl::StrJoin(GpusGrantedBySlurm(all, environment).gpus, " ");
  };
  EXPECT_EQ(granted({{"CUDA_VISIBLE_DEVICES", "1"}}), "GPU-a0 GPU-b1 GPU-c2 GPU-d3");  // no job of Slurm's
  EXPECT_EQ(granted({{"CUDA_VISIBLE_DEVICES", "2,0"}, {"SLURM_JOB_ID", "1"}}), "GPU-c2 GPU-a0");
  EXPECT_EQ(granted({{"CUDA_VISIBLE_DEVICES", "GPU-d,GPU-b1"}, {"SLURM_JOB_ID", "1"}}), "GPU-d3 GPU-b1");
  EXPECT_EQ(granted({{"CUDA_VISIBLE_DEVICES", "1,7,2"}, {"SLURM_JOB_ID", "1"}}), "GPU-b1");
  EXPECT_EQ(granted({{"CUDA_VISIBLE_DEVICES", ""}, {"SLURM_JOB_ID", "1"}}), "");
  EXPECT_EQ(granted({{"SLURM_JOB_GPUS", "0,3"}, {"SLURM_JOB_ID", "1"}}), "GPU-a0 GPU-d3");
  EXPECT_EQ(granted({{"SLURM_JOB_GPUS", "4,5,6,7"}, {"SLURM_JOB_ID", "1"}}), "GPU-a0 GPU-b1 GPU-c2 GPU-d3");
  EXPECT_EQ(granted({{"SLURM_JOB_ID", "1"}}), "");
  EXPECT_TRUE(absl::StrContains(GpusGrantedBySlurm(all, {{"SLURM_JOB_ID", "1"}}).problem,
                                "Slurm has granted job 1 none of its GPUs"));
}

TEST(SlurmTargetTest, IsReadAndComesBackFromTheJournal) {
  const auto targets = ParseTargets(
      "big: {kind: slurm, slurm: {partition: gpu, extra: ['--exclusive']}, folder: /scratch/basin, programs: /opt/b}",
      "/here/targets.yaml");
  ASSERT_TRUE(targets.ok()) << targets.status();
  Target target = targets->front();
  EXPECT_EQ(target.kind, TargetKind::kSlurm);
  EXPECT_EQ(target.slurm.options.partition, "gpu");
  target.slurm.job_id = "12";
  target.slurm.cpus = {4, 4};
  const auto again = ParseTargetJson(TargetToJson(target));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->kind, TargetKind::kSlurm);
  EXPECT_EQ(again->slurm.options, target.slurm.options);
  EXPECT_EQ(again->slurm.job_id, "12");
  EXPECT_EQ(again->slurm.cpus, target.slurm.cpus);
  EXPECT_EQ(again->programs, "/opt/b");
  const std::pair<const char*, const char*> wrong[] = {
      {"a: {kind: slurm, nodes: [h0]}", "a.nodes: is not of kind: slurm; remove it: Slurm chooses the machines"},
      {"a: {kind: slurm, bundle: x}", "name their folder on a shared file system by programs"},
      {"a: {kind: ssh, nodes: [h0], slurm: {qos: x}}", "a.slurm: is of targets of kind: slurm"},
      {"a: {kind: slurm, slurm: {part: x}}", "unknown field \"a.slurm.part\""}};
  for (const auto& [text, expected] : wrong) {
    EXPECT_TRUE(absl::StrContains(ParseTargets(text, "t.yaml").status().message(), expected))
        << ParseTargets(text, "t.yaml").status();
  }
}

TEST(SlurmDoctorTest, SaysWhatIsWrong) {
  Target target;
  target.name = "big";
  target.kind = TargetKind::kSlurm;
  const auto check = [&target](const SlurmSeen& seen, const std::string& name) {
    for (const DoctorFinding& finding : DiagnoseSlurm(target, Job(), seen)) {
      if (finding.check == name) return finding;
    }
    return DoctorFinding{"", name, DoctorState::kOk, "not checked", ""};
  };
  SlurmSeen seen;
  seen.version = absl::NotFoundError("cannot start sinfo: No such file or directory");
  EXPECT_EQ(check(seen, "slurm").state, DoctorState::kProblem);
  EXPECT_EQ(check(seen, "submit").found, "not checked");
  seen.version = ToolResult{0, "slurm-wlm 22.05.8\n", ""};
  seen.ping = ToolResult{1, "Slurmctld(primary) at n0 is DOWN\n", ""};
  EXPECT_EQ(check(seen, "controller").state, DoctorState::kProblem);
  seen.ping = ToolResult{0, "Slurmctld(primary) at n0 is UP\n", ""};
  seen.partitions = ToolResult{0, "main* up infinite 2 idle\nmain* up infinite 1 down*\nold down 1:00 3 idle\n", ""};
  seen.test = ToolResult{0, "", "sbatch: Job 6 to start at 2026-11-29T06:27:19 using 2 processors on nodes h[0-1]\n"};
  EXPECT_EQ(check(seen, "partition").found, "main (the default): up, time limit infinite, nodes: 2 idle, 1 down*");
  EXPECT_EQ(check(seen, "submit").state, DoctorState::kOk);
  target.slurm.options.partition = "old";
  EXPECT_EQ(check(seen, "partition").state, DoctorState::kProblem);
  target.slurm.options.partition = "nope";
  EXPECT_EQ(check(seen, "partition").fix, "set slurm.partition; sinfo lists: main, old");
  seen.test = ToolResult{1, "", "allocation failure: Requested node configuration is not available\n"};
  EXPECT_TRUE(absl::StrContains(check(seen, "submit").found, "lower roles' cpus"));
  seen.runs_folder = "/home/ann/runs";
  seen.runs_file_system = "nfs";
  EXPECT_EQ(check(seen, "runs").state, DoctorState::kOk);
  seen.runs_file_system = "ext4";
  EXPECT_EQ(check(seen, "runs").state, DoctorState::kWarning);
}

}  // namespace
}  // namespace basin
