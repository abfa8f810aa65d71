// Slurm without Slurm: what is read, written and understood. The real one: conformance_slurm.py,
// jobs_under_slurm_test.py.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "estimator/agent/granted_gpus.h"
#include "estimator/job/job.h"
#include "estimator/launch/slurm_command.h"
#include "estimator/launch/slurm_doctor.h"
#include "estimator/launch/slurm_job.h"
#include "estimator/launch/slurm_script.h"
#include "estimator/launch/targets_file.h"
#include "tests/estimator/ps_job.h"

namespace basin {
namespace {

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
      {", slurm: {extra: ['--job-name=mine']}", "--job-name=mine is set by Basin itself; remove it: the job is named"},
      {", slurm: {extra: ['-Jmine']}", "-Jmine is set by Basin itself"},
      {", slurm: {extra: ['--mem 64G']}",
       "\"--mem 64G\" would be the name of an option with a blank in it; write --mem=64G"},
      {", slurm: {extra: ['--comment a=b']}", "write --comment=a=b"},
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

TEST(SlurmScriptTest, SaysAllThatTheJobNeeds) {
  const Job job = GoodJob(
      ", use_gpu: true, roles: {ps: {memory: 3GiB}, worker: {cpus: 4, memory: 2GiB}}, max_run_duration_seconds: 3600, "
      "cancel_grace_seconds: 20, slurm: {partition: gpu, account: ml, qos: high, reservation: r1, constraint: "
      "'ib&v100', extra: ['--exclusive', '--comment=a \"b\"']}");
  EXPECT_EQ(*SlurmScript(job, job.slurm, "/opt/basin/bin/basin", "/home/ann/runs/ctr/it's 100%"),
            R"(#!/bin/bash
#SBATCH --job-name=basin-ctr
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=9
#SBATCH --mem=7168M
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

TEST(SlurmScriptTest, OtherResourcesAreAskedForBesideTheGpus) {
  const auto gres = [](const std::string& extra) {
    SlurmOptions options;
    options.extra = {extra};
    std::vector<std::string> lines = absl::StrSplit(*SlurmScript(GoodJob(", use_gpu: true"), options, "b", "/r"), '\n');
    std::erase_if(lines, [](const std::string& line) { return !absl::StartsWith(line, "#SBATCH --g"); });
    return absl::StrJoin(lines, "|");
  };
  EXPECT_EQ(gres("--exclusive"), "#SBATCH --gres=gpu:2");
  EXPECT_EQ(gres("--gres=lustre:1"), "#SBATCH --gres=gpu:2,lustre:1");
  EXPECT_EQ(gres("--gres=gpuless:1"), "#SBATCH --gres=gpu:2,gpuless:1");
  for (const char* own : {"--gres=gpu", "--gres=gpu:a100:4", "--gres=lustre:1,gpu:4", "--gpus-per-node=4"}) {
    EXPECT_EQ(gres(own), absl::StrCat("#SBATCH ", own));
  }
}

TEST(SlurmScriptTest, MemoryOfRolesAndOfExtraConflict) {
  const Job job = GoodJob(", roles: {ps: {memory: 1GiB}, worker: {memory: 1GiB}}");
  for (const char* extra : {"--mem=64G", "--mem-per-cpu=2G", "--mem-per-g=1G"}) {
    SlurmOptions options;
    options.extra = {extra};
    EXPECT_TRUE(
        absl::StrContains(SlurmScript(job, options, "b", "/r").status().message(),
                          absl::StrCat("slurm.extra: ", extra, " conflicts with roles: {worker: {memory: ...}}")))
        << extra;
    EXPECT_TRUE(SlurmScript(GoodJob(""), options, "b", "/r").ok());
  }
  SlurmOptions options;
  options.extra = {"--mem-bind=local"};
  EXPECT_TRUE(SlurmScript(job, options, "b", "/r").ok());
}

TEST(SlurmScriptTest, MemoryOfSomeRolesOfANodeAloneIsRefused) {
  const auto refusal = [](const std::string& roles) {
    return std::string(SlurmScript(GoodJob(", evaluator_count: 1, roles: " + roles), {}, "b", "/r").status().message());
  };
  EXPECT_TRUE(absl::StartsWith(refusal("{worker: {memory: 2GiB}}"),
                               "roles: worker.memory: ps and evaluator tasks share a node with it and say nothing of "
                               "memory"))
      << refusal("{worker: {memory: 2GiB}}");
  EXPECT_TRUE(absl::StartsWith(refusal("{worker: {memory: 2GiB}, ps: {memory: 1GiB}}"), "roles: ps.memory: evaluator"));
  EXPECT_EQ(refusal("{worker: {memory: 2GiB}, ps: {memory: 1GiB}, evaluator: {memory: 1GiB}}"), "");
  EXPECT_EQ(refusal("{worker: {cpus: 2}}"), "");
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
  EXPECT_EQ(
      SbatchComplaint("what?"),
      "sbatch refused the job: what?; see what is asked for by basin submit --dry-run, and correct the job's group "
      "slurm, or the target's");
  EXPECT_TRUE(absl::StrContains(SbatchComplaint("sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error\n"
                                                "sbatch: fatal: Could not establish a configuration source\n"),
                                "; this machine is no client of a Slurm cluster: submit from a login node"));
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
  for (const ToolResult& nothing :
       {ToolResult{0, " \n", ""}, ToolResult{1, "slurm", ""}, ToolResult{127, "", "no sinfo"}}) {
    seen.version = nothing;
    EXPECT_EQ(check(seen, "slurm").state, DoctorState::kProblem) << nothing.printed;
    EXPECT_EQ(check(seen, "controller").found, "not checked");
  }
  EXPECT_EQ(check(seen, "slurm").found, "sinfo --version ended with 127: no sinfo");
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
