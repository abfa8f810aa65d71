// Who an agent listens to, and what happens when nobody speaks any more: cut, killed, slow and hostile supervisors.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/estimator/agent_supervisor.h"

namespace basin::testing {
namespace {

constexpr uint32_t kLongGraceMs = 600'000;

class AgentContactTest : public ::testing::Test {
 protected:
  // A task that lives until it is stopped, and is running.
  void StartSleeper(TestSupervisor& supervisor, uint32_t task = 0) {
    supervisor.Send(TestSupervisor::Bash(task, absl::StrCat("setsid sleep 100", task, "1 & sleep 100", task, "2")));
    ASSERT_TRUE(ground_.WaitUntilRuns({absl::StrCat("sleep 100", task, "1"), absl::StrCat("sleep 100", task, "2")}));
  }
  std::string AgentLogText() { return Content(ground_.node_folder() + "/agent.log"); }
  Playground ground_;
};

TEST_F(AgentContactTest, ARejoiningSupervisorMissesNoByteAndGetsNoneTwice) {
  auto first = std::make_unique<TestSupervisor>(ground_);
  first->Join(1, kLongGraceMs);
  first->StreamFiles();
  // Numbered lines, until a file appears.
  const std::string stop = ground_.path() + "/stop";
  first->Send(TestSupervisor::Bash(0, absl::StrCat("i=0; while [ ! -e ", stop,
                                                   " ]; do for n in {1..500}; do echo line $i; "
                                                   "i=$((i+1)); done; sleep 0.002; done; echo the end")));
  std::map<TestSupervisor::Key, std::string> streams;
  for (uint64_t epoch = 2; epoch < 6; ++epoch) {
    const size_t before = first->LogBytes(0);
    ASSERT_TRUE(first->PumpUntil([&] { return first->LogBytes(0) > before + 100'000; }));
    streams = first->streams;
    EXPECT_EQ(first->stream_problem, "");
    if (epoch % 2 == 0) first->KillRelay();  // else the old connection is still there
    auto second = std::make_unique<TestSupervisor>(ground_);
    const agent::Welcome welcome = second->Join(epoch, kLongGraceMs);
    EXPECT_TRUE(welcome.rejoined());
    ASSERT_EQ(welcome.started_size(), 1);
    EXPECT_EQ(welcome.started(0).task(), 0u);
    EXPECT_EQ(welcome.exited_size(), 0);
    if (epoch % 2 == 1) {
      EXPECT_TRUE(absl::StrContains(first->Next(agent::FromAgent::kRefused).refused().reason(), "has taken over"));
      EXPECT_FALSE(first->PumpUntil([] { return false; }));
      EXPECT_TRUE(first->ended());
    }
    second->streams = streams;
    second->StreamFiles();
    first = std::move(second);
  }
  WriteFile(stop, "");
  EXPECT_EQ(first->WaitForEnd(0).code(), 0);
  ASSERT_TRUE(first->PumpUntil([&] { return absl::EndsWith(first->Log(0), "the end\n"); }));
  EXPECT_EQ(first->stream_problem, "");
  const std::vector<std::string> lines = absl::StrSplit(first->Log(0), '\n');
  for (size_t i = 0; i + 2 < lines.size(); ++i) ASSERT_EQ(lines[i], absl::StrCat("line ", i));
}

TEST_F(AgentContactTest, ATaskThatEndedMeanwhileIsToldToTheNextSupervisor) {
  auto first = std::make_unique<TestSupervisor>(ground_);
  first->Join(1, kLongGraceMs);
  first->Send(
      TestSupervisor::Bash(0, absl::StrCat("while [ ! -e ", ground_.path(), "/stop ]; do sleep 0.01; done; exit 9")));
  first->Next(agent::FromAgent::kTaskStarted);
  first.reset();
  WriteFile(ground_.path() + "/stop", "");
  ASSERT_TRUE(WaitUntil([&] { return absl::StrContains(AgentLogText(), "worker-0 has ended with 9"); }));
  ASSERT_TRUE(WaitUntil([&] { return ground_.MarkedWith("basin guard").empty(); }));
  TestSupervisor second(ground_);
  const agent::Welcome welcome = second.Join(2, kLongGraceMs);
  ASSERT_EQ(welcome.exited_size(), 1);
  EXPECT_EQ(welcome.exited(0).code(), 9);
  EXPECT_TRUE(welcome.gone_size() == 1 || second.PumpUntil([&] { return second.Has(agent::FromAgent::kTaskGone); }));
}

TEST_F(AgentContactTest, AnEarlierEpochAndAnotherTokenAreRefused) {
  TestSupervisor first(ground_);
  first.Join(5, kLongGraceMs);
  for (const bool other_token : {false, true}) {
    TestSupervisor second(ground_);
    ASSERT_TRUE(second.MeetAgent());
    if (other_token) second.token = "guessed";
    agent::ToAgent message;
    *message.mutable_hello() = second.HelloOf(other_token ? 6 : 5);
    second.Send(message);
    const std::string reason = second.Next(agent::FromAgent::kRefused).refused().reason();
    EXPECT_TRUE(absl::StrContains(reason, other_token ? "token" : "epoch 5")) << reason;
    EXPECT_FALSE(second.PumpUntil([] { return false; }));
    EXPECT_TRUE(second.ended());
  }
  agent::ToAgent ping;
  ping.mutable_ping()->set_number(77);
  first.Send(ping);
  EXPECT_EQ(first.Next(agent::FromAgent::kPong).pong().number(), 77u);
}

TEST_F(AgentContactTest, AKilledAgentLeavesNoProcess) {
  TestSupervisor supervisor(ground_);
  const pid_t agent = supervisor.Join(1, kLongGraceMs).pid();
  StartSleeper(supervisor, 0);
  StartSleeper(supervisor, 1);
  kill(agent, SIGKILL);
  ground_.WaitUntilNothingIsLeft();
}

TEST_F(AgentContactTest, AnAttachedRunEndsWithItsRelayAndKeepsItsFolder) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1, /*grace_ms=*/0);
  StartSleeper(supervisor);
  supervisor.KillRelay();
  ground_.WaitUntilNothingIsLeft();
  EXPECT_EQ(access((ground_.node_folder() + "/tasks/worker-0/outputs").c_str(), F_OK), 0);
  EXPECT_TRUE(absl::StrContains(AgentLogText(), "grace is over")) << AgentLogText();
}

TEST_F(AgentContactTest, AClosedInputEndsTheRelayToo) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1, /*grace_ms=*/0);
  StartSleeper(supervisor);
  supervisor.CloseInput();
  ground_.WaitUntilNothingIsLeft();
}

TEST_F(AgentContactTest, ADetachedRunGoesOnForItsGraceAndThenEnds) {
  auto supervisor = std::make_unique<TestSupervisor>(ground_);
  supervisor->Join(1, kLongGraceMs);
  StartSleeper(*supervisor);
  supervisor->KillRelay();
  ASSERT_TRUE(WaitUntil([&] { return absl::StrContains(AgentLogText(), "connection has ended"); }));
  EXPECT_GE(ground_.MarkedWith("sleep 1000").size(), 2u);
  EXPECT_FALSE(absl::StrContains(AgentLogText(), "ending:"));
  TestSupervisor second(ground_);
  second.Join(2, /*grace_ms=*/300);
  second.KillRelay();
  ground_.WaitUntilNothingIsLeft();
  EXPECT_TRUE(absl::StrContains(AgentLogText(), "grace is over")) << AgentLogText();
}

TEST_F(AgentContactTest, SilenceIsTakenForTheEndOfTheSupervisor) {
  TestSupervisor supervisor(ground_);
  ASSERT_TRUE(supervisor.MeetAgent());
  agent::ToAgent message;
  *message.mutable_hello() = supervisor.HelloOf(1, /*grace_ms=*/0);
  message.mutable_hello()->set_lease_ms(700);
  supervisor.Send(message);
  supervisor.Next(agent::FromAgent::kWelcome);
  // The connection stays open: only nothing is said any more.
  ground_.WaitUntilNothingIsLeft();
}

TEST_F(AgentContactTest, ATerminatedAgentEndsItsTasksAndLeavesTheFolder) {
  TestSupervisor supervisor(ground_);
  const pid_t agent = supervisor.Join(1, kLongGraceMs).pid();
  const std::string ready = ground_.path() + "/ready";
  supervisor.Send(
      TestSupervisor::Bash(0, absl::StrCat("trap 'echo asked; exit 3' TERM; touch ", ready, "; sleep 1001 & wait")));
  ASSERT_TRUE(WaitUntil([&] { return access(ready.c_str(), F_OK) == 0; }));
  kill(agent, SIGTERM);
  EXPECT_EQ(supervisor.WaitForEnd(0).code(), 3);
  supervisor.KillRelay();
  ground_.WaitUntilNothingIsLeft();
  EXPECT_EQ(Content(ground_.node_folder() + "/logs/worker-0.txt"), "asked\n");
}

TEST_F(AgentContactTest, ByeStopsWhatIsLeft) {
  TestSupervisor supervisor(ground_);
  supervisor.cancel_grace_ms = 1000;
  supervisor.Join(1, kLongGraceMs);
  supervisor.Send(TestSupervisor::Bash(0, "trap '' TERM; while true; do sleep 1; done"));
  supervisor.Next(agent::FromAgent::kTaskStarted);
  agent::ToAgent message;
  message.mutable_bye()->set_keep_folder(true);
  supervisor.Send(message);
  supervisor.Next(agent::FromAgent::kGoodbye);
  EXPECT_FALSE(supervisor.PumpUntil([] { return false; }));
  ground_.WaitUntilNothingIsLeft();
  EXPECT_EQ(access(ground_.node_folder().c_str(), F_OK), 0);
}

TEST_F(AgentContactTest, ASupervisorThatNeverReadsDoesNotStallATask) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1, kLongGraceMs);
  supervisor.StreamFiles();
  supervisor.set_reads(false);
  supervisor.Send(TestSupervisor::Bash(0, "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo done"));
  const std::string log = ground_.node_folder() + "/logs/worker-0.txt";
  std::error_code error;
  ASSERT_TRUE(WaitUntil([&] { return std::filesystem::file_size(log, error) == 100'000'006; }));
  ASSERT_TRUE(WaitUntil([&] { return absl::StrContains(AgentLogText(), "worker-0 has ended with 0"); }));
  // And when it reads at last, all is there.
  supervisor.set_reads(true);
  ASSERT_TRUE(supervisor.PumpUntil([&] { return supervisor.LogBytes(0) == 100'000'006; })) << supervisor.LogBytes(0);
  EXPECT_EQ(supervisor.stream_problem, "");
  EXPECT_TRUE(absl::EndsWith(supervisor.Log(0), "x\ndone\n"));
}

