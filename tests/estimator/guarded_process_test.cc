// Processes under a guard. This program is its own guard, as `basin` is: see main.
#include "estimator/agent/guarded_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/agent/environment_preparation.h"
#include "estimator/agent/guard.h"
#include "estimator/commands/commands.h"
#include "estimator/environment/environment_spec.h"

namespace basin {
namespace {

// The exit code of the process, once nothing of it is left.
int EndOf(GuardedProcess* process) {
  int code = -1;
  while (process->status_fd() >= 0) {
    pollfd wait = {process->status_fd(), POLLIN, 0};
    poll(&wait, 1, -1);
    for (const GuardedEvent& event : process->Read()) {
      if (event.kind == GuardedEvent::kExited) code = event.signal != 0 ? 128 + event.signal : event.code;
    }
  }
  return code;
}

// Where a held port's descriptor lies is chance: also where the guard's own pipes go, and where it goes itself.
TEST(GuardedProcessTest, AListenerIsHandedOverWhereverItsDescriptorLies) {
  const std::string log = absl::StrCat(testing::TempDir(), "/guarded_process_test_", getpid(), ".txt");
  for (const int at : {kGuardLifelineFd, kGuardStatusFd, kPassedListenerFd, 10, 16, 40}) {
    const int taken = fcntl(at, F_GETFD) >= 0 ? fcntl(at, F_DUPFD_CLOEXEC, 100) : -1;
    const int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(listen(made, 1), 0) << std::strerror(errno);
    if (made != at) {
      ASSERT_EQ(dup3(made, at, O_CLOEXEC), at) << std::strerror(errno);
      close(made);
    }
    GuardedCommand command;
    command.argv = {"/bin/sh", "-c", "test -S /proc/self/fd/5 || { ls -l /proc/self/fd; exit 3; }"};
    command.environment = {"PATH=/usr/bin:/bin"};
    command.folder = testing::TempDir();
    command.log_path = log;
    command.listener = at;
    command.grace = absl::Seconds(1);
    absl::StatusOr<GuardedProcess> process = GuardedProcess::Start(command);
    ASSERT_TRUE(process.ok()) << process.status();
    EXPECT_EQ(EndOf(&*process), 0) << "descriptor " << at << "\n" << ReadFile(log).value_or("");
    close(at);
    if (taken >= 0) {
      dup3(taken, at, O_CLOEXEC);
      close(taken);
    }
  }
  unlink(log.c_str());
}

// Of a build that `script` stands in for. $6 is where the result goes.
agent::EnvironmentReady Built(const std::string& script) {
  std::string base = absl::StrCat(testing::TempDir(), "/guarded_process_test_XXXXXX");
  EXPECT_NE(mkdtemp(base.data()), nullptr);
  const std::string program = base + "/basin";
  EXPECT_TRUE(WriteFileAtomically(program, absl::StrCat("#!/bin/sh\nshift\n", script, "\n"), 0700).ok());
  const NodeFolder folder = MakeNodeFolder(base, "run", 0).value();
  EXPECT_TRUE(MakeFolderIn(folder, "logs").ok());
  EnvironmentPreparation preparation(folder, {base, "", ""}, {{"PATH", "/usr/bin:/bin"}}, absl::Seconds(1));
  EnvironmentSpec spec;
  spec.kind = EnvironmentSpec::Kind::kPip;
  agent::PrepareEnvironment request;
  request.set_spec(EnvironmentSpecToText(spec));
  std::optional<agent::EnvironmentReady> ready = preparation.Prepare(request);
  while (!ready) {
    pollfd wait = {preparation.status_fd(), POLLIN, 0};
    poll(&wait, 1, -1);
    ready = preparation.Poll();
  }
  std::filesystem::remove_all(base);
  return *ready;
}

TEST(EnvironmentPreparationTest, AResultHoldsHoweverItsWriterEnds) {
  constexpr char kResult[] = R"(echo '{"prefix": "/e/1", "python": "/e/1/bin/python"}' >"$6"; )";
  for (const char* end : {"exit 0", "exit 1", "kill -9 $$"}) {
    const agent::EnvironmentReady ready = Built(absl::StrCat(kResult, end));
    EXPECT_EQ(ready.problem(), "") << end;
    EXPECT_EQ(ready.prefix(), "/e/1") << end;
  }
}

TEST(EnvironmentPreparationTest, WithoutAResultTheEndOfTheBuildIsTold) {
  std::string problem = Built("kill -9 $$").problem();
  EXPECT_NE(problem.find("ended by signal 9"), std::string::npos) << problem;
  problem = Built("echo no room left; exit 3").problem();
  EXPECT_NE(problem.find("exit code 3"), std::string::npos) << problem;
  EXPECT_NE(problem.find("no room left"), std::string::npos) << problem;
}

}  // namespace
}  // namespace basin

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "guard") == 0) return basin::GuardCommand({argv + 2, argv + argc});
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
