// What an agent prepares for tasks: ports and snapshots.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/unique_fd.h"
#include "estimator/environment/environment_spec.h"
#include "estimator/snapshot/tree.h"
#include "tests/estimator/agent_supervisor.h"

namespace basin::testing {
namespace {

// Binds like a program that sets SO_REUSEADDR; -1 where somebody listens there.
UniqueFd BindTo(uint32_t port, bool listens) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in at = {};
  at.sin_family = AF_INET;
  at.sin_port = htons(static_cast<uint16_t>(port));
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || (listens && listen(fd.get(), 8) != 0))
    fd.Close();
  return fd;
}

bool Connects(uint32_t port) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at = {};
  at.sin_family = AF_INET;
  at.sin_port = htons(static_cast<uint16_t>(port));
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) == 0;
}

class AgentProvisionTest : public ::testing::Test {
 protected:
  std::vector<uint32_t> Hold(TestSupervisor& supervisor, uint32_t count, const std::vector<uint32_t>& avoid = {},
                             uint32_t first = 23'000, uint32_t last = 24'000) {
    agent::ToAgent message;
    agent::HoldPorts& hold = *message.mutable_hold_ports();
    hold.set_count(count);
    hold.set_first(first);
    hold.set_last(last);
    hold.set_bind_address("127.0.0.1");
    for (const uint32_t port : avoid) hold.add_avoid(port);
    supervisor.Send(message);
    const agent::PortsHeld held = supervisor.Next(agent::FromAgent::kPortsHeld).ports_held();
    EXPECT_EQ(held.problem(), "");
    return {held.ports().begin(), held.ports().end()};
  }
  Playground ground_;
};

TEST_F(AgentProvisionTest, HeldPortsAreNobodyElses) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  const std::vector<uint32_t> ports = Hold(supervisor, 3);
  ASSERT_EQ(ports.size(), 3u);
  for (const uint32_t port : ports) EXPECT_LT(BindTo(port, true).get(), 0) << port;
  // Another agent gets others, and so does this one when it must avoid some.
  Playground other_ground;
  TestSupervisor other(other_ground);
  other.Join(1);
  for (const uint32_t port : Hold(other, 3)) {
    EXPECT_EQ(std::count(ports.begin(), ports.end(), port), 0);
  }
  for (const uint32_t port : Hold(supervisor, 3, ports)) EXPECT_EQ(std::count(ports.begin(), ports.end(), port), 0);
}

TEST_F(AgentProvisionTest, AScriptThatDoesNotListenOnItsPortIsTold) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  const std::vector<uint32_t> ports = Hold(supervisor, 2);
  ASSERT_EQ(ports.size(), 2u);
  // The first is not looked at.
  for (const auto& [task, limit_ms] : {std::pair(0u, 0u), std::pair(1u, 100u)}) {
    agent::ToAgent message = TestSupervisor::Bash(task, "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    message.mutable_start_task()->set_port(ports[task]);
    message.mutable_start_task()->set_listens_within_ms(limit_ms);
    supervisor.Send(message);
  }
  EXPECT_EQ(supervisor.Next(agent::FromAgent::kNotListening).not_listening().task(), 1u);
  EXPECT_FALSE(supervisor.Has(agent::FromAgent::kNotListening));
}

TEST_F(AgentProvisionTest, TooFewPortsAreAProblemThatSaysWhatToDo) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  agent::ToAgent message;
  message.mutable_hold_ports()->set_count(2000);
  message.mutable_hold_ports()->set_first(65'000);
  message.mutable_hold_ports()->set_last(65'001);
  for (uint32_t port = 2222; port < 2222 + 2000; ++port) message.mutable_hold_ports()->add_avoid(port);
  supervisor.Send(message);
  const std::string problem = supervisor.Next(agent::FromAgent::kPortsHeld).ports_held().problem();
  EXPECT_TRUE(absl::StrContains(problem, "2000 free ports are needed")) << problem;
  EXPECT_TRUE(absl::StrContains(problem, "network.ports")) << problem;
}

TEST_F(AgentProvisionTest, BasinPsGetsItsListenerOpen) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  supervisor.StreamFiles();
  const uint32_t port = Hold(supervisor, 1).at(0);
  EXPECT_TRUE(Connects(port));  // from the moment that the port is known
  agent::ToAgent message;
  agent::StartTask& start = *message.mutable_start_task();
  start.set_role("ps");
  for (const char* word : {"{programs}/basin-ps", "--lanes", "1", "--token-file", "{token}"}) start.add_argv(word);
  agent::Variable* variable = start.add_environment();
  variable->set_name("TF_CONFIG");
  variable->set_value(absl::StrCat(R"({"cluster": {"ps": ["127.0.0.1:)", port, R"("], "worker": ["127.0.0.1:1"]}, )",
                                   R"("task": {"type": "ps", "index": 0}})"));
  start.set_port(port);
  start.set_takes_listener(true);
  supervisor.Send(message);
  ASSERT_TRUE(supervisor.PumpUntil([&] {
    return absl::StrContains(supervisor.Log(0), absl::StrCat("listening on 127.0.0.1:", port)) ||
           (supervisor.Has(agent::FromAgent::kTaskExited) && !supervisor.Log(0).empty());  // then it says why
  }));
  EXPECT_TRUE(absl::StrContains(supervisor.Log(0), absl::StrCat("listening on 127.0.0.1:", port))) << supervisor.Log(0);
  EXPECT_TRUE(Connects(port));
  message.mutable_signal_task();
  supervisor.Send(message);
  EXPECT_EQ(supervisor.WaitForEnd(0).code(), 0) << supervisor.Log(0);
  // Neither the agent nor the guard holds on to it.
  EXPECT_GE(BindTo(port, true).get(), 0);
}