TEST_F(AgentContactTest, AFileThatIsCutIsToldFromItsBeginning) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1, kLongGraceMs);
  supervisor.StreamFiles();
  const std::string go = ground_.path() + "/go";
  supervisor.Send(TestSupervisor::Bash(0, absl::StrCat("echo long first text > logs/a.log; while [ ! -e ", go,
                                                       " ]; do sleep 0.01; done; echo new > logs/a.log; sleep 1001")));
  ASSERT_TRUE(
      supervisor.PumpUntil([&] { return supervisor.Stream(agent::SCRIPT_LOG, 0, "a.log") == "long first text\n"; }));
  WriteFile(go, "");
  ASSERT_TRUE(
      supervisor.PumpUntil([&] { return absl::EndsWith(supervisor.Stream(agent::SCRIPT_LOG, 0, "a.log"), "new\n"); }));
  EXPECT_EQ(supervisor.Stream(agent::SCRIPT_LOG, 0, "a.log"),
            "long first text\n[basin: the file was cut; from its beginning:]\nnew\n");
  EXPECT_EQ(supervisor.stream_problem, "");
}

TEST_F(AgentContactTest, MalformedMessagesEndTheConversationWithTheReason) {
  const std::string too_long("\xff\xff\xff\xff", 4);
  const std::string no_message = std::string("\x04\0\0\0", 4) + "\xff\xff\xff\xff";
  agent::ToAgent bad_task = TestSupervisor::Bash(0, "true");
  bad_task.mutable_start_task()->set_role("../../escape");
  agent::ToAgent big_number = TestSupervisor::Bash(5000, "true");
  agent::ToAgent unasked;
  unasked.mutable_tree_data()->set_data("bytes");
  const auto framed = [](const agent::ToAgent& message) {
    const std::string bytes = message.SerializeAsString();
    std::string frame(4, '\0');
    for (int i = 0; i < 4; ++i) frame[i] = static_cast<char>(bytes.size() >> (8 * i));
    return frame + bytes;
  };
  const std::pair<std::string, std::string> cases[] = {
      {too_long, "4294967295"},           {no_message, "no message"},         {framed(bad_task), "name no task"},
      {framed(big_number), "below 1024"}, {framed(unasked), "not asked for"}, {framed({}), "does not know"}};
  uint64_t epoch = 0;
  for (const auto& [bytes, reason] : cases) {
    TestSupervisor supervisor(ground_);
    supervisor.Join(++epoch, kLongGraceMs);
    supervisor.SendRaw(bytes);
    const std::string said = supervisor.Next(agent::FromAgent::kRefused).refused().reason();
    EXPECT_TRUE(absl::StrContains(said, reason)) << said;
    EXPECT_FALSE(supervisor.PumpUntil([] { return false; }));
    EXPECT_TRUE(supervisor.ended());
  }
  // The agent itself has taken no harm.
  TestSupervisor supervisor(ground_);
  EXPECT_TRUE(supervisor.Join(++epoch, kLongGraceMs).rejoined());
}

