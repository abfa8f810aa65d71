// What a supervisor sees of an agent's tasks: real processes, over the relay's pipes.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/estimator/agent_supervisor.h"

namespace basin::testing {
namespace {

using ::testing::Test;

class AgentTasksTest : public Test {
 protected:
  Playground ground_;
};

TEST_F(AgentTasksTest, TheWelcomeTellsWhatTheNodeIs) {
  TestSupervisor supervisor(ground_);
  const agent::Welcome welcome = supervisor.Join(1);
  EXPECT_EQ(welcome.machine(), "x86_64");
  EXPECT_TRUE(absl::StartsWith(welcome.libc(), "glibc 2."));
  EXPECT_GT(welcome.cores(), 0u);
  EXPECT_GT(welcome.memory_bytes(), 100u << 20);
  EXPECT_GT(welcome.open_files_limit(), 0u);
  EXPECT_FALSE(welcome.host_name().empty());
  EXPECT_EQ(welcome.node_folder(), ground_.node_folder());
  EXPECT_FALSE(welcome.rejoined());
  EXPECT_EQ(welcome.gpus_size() == 0, !welcome.gpu_problem().empty());
}

TEST_F(AgentTasksTest, ATaskRunsInItsTreeWithItsEnvironmentAndItsLogIsStreamed) {
  TestSupervisor supervisor(ground_, "run", {"SSH_CONNECTION=1.2.3.4", "TF_CONFIG={}", "KEPT=yes"});
  supervisor.Join(1);
  supervisor.StreamFiles();
  agent::ToAgent task = TestSupervisor::Bash(
      0,
      "echo out; echo err >&2; pwd; echo \"$BASIN_RUN_DIR|$BASIN_METRICS_FILE|$MINE|${SSH_CONNECTION-none}|"
      "${TF_CONFIG-none}|$KEPT\"; echo $PATH; cat $BASIN_TOKEN_FILE; echo '{\"name\": \"loss\"}' >> "
      "$BASIN_METRICS_FILE; "
      "mkdir -p logs/deep; echo mine > logs/deep/script.log; exit 7");
  agent::Variable* variable = task.mutable_start_task()->add_environment();
  variable->set_name("MINE");
  variable->set_value("{task}/x");
  variable = task.mutable_start_task()->add_environment();
  variable->set_name("BASIN_TOKEN_FILE");
  variable->set_value("{token}");
  supervisor.Send(task);
  EXPECT_GT(supervisor.Next(agent::FromAgent::kTaskStarted).task_started().pid(), 0);
  const agent::TaskExited end = supervisor.WaitForEnd(0);
  EXPECT_EQ(end.code(), 7);
  EXPECT_EQ(end.problem(), "");
  const std::string tree = ground_.node_folder() + "/tasks/worker-0";
  const std::string metrics = ground_.node_folder() + "/metrics/worker-0.jsonl";
  ASSERT_TRUE(supervisor.PumpUntil([&] {
    return absl::StrContains(supervisor.Log(0), supervisor.token) &&
           !supervisor.Stream(agent::METRICS, 0, "").empty() &&
           !supervisor.Stream(agent::SCRIPT_LOG, 0, "deep/script.log").empty();
  })) << supervisor.Log(0);
  EXPECT_TRUE(
      absl::StartsWith(supervisor.Log(0), absl::StrCat("out\nerr\n", tree, "\n", tree, "|", metrics, "|", tree,
                                                       "/x|none|none|yes\n", getenv("BASIN_BINARY_DIR"), "/bin:")))
      << supervisor.Log(0);
  EXPECT_EQ(supervisor.Stream(agent::METRICS, 0, ""), "{\"name\": \"loss\"}\n");
  EXPECT_EQ(supervisor.Stream(agent::SCRIPT_LOG, 0, "deep/script.log"), "mine\n");
  EXPECT_TRUE(absl::StrContains(supervisor.Stream(agent::AGENT, 0, "agent-0.txt"), "worker-0 has ended with 7"));
  EXPECT_EQ(supervisor.stream_problem, "");
  struct stat info;
  ASSERT_EQ(stat(ground_.node_folder().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_EQ(stat((ground_.node_folder() + "/token").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(AgentTasksTest, SecretsAreWrittenNowhere) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  agent::ToAgent task = TestSupervisor::Bash(0, "test \"$KEY\" = hunter2-hunter2");
  agent::Variable* variable = task.mutable_start_task()->add_environment();
  variable->set_name("KEY");
  variable->set_value("hunter2-hunter2");
  supervisor.Send(task);
  EXPECT_EQ(supervisor.WaitForEnd(0).code(), 0);
  const std::string command = absl::StrCat("grep -rqs hunter2-hunter2 ", ground_.path());
  EXPECT_NE(system(command.c_str()), 0);
}

TEST_F(AgentTasksTest, SetupLinesRunInTheTasksShell) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  supervisor.StreamFiles();
  agent::ToAgent task = TestSupervisor::Bash(0, "echo \"$ADDED and $0\"");
  task.mutable_start_task()->add_setup("export ADDED='from setup'");
  supervisor.Send(task);
  EXPECT_EQ(supervisor.WaitForEnd(0).code(), 0);
  EXPECT_TRUE(supervisor.PumpUntil([&] { return supervisor.Log(0) == "from setup and bash\n"; })) << supervisor.Log(0);
  task = TestSupervisor::Bash(1, "echo not reached");
  task.mutable_start_task()->add_setup("false");
  task.mutable_start_task()->add_setup("exit 0");
  supervisor.Send(task);
  const agent::TaskExited end = supervisor.WaitForEnd(1);
  EXPECT_EQ(end.code(), 1);
  EXPECT_TRUE(absl::EndsWith(end.problem(), ": setup line 1 ended the task with code 1, before its script: false"))
      << end.problem();
}

TEST_F(AgentTasksTest, AMissingProgramIsNamedWithThePlacesLookedAt) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  agent::ToAgent task = TestSupervisor::Bash(0, "");
  task.mutable_start_task()->mutable_argv()->Clear();
  task.mutable_start_task()->add_argv("no-such-python3.99");
  supervisor.Send(task);
  agent::TaskExited end = supervisor.WaitForEnd(0);
  EXPECT_EQ(end.code(), 127);
  EXPECT_TRUE(absl::StrContains(end.problem(), "no-such-python3.99 is not on this node's PATH (")) << end.problem();
  // A script's interpreter is looked for too.
  const std::string script = ground_.path() + "/train.sh";
  WriteFile(script, "#!/no/such/interpreter\n");
  chmod(script.c_str(), 0755);
  task.mutable_start_task()->set_argv(0, script);
  supervisor.Send(task);
  end = supervisor.WaitForEnd(0);
  EXPECT_EQ(end.code(), 127);
  EXPECT_TRUE(absl::StrContains(end.problem(), "interpreter /no/such/interpreter")) << end.problem();
  EXPECT_FALSE(supervisor.Has(agent::FromAgent::kTaskStarted));
}

TEST_F(AgentTasksTest, ASignalEndsATaskAndAllItHasStarted) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  supervisor.Send(TestSupervisor::Bash(0, "setsid sleep 1001 & sleep 1002"));
  ASSERT_TRUE(ground_.WaitUntilRuns({"sleep 1001", "sleep 1002"}));
  agent::ToAgent message;
  message.mutable_signal_task()->set_task(0);
  supervisor.Send(message);
  EXPECT_EQ(supervisor.WaitForEnd(0).signal(), SIGTERM);
  EXPECT_TRUE(ground_.MarkedWith("sleep 100").empty());
  supervisor.Send(TestSupervisor::Bash(1, "trap '' TERM; sleep 1003 & wait; sleep 1004"));
  ASSERT_TRUE(ground_.WaitUntilRuns({"sleep 1003"}));
  message.mutable_signal_task()->set_task(1);
  message.mutable_signal_task()->set_kill(true);
  supervisor.Send(message);
  EXPECT_EQ(supervisor.WaitForEnd(1).signal(), SIGKILL);
}

TEST_F(AgentTasksTest, ASignalToATaskThatWasNeverStartedIsAnsweredByItsEnd) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  agent::ToAgent message;
  message.mutable_signal_task()->set_task(7);
  supervisor.Send(message);
  EXPECT_EQ(supervisor.Next(agent::FromAgent::kTaskGone).task_gone().task(), 7u);
}

TEST_F(AgentTasksTest, AKilledGuardTakesItsTaskAlong) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  supervisor.Send(TestSupervisor::Bash(0, "setsid sleep 1001 & sleep 1002"));
  supervisor.Send(TestSupervisor::Bash(1, "exec sleep 1003"));
  ASSERT_TRUE(ground_.WaitUntilRuns({"sleep 1001", "sleep 1002", "sleep 1003"}));
  std::vector<pid_t> guards;
  for (const pid_t pid : ground_.MarkedWith("basin guard")) {
    for (const auto& [marked, command] : ground_.Marked()) {
      if (marked == pid && absl::StrContains(command, "sleep 1001")) guards.push_back(pid);
    }
  }
  ASSERT_EQ(guards.size(), 1u);
  kill(guards[0], SIGKILL);
  EXPECT_EQ(supervisor.WaitForEnd(0).signal(), SIGKILL);
  EXPECT_TRUE(ground_.MarkedWith("sleep 1001").empty());
  EXPECT_TRUE(ground_.MarkedWith("sleep 1002").empty());
  EXPECT_FALSE(ground_.MarkedWith("sleep 1003").empty());  // the other task is none of its business
}

TEST_F(AgentTasksTest, AtTheEndOutputsComeAndTheFolderGoes) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  supervisor.StreamFiles();
  supervisor.Send(TestSupervisor::Bash(
      0,
      "cd outputs; mkdir deep; head -c 200000 /dev/zero > deep/model.bin; chmod +x deep/model.bin; : > empty; "
      "ln -s deep/model.bin latest; ln -s /etc/passwd outside; mkfifo pipe; head -c 3000000 /dev/zero > large; "
      "echo at last"));
  supervisor.Send(TestSupervisor::Bash(1, "echo other > outputs/empty"));
  supervisor.WaitForEnd(0);
  supervisor.WaitForEnd(1);
  agent::ToAgent message;
  message.mutable_collect_outputs()->set_limit_bytes(1'000'000);
  supervisor.Send(message);
  const agent::Collected collected = supervisor.Next(agent::FromAgent::kCollected).collected();
  EXPECT_EQ(supervisor.Log(0), "at last\n");  // drained before
  EXPECT_EQ(collected.files(), 4u);
  EXPECT_EQ(collected.bytes(), 200'006u);
  std::string left_out;
  for (const std::string& one : collected.left_out()) absl::StrAppend(&left_out, one, "\n");
  EXPECT_EQ(left_out,
            "worker-0/outputs/large (3 MB)\n"
            "worker-0/outputs/outside (a link that leads outside)\n"
            "worker-0/outputs/pipe (a socket, pipe or device)\n");
  std::string model, got;
  for (const agent::FileChunk& chunk : supervisor.outputs) {
    if (chunk.path() == "deep/model.bin") {
      EXPECT_EQ(chunk.offset(), model.size());
      EXPECT_TRUE(chunk.executable());
      model += chunk.data();
    }
    if (chunk.last()) absl::StrAppend(&got, chunk.task(), " ", chunk.path(), " ", chunk.link_target(), "\n");
  }
  EXPECT_EQ(model, std::string(200'000, '\0'));
  EXPECT_EQ(got, "0 deep/model.bin \n0 empty \n0 latest deep/model.bin\n1 empty \n");
  message.mutable_bye();
  supervisor.Send(message);
  supervisor.Next(agent::FromAgent::kGoodbye);
  EXPECT_TRUE(WaitUntil([&] { return ground_.MarkedWith("basin").empty(); }));
  EXPECT_NE(access((ground_.base() + "/runs/run").c_str(), F_OK), 0);
}

TEST_F(AgentTasksTest, WhatOfTheLogsWasNotStreamedIsCountedAndNamed) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  supervisor.StreamFiles();
  supervisor.Send(TestSupervisor::Bash(
      0,
      "cd logs; mkfifo pipe; ln -s told link; echo x >told; echo x >$'odd\\xff'; mkdir ../many; "
      "for i in {1..1200}; do echo $i >../many/$i; done; mv ../many .; cd ../outputs; mkfifo pipe"));
  supervisor.WaitForEnd(0);
  agent::ToAgent message;
  message.mutable_collect_outputs()->set_limit_bytes(1'000'000);
  supervisor.Send(message);
  const agent::Collected collected = supervisor.Next(agent::FromAgent::kCollected).collected();
  size_t told = 0;
  for (int i = 1; i <= 1200; ++i) told += !supervisor.Stream(agent::SCRIPT_LOG, 0, absl::StrCat("many/", i)).empty();
  told += !supervisor.Stream(agent::SCRIPT_LOG, 0, "told").empty();
  EXPECT_GE(told, 900u);
  EXPECT_LT(told, 1201u);
  // All files, and the pipe, the link and the odd name, and the pipe of the outputs.
  EXPECT_EQ(told + collected.left_out_count(), 1201u + 4u);
  const std::string names = absl::StrJoin(collected.left_out(), "\n");
  EXPECT_TRUE(absl::StrContains(names, "worker-0/logs/odd? (its name is not UTF-8")) << names;
  EXPECT_TRUE(absl::StrContains(names, "(beyond the 1000 files and folders of a task that are streamed)")) << names;
  EXPECT_TRUE(absl::StrContains(names, "worker-0/logs/link (a link)")) << names;
  EXPECT_TRUE(absl::StrContains(names, "worker-0/outputs/pipe (a socket, pipe or device)")) << names;
}

TEST_F(AgentTasksTest, OutputsGoOnWhereTheLastSupervisorHasThem) {
  auto first = std::make_unique<TestSupervisor>(ground_);
  first->Join(1, /*grace_ms=*/600'000);
  first->Send(TestSupervisor::Bash(0, "cd outputs; printf 0123456789 > part; printf whole > whole; printf new > new"));
  first->WaitForEnd(0);
  first.reset();
  TestSupervisor second(ground_);
  EXPECT_EQ(second.Join(2).gone_size(), 1);
  agent::ToAgent message;
  for (const auto& [path, offset] : {std::pair("part", 6), std::pair("whole", 5)}) {
    agent::FilePosition* position = message.mutable_stream_files()->add_positions();
    position->set_stream(agent::OUTPUT);
    position->set_path(path);
    position->set_offset(offset);
  }
  second.Send(message);
  message.mutable_collect_outputs()->set_limit_bytes(1000);
  second.Send(message);
  EXPECT_EQ(second.Next(agent::FromAgent::kCollected).collected().files(), 3u);
  std::string got;
  for (const agent::FileChunk& chunk : second.outputs) {
    absl::StrAppend(&got, chunk.path(), " at ", chunk.offset(), ": ", chunk.data(), chunk.last() ? ", last\n" : "\n");
  }
  EXPECT_EQ(got, "new at 0: new, last\npart at 6: 6789, last\nwhole at 5: , last\n");
}

TEST_F(AgentTasksTest, InputsAreCheckedWhereTheTasksWillRun) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  WriteFile(ground_.path() + "/part-1.csv", "x");
  agent::ToAgent message;
  const auto add = [&](const char* name, const std::string& path) {
    agent::Input* input = message.mutable_check_inputs()->add_inputs();
    input->set_name(name);
    input->set_path(path);
  };
  add("there", ground_.path());
  add("pattern", ground_.path() + "/part-*.csv");
  add("missing", ground_.path() + "/nothing");
  add("no_match", ground_.path() + "/none-*.csv");
  add("relative", "data");
  supervisor.Send(message);
  const agent::InputsChecked checked = supervisor.Next(agent::FromAgent::kInputsChecked).inputs_checked();
  ASSERT_EQ(checked.problems_size(), 3);
  EXPECT_EQ(checked.problems(0).name(), "missing");
  EXPECT_TRUE(absl::StrContains(checked.problems(0).problem(), "No such file")) << checked.problems(0).problem();
  EXPECT_EQ(checked.problems(1).name(), "no_match");
  EXPECT_EQ(checked.problems(2).name(), "relative");
}

}  // namespace
}  // namespace basin::testing
