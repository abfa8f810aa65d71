// What an agent has to stand: turns of its loop that take long, ends that come at a bad moment, helpers that hang.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/process_tree.h"
#include "estimator/agent/steady_now.h"
#include "tests/estimator/agent_supervisor.h"

namespace basin::testing {
namespace {

constexpr uint32_t kPatientGraceMs = 600'000;

// A connection of this process to the agent's socket; one that is made while nobody accepts waits there.
UniqueFd ConnectTo(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd.Close();
  return fd;
}

// All that comes until `done` says that it is enough.
std::string ReadUntil(int fd, const std::function<bool(const std::string&)>& done) {
  std::string text;
  WaitUntil([&] {
    char bytes[64 << 10];
    const ssize_t got = read(fd, bytes, sizeof bytes);
    if (got > 0) text.append(bytes, static_cast<size_t>(got));
    return got == 0 || done(text);
  });
  return text;
}

class AgentFaultsTest : public ::testing::Test {
 protected:
  std::string AgentLogText() { return Content(ground_.node_folder() + "/agent.log"); }
  // A task whose tree cannot be copied to the end, for its snapshot holds a pipe that nobody writes to. The copier.
  pid_t StartTaskThatHangs(TestSupervisor& supervisor, pid_t agent) {
    const std::string digest(64, 'd');
    const std::string snapshot = absl::StrCat(ground_.base(), "/snapshots/", digest);
    std::filesystem::create_directories(snapshot);
    EXPECT_EQ(mkfifo((snapshot + "/pipe").c_str(), 0600), 0);
    agent::ToAgent message;
    message.mutable_offer_snapshot()->set_digest(digest);
    supervisor.Send(message);
    EXPECT_TRUE(supervisor.Next(agent::FromAgent::kSnapshotState).snapshot_state().have());
    message = TestSupervisor::Bash(0, "true");
    message.mutable_start_task()->set_snapshot_digest(digest);
    supervisor.Send(message);
    return OnlyChildOf(agent);
  }
  static pid_t OnlyChildOf(pid_t parent) {
    EXPECT_TRUE(WaitUntil([&] { return Children(parent).size() == 1; }));
    const std::vector<ProcessRef> children = Children(parent);
    return children.empty() ? 0 : children[0].pid;
  }
  Playground ground_;
};

TEST_F(AgentFaultsTest, ATurnLongerThanTheLeaseIsNotTheSupervisorsSilence) {
  TestSupervisor supervisor(ground_);
  ASSERT_TRUE(supervisor.MeetAgent());
  agent::ToAgent message;
  *message.mutable_hello() = supervisor.HelloOf(1, /*grace_ms=*/0);
  message.mutable_hello()->set_lease_ms(10'000);  // longer than the start of a task takes on a loaded machine
  supervisor.Send(message);
  const pid_t agent = supervisor.Next(agent::FromAgent::kWelcome).welcome().pid();
  supervisor.Send(TestSupervisor::Bash(0, "sleep 1001"));
  supervisor.Next(agent::FromAgent::kTaskStarted);
  kill(agent, SIGSTOP);
  const absl::Time stopped = SteadyNow();
  agent::ToAgent ping;
  ping.mutable_ping()->set_number(1);
  supervisor.Send(ping);
  ASSERT_TRUE(WaitUntil([&] { return SteadyNow() > stopped + absl::Seconds(11); }));
  kill(agent, SIGCONT);
  EXPECT_EQ(supervisor.Next(agent::FromAgent::kPong).pong().number(), 1u);
  ping.mutable_ping()->set_number(2);
  supervisor.Send(ping);
  EXPECT_EQ(supervisor.Next(agent::FromAgent::kPong).pong().number(), 2u);
  EXPECT_FALSE(absl::StrContains(AgentLogText(), "ending:")) << AgentLogText();
}

TEST_F(AgentFaultsTest, FramesForASupervisorThatIsGoneReachNobodyElse) {
  auto first = std::make_unique<TestSupervisor>(ground_);
  const pid_t agent = first->Join(1, kPatientGraceMs).pid();
  first->StreamFiles();
  first->Send(TestSupervisor::Bash(0, "while true; do echo some line of the log; sleep 0.01; done"));
  ASSERT_TRUE(first->PumpUntil([&] { return first->LogBytes(0) > 1000; }));
  // In one turn the agent finds that the one is gone and that another is here, and has something to send.
  kill(agent, SIGSTOP);
  const std::string log = ground_.node_folder() + "/logs/worker-0.txt";
  const size_t before = Content(log).size();
  ASSERT_TRUE(WaitUntil([&] { return Content(log).size() > before + 2000; }));
  first->KillRelay();
  const UniqueFd second = ConnectTo(ground_.node_folder() + "/agent.sock");
  ASSERT_GE(second.get(), 0);
  kill(agent, SIGCONT);
  const auto has_line = [](const std::string& text) { return absl::StrContains(text, "\n"); };
  const std::string magic = ReadUntil(second.get(), has_line);
  EXPECT_TRUE(absl::StartsWith(magic, kAgentMagic)) << magic;
  EXPECT_EQ(magic.find('\n'), magic.size() - 1) << "the agent goes on: " << magic.size() << " bytes";
  // The first thing that it says is its answer.
  Channel channel(second.get(), second.get());
  agent::ToAgent message;
  *message.mutable_hello() = first->HelloOf(2, kPatientGraceMs);
  ASSERT_TRUE(channel.SendControl(message.SerializeAsString()).ok());
  ASSERT_TRUE(channel.Flush().ok());
  std::string bytes;
  ASSERT_TRUE(WaitUntil([&] { return !channel.Fill().ok() || channel.Next(&bytes); }));
  agent::FromAgent answer;
  ASSERT_TRUE(answer.ParseFromString(bytes));
  EXPECT_EQ(answer.body_case(), agent::FromAgent::kWelcome) << answer.refused().reason();
}

TEST_F(AgentFaultsTest, ATaskWhoseTreeIsBeingMadeEndsAtOnce) {
  TestSupervisor supervisor(ground_);
  const pid_t agent = supervisor.Join(1).pid();
  for (const bool kill : {false, true}) {
    std::filesystem::remove_all(ground_.base() + "/snapshots");
    StartTaskThatHangs(supervisor, agent);
    agent::ToAgent message;
    message.mutable_signal_task()->set_kill(kill);
    supervisor.Send(message);
    EXPECT_EQ(supervisor.WaitForEnd(0).signal(), kill ? SIGKILL : SIGTERM);
    // The end waits only for a while for a helper that dies slowly.
    EXPECT_TRUE(WaitUntil([&] { return Children(agent).empty(); }));
  }
}

TEST_F(AgentFaultsTest, AHelperThatDoesNotDieHoldsUpNoEnd) {
  TestSupervisor supervisor(ground_);
  const pid_t agent = supervisor.Join(1).pid();
  const pid_t helper = StartTaskThatHangs(supervisor, agent);
  // Once it is killed, it stays in the way for as long as its tracer does not look: like one in a hung system call.
  if (ptrace(PTRACE_SEIZE, helper, nullptr, nullptr) != 0) GTEST_SKIP() << "no process may be traced here";
  agent::ToAgent message;
  message.mutable_signal_task()->set_kill(true);
  supervisor.Send(message);
  EXPECT_EQ(supervisor.WaitForEnd(0).signal(), SIGKILL);
  EXPECT_EQ(OnlyChildOf(agent), helper);
  message.mutable_bye();
  supervisor.Send(message);
  supervisor.Next(agent::FromAgent::kGoodbye);
  EXPECT_EQ(waitpid(helper, nullptr, __WALL), helper);
  ground_.WaitUntilNothingIsLeft();
}

TEST_F(AgentFaultsTest, AnInputCheckThatWasKilledSaysSo) {
  TestSupervisor supervisor(ground_);
  const pid_t agent = supervisor.Join(1).pid();
  // A search that takes hours: each folder is four times in itself.
  const std::string loop = ground_.path() + "/loop";
  std::filesystem::create_directory(loop);
  for (const char* name : {"/a", "/b", "/c", "/d"}) ASSERT_EQ(symlink(".", (loop + name).c_str()), 0);
  agent::ToAgent message;
  agent::Input* input = message.mutable_check_inputs()->add_inputs();
  input->set_name("data");
  input->set_path(loop);
  for (int i = 0; i < 20; ++i) input->mutable_path()->append("/*");
  input->mutable_path()->append("/nothing*");
  supervisor.Send(message);
  kill(OnlyChildOf(agent), SIGKILL);
  const agent::InputsChecked checked = supervisor.Next(agent::FromAgent::kInputsChecked).inputs_checked();
  ASSERT_EQ(checked.problems_size(), 1);
  EXPECT_TRUE(absl::StrContains(checked.problems(0).problem(), "was killed")) << checked.problems(0).problem();
}

TEST_F(AgentFaultsTest, AnAgentThatTakesNobodyMoreKeepsItsSocket) {
  const std::string folder = ground_.node_folder();
  std::filesystem::create_directories(folder);
  for (const std::string& path : {ground_.base(), folder}) chmod(path.c_str(), 0700);
  const std::string path = folder + "/agent.sock";
  const UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener.get(), 0), 0);
  std::vector<UniqueFd> waiting;
  while (true) {
    UniqueFd one = ConnectTo(path);
    if (one.get() < 0) break;
    waiting.push_back(std::move(one));
  }
  struct stat before, after;
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  TestSupervisor supervisor(ground_);
  EXPECT_FALSE(supervisor.MeetAgent());
  EXPECT_TRUE(absl::StrContains(supervisor.errors(), "agent.sock: ")) << supervisor.errors();
  EXPECT_TRUE(absl::StrContains(supervisor.errors(), "agent.log")) << supervisor.errors();
  ASSERT_EQ(stat(path.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
}

}  // namespace
}  // namespace basin::testing