TEST_F(AgentContactTest, AStrangersFirstMessageIsRefusedWithoutHarm) {
  TestSupervisor stranger(ground_);
  ASSERT_TRUE(stranger.MeetAgent());
  stranger.Send(TestSupervisor::Bash(0, "touch /tmp/never"));
  EXPECT_TRUE(absl::StrContains(stranger.Next(agent::FromAgent::kRefused).refused().reason(), "no Hello"));
  TestSupervisor other(ground_);
  ASSERT_TRUE(other.MeetAgent());
  agent::ToAgent message;
  *message.mutable_hello() = other.HelloOf(1);
  message.mutable_hello()->set_run_id("another");
  other.Send(message);
  EXPECT_TRUE(absl::StrContains(other.Next(agent::FromAgent::kRefused).refused().reason(), "not of node 0 of another"));
}

TEST_F(AgentContactTest, RelaysThatStartAtOnceReachOneAgent) {
  std::vector<std::unique_ptr<TestSupervisor>> all;
  for (int i = 0; i < 6; ++i) all.push_back(std::make_unique<TestSupervisor>(ground_));
  for (const auto& one : all) EXPECT_TRUE(one->MeetAgent()) << one->errors();
  for (const auto& one : all) one->KillRelay();
  size_t agents = 0;
  const std::string log = AgentLogText();
  for (size_t at = 0; (at = log.find("agent of node 0", at)) != std::string::npos; ++at) ++agents;
  EXPECT_EQ(agents, 1u) << log;
}