TEST_F(AgentProvisionTest, AScriptFindsItsPortFree) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  supervisor.StreamFiles();
  const uint32_t port = Hold(supervisor, 1).at(0);
  // Without SO_REUSEADDR.
  agent::ToAgent message =
      TestSupervisor::Bash(0, absl::StrCat("python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", ",
                                           port, ")); s.listen(); print(\"got it\")'"));
  message.mutable_start_task()->set_port(port);
  supervisor.Send(message);
  EXPECT_EQ(supervisor.WaitForEnd(0).code(), 0);
  EXPECT_TRUE(supervisor.PumpUntil([&] { return supervisor.Log(0) == "got it\n"; })) << supervisor.Log(0);
}

TEST_F(AgentProvisionTest, AnotherRunsAgentNeverTakesAPortThatAScriptHasYetToBind) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  const uint32_t port = Hold(supervisor, 1, {2222}, 24'100, 24'200).at(0);  // where no other test looks
  const std::string go = ground_.path() + "/go";
  agent::ToAgent message = TestSupervisor::Bash(
      0,
      absl::StrCat("while [ ! -e ", go,
                   " ]; do sleep 0.01; done; python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", ",
                   port, ")); s.listen()'"));
  message.mutable_start_task()->set_port(port);
  supervisor.Send(message);
  supervisor.Next(agent::FromAgent::kTaskStarted);
  ASSERT_TRUE(WaitUntil([&] { return BindTo(port, true).get() >= 0; }));  // nobody listens there now

  TestSupervisor other(ground_, "other-run");
  other.Join(1);
  EXPECT_NE(Hold(other, 1, {2222}, port, port + 100).at(0), port);
  WriteFile(go, "");
  EXPECT_EQ(supervisor.WaitForEnd(0).code(), 0);
  // With the task its claim is gone.
  EXPECT_EQ(Hold(other, 1, {2222}, port, port + 100).at(0), port);
}

TEST_F(AgentProvisionTest, APortThatAnotherProgramTookIsReported) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  const std::vector<uint32_t> ports = Hold(supervisor, 2);
  const std::string go = ground_.path() + "/go";
  const auto start = [&](uint32_t task, const std::string& script) {
    agent::ToAgent message = TestSupervisor::Bash(task, script);
    message.mutable_start_task()->set_port(ports[task]);
    supervisor.Send(message);
    supervisor.Next(agent::FromAgent::kTaskStarted);
  };
  start(0, absl::StrCat("while [ ! -e ", go, " ]; do sleep 0.01; done; exit 1"));
  UniqueFd foreign;
  ASSERT_TRUE(WaitUntil([&] { return (foreign = BindTo(ports[0], true)).get() >= 0; }));
  // The second's own child listens on its port while it fails: nobody has taken it.
  start(1,
        absl::StrCat("python3 -c 'import socket, time; s = socket.socket(); s.bind((\"127.0.0.1\", ", ports[1],
                     ")); s.listen(); open(\"", ground_.path(), "/listens\", \"w\"); time.sleep(1000)' & while [ ! -e ",
                     ground_.path(), "/listens ]; do sleep 0.01; done; exit 2"));
  WriteFile(go, "");
  agent::TaskExited end = supervisor.WaitForEnd(0);
  EXPECT_EQ(end.code(), 1);
  EXPECT_TRUE(end.port_taken());
  end = supervisor.WaitForEnd(1);
  EXPECT_EQ(end.code(), 2);
  EXPECT_FALSE(end.port_taken());
  // The whole start is repeated with other ports: the same task again.
  const std::vector<uint32_t> others = Hold(supervisor, 1, {ports[0]});
  agent::ToAgent message = TestSupervisor::Bash(0, "exit 0");
  message.mutable_start_task()->set_port(others.at(0));
  supervisor.Send(message);
  EXPECT_EQ(supervisor.WaitForEnd(0).code(), 0);
}

