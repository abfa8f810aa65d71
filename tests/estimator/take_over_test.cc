#include "estimator/run/take_over.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "estimator/launch/find_target.h"
#include "estimator/run/detach.h"
#include "estimator/run/interrupts.h"

namespace basin {
namespace {

TEST(InterruptsTest, OnATerminalTheFirstAsksTheSecondCancelsTheThirdKills) {
  Interrupts interrupts;
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(interrupts.OnSignal(true, false, now), Interrupts::kAsk);
  EXPECT_EQ(interrupts.OnSignal(true, false, now + absl::Seconds(4)), Interrupts::kCancel);
  EXPECT_EQ(interrupts.OnSignal(true, true, now + absl::Seconds(9)), Interrupts::kKill);
}

TEST(InterruptsTest, AfterFiveSecondsItAsksAgain) {
  Interrupts interrupts;
  const absl::Time now = absl::UnixEpoch();
  interrupts.OnSignal(true, false, now);
  EXPECT_EQ(interrupts.OnSignal(true, false, now + absl::Seconds(5)), Interrupts::kAsk);
}

TEST(InterruptsTest, AProgramsSignalIsMeant) {
  EXPECT_EQ(Interrupts().OnSignal(false, false, absl::UnixEpoch()), Interrupts::kCancel);
}

std::string SupervisorLine(uint64_t epoch, const std::string& host, const std::string& version = BASIN_VERSION) {
  SupervisorNote note{epoch, host, 77, true, LocalTarget(), version, absl::InfiniteFuture()};
  std::string fields = SupervisorNoteToJson(note);
  return absl::StrCat(R"({"time": "2026-01-01T00:00:00.000Z", "event": "supervisor", )", fields.substr(1), "\n");
}
constexpr char kPlanned[] = R"({"time": "2026-01-01T00:00:05.000Z", "event": "plan", "attempt": 1})"
                            "\n";
constexpr char kRunning[] = R"({"time": "2026-01-01T00:00:06.000Z", "event": "state", "state": "Running"})"
                            "\n";

TEST(SupervisorNoteTest, TheLastSupervisorCountsAndTheTasksHaveBegunWithTheLastPlan) {
  const auto note = ReadSupervisorNote(
      absl::StrCat(SupervisorLine(1, "a"), kPlanned, kRunning, "{\"torn", "\n", SupervisorLine(2, "b")));
  ASSERT_TRUE(note.ok()) << note.status();
  EXPECT_EQ(note->epoch, 2u);
  EXPECT_EQ(note->host, "b");
  EXPECT_EQ(note->pid, 77);
  EXPECT_TRUE(note->detached);
  EXPECT_EQ(note->target.nodes.size(), 1u);
  EXPECT_EQ(absl::FormatTime(note->begun, absl::UTCTimeZone()), "2026-01-01T00:00:05+00:00");
}

TEST(SupervisorNoteTest, ARepeatedStartThatDidNotComeToRunningHasNotBegun) {
  const auto note = ReadSupervisorNote(absl::StrCat(SupervisorLine(1, "a"), kPlanned, kRunning, kPlanned));
  ASSERT_TRUE(note.ok());
  EXPECT_EQ(note->begun, absl::InfiniteFuture());
}

TEST(SupervisorNoteTest, AJournalWithoutASupervisorSaysSo) { EXPECT_FALSE(ReadSupervisorNote(kPlanned).ok()); }

class TakeOverTest : public testing::Test {
 protected:
  TakeOverTest() : folder_(path_) {
    EXPECT_TRUE(folder_.Create().ok());
    const auto job = ParseJob("entry_script: basin:mlp\ndistributed_backend: ps\n", "job.yaml");
    PlanFacts facts;
    facts.run_id = "r1";
    facts.nodes = {{"127.0.0.1", {2222, 2223}, {}, ""}};
    EXPECT_TRUE(folder_.WriteJob(JobToJson(*job)).ok());
    EXPECT_TRUE(folder_.WritePlan(PlanToJson(*MakePlan(*job, facts))).ok());
    record_.run_id = "r1";
    record_.experiment = "e";
    record_.phase = RunPhase::kRunning;
  }
  ~TakeOverTest() override { std::filesystem::remove_all(path_); }
  absl::StatusOr<SupervisedRun> Read(const std::string& host, const std::string& version = BASIN_VERSION) {
    EXPECT_TRUE(folder_.WriteRecord(record_).ok());
    std::ofstream(folder_.JournalPath()) << SupervisorLine(4, host, version) << kPlanned << kRunning;
    SupervisorNote note;
    return ReadRunToTakeOver(folder_, &note);
  }
  const std::string path_ = testing::TempDir() + "/basin_take_over_test_" + std::to_string(getpid()) + "/e/r1";
  RunFolder folder_;
  RunRecord record_;
};

TEST_F(TakeOverTest, ARunOfThisHostIsReadBackWithALargerEpoch) {
  const auto run = Read(ThisHost());
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->epoch, 5u);
  EXPECT_TRUE(run->resumed);
  EXPECT_EQ(run->plan.tasks.size(), 2u);
  EXPECT_NE(run->begun, absl::InfiniteFuture());
}

TEST_F(TakeOverTest, ASupervisorOnAnotherHostIsNamedAndNotReplaced) {
  const auto run = Read("elsewhere");
  ASSERT_FALSE(run.ok());
  EXPECT_TRUE(absl::StrContains(run.status().message(), "supervised on host elsewhere (process 77)")) << run.status();
}

TEST_F(TakeOverTest, ARunOfAnotherVersionIsLeftAlone) {
  const auto run = Read(ThisHost(), "0.0.1");
  ASSERT_FALSE(run.ok());
  EXPECT_TRUE(absl::StrContains(run.status().message(), absl::StrCat("is of Basin 0.0.1, this is ", BASIN_VERSION)))
      << run.status();
}

TEST(DetachTest, AnErrorComesThroughAsOneLineWithItsExitCode) {
  const absl::Status usage = ErrorOfReport(ErrorReport(absl::InvalidArgumentError("no such input")));
  EXPECT_EQ(usage.message(), "no such input");
  EXPECT_EQ(ExitCodeFor(usage), kExitUsage);
  EXPECT_EQ(ExitCodeFor(ErrorOfReport(ErrorReport(absl::DataLossError("torn")))), kExitFailed);
  for (const char* other : {"held", "running", "ended 1", ""}) EXPECT_TRUE(ErrorOfReport(other).ok()) << other;
}

TEST(DetachTest, TheNewProcessOutlivesWhoeverStartedIt) {
  const std::string log = testing::TempDir() + "/basin_detach_test_" + std::to_string(getpid());
  auto forked = ForkToBackground(log);
  ASSERT_TRUE(forked.ok()) << forked.status();
  if (forked->in_background) {
    pollfd gone = {forked->report.get(), 0, 0};
    while ((gone.revents & POLLERR) == 0) poll(&gone, 1, -1);  // the other end is closed
    WriteReport(forked->report, "held");
    [[maybe_unused]] const ssize_t ignored = write(STDERR_FILENO, "goes on\n", 8);
    _exit(0);
  }
  forked->report.Close();
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  while (ReadFile(log, 100).value_or("") != "goes on\n" && absl::Now() < limit) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(ReadFile(log, 100).value_or(""), "goes on\n");
  std::filesystem::remove(log);
}

TEST_F(TakeOverTest, ARunThatIsOverIsNotTakenOver) {
  record_.phase = RunPhase::kCompleted;
  const auto run = Read(ThisHost());
  ASSERT_FALSE(run.ok());
  EXPECT_TRUE(absl::StrContains(run.status().message(), "is over: Completed")) << run.status();
}

}  // namespace
}  // namespace basin