TEST_F(AgentContactTest, ASocketThatAKilledAgentLeftIsReplaced) {
  auto first = std::make_unique<TestSupervisor>(ground_);
  const pid_t agent = first->Join(1).pid();
  kill(agent, SIGKILL);
  EXPECT_FALSE(first->PumpUntil([] { return false; }));
  first.reset();
  ASSERT_EQ(access((ground_.node_folder() + "/agent.sock").c_str(), F_OK), 0);
  TestSupervisor second(ground_);
  EXPECT_FALSE(second.Join(2).rejoined());
}

TEST_F(AgentContactTest, AFolderThatIsALinkIsRefused) {
  std::filesystem::create_directories(ground_.base() + "/runs/run");
  std::filesystem::permissions(ground_.base(), std::filesystem::perms::owner_all);
  std::filesystem::create_directory(ground_.path() + "/elsewhere");
  std::filesystem::create_directory_symlink(ground_.path() + "/elsewhere", ground_.node_folder());
  TestSupervisor supervisor(ground_);
  EXPECT_FALSE(supervisor.MeetAgent());
  EXPECT_TRUE(absl::StrContains(supervisor.errors(), "is a link")) << supervisor.errors();
  EXPECT_TRUE(std::filesystem::is_empty(ground_.path() + "/elsewhere"));
}

TEST_F(AgentContactTest, AFolderOfAnotherUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to give a folder away";
  std::filesystem::create_directories(ground_.base() + "/runs/run");
  std::filesystem::permissions(ground_.base(), std::filesystem::perms::owner_all);
  ASSERT_EQ(chown((ground_.base() + "/runs").c_str(), 1234, 1234), 0);
  TestSupervisor supervisor(ground_);
  EXPECT_FALSE(supervisor.MeetAgent());
  EXPECT_TRUE(absl::StrContains(supervisor.errors(), "belongs to user 1234")) << supervisor.errors();
}

TEST_F(AgentContactTest, APathLongerThanASocketsNameWorks) {
  const std::string run(120, 'r');
  TestSupervisor supervisor(ground_, run);
  EXPECT_EQ(supervisor.Join(1).node_folder(), ground_.node_folder(run));
}

}  // namespace
}  // namespace basin::testing