// A small source tree and the messages that carry it.
struct Source {
  explicit Source(const Playground& ground) : root(ground.path() + "/source") {
    std::filesystem::create_directories(root + "/lib");
    WriteFile(root + "/train.sh", "#!/bin/bash\necho run from $(cat lib/data.txt)\nls\n");
    std::filesystem::permissions(root + "/train.sh", std::filesystem::perms::owner_all);
    WriteFile(root + "/lib/data.txt", std::string("the snapshot"));
    WriteFile(root + "/lib/large", std::string(300'000, 'l'));
    tree = *ReadTree(root);
  }
  agent::ToAgent Offer() const {
    agent::ToAgent message;
    agent::OfferSnapshot& offer = *message.mutable_offer_snapshot();
    offer.set_digest(tree.digest);
    offer.set_files(tree.files);
    offer.set_bytes(tree.bytes);
    return message;
  }
  void SendTo(TestSupervisor& supervisor) const {
    agent::ToAgent message;
    for (const TreeEntry& from : tree.entries) {
      agent::TreeEntry& entry = *message.mutable_tree_entry();
      entry.Clear();
      entry.set_path(from.path);
      entry.set_kind(from.kind == TreeEntry::Kind::kFolder ? agent::TreeEntry::FOLDER : agent::TreeEntry::FILE);
      entry.set_executable(from.executable);
      entry.set_bytes(from.bytes);
      supervisor.Send(message);
      const std::string content = from.kind == TreeEntry::Kind::kFile ? Content(root + "/" + from.path) : "";
      for (size_t at = 0; at < content.size(); at += kMostDataBytes) {
        agent::ToAgent data;
        data.mutable_tree_data()->set_data(content.substr(at, kMostDataBytes));
        supervisor.Send(data);
      }
    }
    message.mutable_tree_end();
    supervisor.Send(message);
  }
  std::string root;
  SourceTree tree;
};

TEST_F(AgentProvisionTest, ASnapshotIsSentOnceAndEachTaskHasATreeOfItsOwn) {
  const Source source(ground_);
  {
    TestSupervisor supervisor(ground_);
    supervisor.Join(1);
    supervisor.StreamFiles();
    supervisor.Send(source.Offer());
    EXPECT_FALSE(supervisor.Next(agent::FromAgent::kSnapshotState).snapshot_state().have());
    source.SendTo(supervisor);
    const agent::SnapshotState state = supervisor.Next(agent::FromAgent::kSnapshotState).snapshot_state();
    EXPECT_TRUE(state.have()) << state.problem();
    for (const uint32_t task : {0u, 1u}) {
      agent::ToAgent message = TestSupervisor::Bash(task, "");
      message.mutable_start_task()->clear_argv();
      message.mutable_start_task()->add_argv("./train.sh");
      message.mutable_start_task()->set_snapshot_digest(source.tree.digest);
      supervisor.Send(message);
    }
    for (const uint32_t task : {0u, 1u}) {
      EXPECT_EQ(supervisor.WaitForEnd(task).code(), 0);
      EXPECT_TRUE(supervisor.PumpUntil([&] {
        return supervisor.Log(task) == "run from the snapshot\nlib\nlogs\noutputs\ntrain.sh\n";
      })) << supervisor.Log(task);
    }
  }
  TestSupervisor other(ground_, "other-run");
  other.Join(1);
  other.Send(source.Offer());
  EXPECT_TRUE(other.Next(agent::FromAgent::kSnapshotState).snapshot_state().have());
}

TEST_F(AgentProvisionTest, AHostileSnapshotWritesNothingOutside) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  const std::string escape = ground_.path() + "/escaped";
  int number = 0;
  for (const std::string& path : {std::string("../../../escaped"), escape, std::string("a/../../../../escaped")}) {
    agent::ToAgent message;
    message.mutable_offer_snapshot()->set_digest(std::string(64, static_cast<char>('a' + number++)));
    message.mutable_offer_snapshot()->set_bytes(100);
    supervisor.Send(message);
    supervisor.Next(agent::FromAgent::kSnapshotState);
    message.mutable_tree_entry()->set_path(path);
    message.mutable_tree_entry()->set_kind(agent::TreeEntry::FILE);
    message.mutable_tree_entry()->set_bytes(4);
    supervisor.Send(message);
    const agent::SnapshotState state = supervisor.Next(agent::FromAgent::kSnapshotState).snapshot_state();
    EXPECT_FALSE(state.have());
    EXPECT_FALSE(state.problem().empty());
    // The rest of the transfer is under way already, and harms nobody.
    message.mutable_tree_data()->set_data("evil");
    supervisor.Send(message);
    message.mutable_tree_end();
    supervisor.Send(message);
  }
  // A digest is a name in a folder.
  agent::ToAgent message;
  message.mutable_offer_snapshot()->set_digest("../../x");
  supervisor.Send(message);
  EXPECT_FALSE(supervisor.Next(agent::FromAgent::kSnapshotState).snapshot_state().problem().empty());
  EXPECT_FALSE(std::filesystem::exists(escape));
  agent::ToAgent ping;
  ping.mutable_ping();
  supervisor.Send(ping);
  supervisor.Next(agent::FromAgent::kPong);
}

TEST_F(AgentProvisionTest, AnEnvironmentIsBuiltOnceAndItsPythonRunsTheTasks) {
  TestSupervisor supervisor(ground_);
  supervisor.Join(1);
  supervisor.StreamFiles();
  agent::ToAgent message;
  EnvironmentSpec spec;
  message.mutable_prepare_environment()->set_spec(EnvironmentSpecToText(spec));
  supervisor.Send(message);
  agent::EnvironmentReady ready = supervisor.Next(agent::FromAgent::kEnvironmentReady).environment_ready();
  EXPECT_EQ(ready.problem() + ready.prefix(), "");  // nothing to install: nothing is built
  spec.kind = EnvironmentSpec::Kind::kPip;
  message.mutable_prepare_environment()->set_spec(EnvironmentSpecToText(spec));
  supervisor.Send(message);
  ready = supervisor.Next(agent::FromAgent::kEnvironmentReady).environment_ready();
  ASSERT_EQ(ready.problem(), "");
  EXPECT_TRUE(absl::StartsWith(ready.prefix(), ground_.base() + "/environments/")) << ready.prefix();
  EXPECT_TRUE(supervisor.PumpUntil([&] { return !supervisor.Stream(agent::AGENT, 0, "environment-0.txt").empty(); }));
  agent::ToAgent task = TestSupervisor::Bash(0, "");
  task.mutable_start_task()->clear_argv();
  for (const char* word : {"{python}", "-c", "import sys; print(sys.prefix)"})
    task.mutable_start_task()->add_argv(word);
  supervisor.Send(task);
  EXPECT_EQ(supervisor.WaitForEnd(0).code(), 0);
  EXPECT_TRUE(supervisor.PumpUntil([&] { return supervisor.Log(0) == ready.prefix() + "\n"; })) << supervisor.Log(0);
}

TEST_F(AgentProvisionTest, AnEnvironmentThatCannotBeBuiltIsToldWithTheProblem) {
  // No conda of any kind on this PATH.
  TestSupervisor supervisor(ground_, "run", {"PATH=/usr/bin:/bin"});
  supervisor.Join(1);
  agent::ToAgent message;
  EnvironmentSpec spec;
  spec.kind = EnvironmentSpec::Kind::kConda;
  spec.conda_file = "dependencies:\n- python\n";
  message.mutable_prepare_environment()->set_spec(EnvironmentSpecToText(spec));
  supervisor.Send(message);
  const std::string problem = supervisor.Next(agent::FromAgent::kEnvironmentReady).environment_ready().problem();
  EXPECT_TRUE(
      absl::StrContains(problem, "could not be built, see logs/environment-0.txt: conda packages need micromamba"))
      << problem;
  EXPECT_TRUE(absl::EndsWith(problem, "use pip_packages")) << problem;
  EXPECT_EQ(problem.find('\n'), std::string::npos) << problem;
}

TEST_F(AgentProvisionTest, AFullDiskIsNamed) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to mount a small disk";
  std::filesystem::create_directories(ground_.base());
  const std::string mount = absl::StrCat("mount -t tmpfs -o size=1m,mode=0700 none ", ground_.base());
  if (system(mount.c_str()) != 0) GTEST_SKIP() << "nothing can be mounted here";
  const absl::Cleanup unmount = [&] {
    [[maybe_unused]] int code = system(absl::StrCat("umount -l ", ground_.base()).c_str());
  };
  {
    TestSupervisor supervisor(ground_);
    supervisor.Join(1);
    supervisor.Send(TestSupervisor::Bash(0, "head -c 3000000 /dev/zero"));
    agent::TaskExited end = supervisor.WaitForEnd(0);
    EXPECT_NE(end.code(), 0);
    EXPECT_TRUE(absl::StrContains(end.problem(), "is full")) << end.problem();
    // There is no room for another one's tree either.
    supervisor.Send(TestSupervisor::Bash(1, "true"));
    end = supervisor.WaitForEnd(1);
    EXPECT_TRUE(end.code() == 0 || absl::StrContains(end.problem(), "is full")) << end.problem();
    agent::ToAgent message;
    message.mutable_bye();
    supervisor.Send(message);
    supervisor.Next(agent::FromAgent::kGoodbye);
    EXPECT_FALSE(supervisor.PumpUntil([] { return false; }));
  }
}

}  // namespace
}  // namespace basin::testing
