#include "estimator/run_state.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace basin {
namespace {

constexpr TaskExit kGood = {0, 0};
constexpr TaskExit kCrash = {0, 9};

std::string Text(const std::vector<RunAction>& actions) {
  const char* names[] = {"start", "term", "kill", "finish"};
  std::string text;
  for (const RunAction& action : actions) {
    absl::StrAppend(&text, text.empty() ? "" : " ", names[action.kind]);
    if (action.kind != RunAction::kFinish) absl::StrAppend(&text, action.task);
  }
  return text;
}

// A run of ps 0 (task 0), worker 0 (1), worker 1 (2), evaluator 0 (3), on a clock of its own.
class RunStateTest : public testing::Test {
 protected:
  RunStateTest() : RunStateTest(RunLimits{}) {}
  explicit RunStateTest(const RunLimits& limits)
      : state_({{Role::kPs, 0}, {Role::kWorker, 0}, {Role::kWorker, 1}, {Role::kEvaluator, 0}}, limits) {}

  void StartAll() {
    EXPECT_EQ(Text(state_.OnBegin(now_)), "start0 start1 start2 start3");
    EXPECT_EQ(state_.phase(), RunPhase::kPreparing);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(Text(state_.OnStarted(i, now_)), "");
    EXPECT_EQ(state_.phase(), RunPhase::kRunning);
  }
  // The task ends and nothing of it is left.
  std::string End(size_t task, TaskExit exit) {
    const std::string first = Text(state_.OnExited(task, exit, now_));
    const std::string second = Text(state_.OnGone(task, now_));
    return first.empty() || second.empty() ? first + second : first + " " + second;
  }
  std::string Later(absl::Duration duration) {
    now_ += duration;
    return Text(state_.OnTime(now_));
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  RunState state_;
};

TEST_F(RunStateTest, CompletesWhenAllWorkersAndThenTheOthersHaveEnded) {
  StartAll();
  EXPECT_EQ(End(1, kGood), "");
  EXPECT_EQ(state_.phase(), RunPhase::kRunning);
  EXPECT_EQ(End(2, kGood), "");
  EXPECT_EQ(state_.phase(), RunPhase::kFinalizing);
  EXPECT_EQ(End(3, kGood), "");
  EXPECT_EQ(End(0, kGood), "finish");
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
  EXPECT_EQ(state_.exit_code(), 0);
}

TEST_F(RunStateTest, PsThatStaysIsStoppedAndTheRunIsComplete) {
  StartAll();
  End(1, kGood);
  End(2, kGood);
  End(3, kGood);
  EXPECT_EQ(state_.NextDeadline(), now_ + absl::Seconds(10));
  EXPECT_EQ(Later(absl::Seconds(9)), "");
  EXPECT_TRUE(absl::StrContains(Later(absl::Seconds(1)), "term0"));
  EXPECT_EQ(End(0, {0, 15}), "finish");
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
}

TEST_F(RunStateTest, PsWaitsForTheEvaluatorWhichHasAMinute) {
  StartAll();
  End(1, kGood);
  End(2, kGood);
  EXPECT_EQ(Later(absl::Seconds(59)), "");
  EXPECT_EQ(Later(absl::Seconds(1)), "term3");
  EXPECT_EQ(End(3, {0, 15}), "");
  EXPECT_EQ(End(0, kGood), "finish");
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
}

TEST_F(RunStateTest, PsThatIgnoresSigtermIsKilledAfterTheGrace) {
  StartAll();
  for (size_t i = 1; i < 4; ++i) End(i, kGood);
  Later(absl::Seconds(10));
  EXPECT_EQ(Later(absl::Seconds(4)), "");
  EXPECT_EQ(Later(absl::Seconds(1)), "kill0");
  EXPECT_EQ(End(0, kCrash), "finish");
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
}

TEST_F(RunStateTest, ADeadTaskFailsTheRunAndStopsTheOthers) {
  StartAll();
  EXPECT_EQ(End(2, kCrash), "term0 term1 term2 term3");
  EXPECT_EQ(state_.failed_task(), 2u);
  EXPECT_EQ(state_.reason(), "worker 1 was ended by SIGKILL");
  EXPECT_EQ(End(0, {0, 15}), "");
  EXPECT_EQ(End(1, {1, 0}), "");
  EXPECT_EQ(Later(absl::Seconds(5)), "kill3");
  EXPECT_EQ(End(3, kCrash), "finish");
  EXPECT_EQ(state_.phase(), RunPhase::kFailed);
  EXPECT_EQ(state_.failed_task(), 2u);
  EXPECT_EQ(state_.exit_code(), 1);
}

TEST_F(RunStateTest, WrongInputOfATaskIsWrongInputOfTheRun) {
  StartAll();
  End(1, {2, 0});
  End(0, {0, 15});
  End(2, {0, 15});
  End(3, {0, 15});
  EXPECT_EQ(state_.phase(), RunPhase::kFailed);
  EXPECT_EQ(state_.exit_code(), 2);
}

TEST_F(RunStateTest, ATaskWhoseGuardWasKilledIsLost) {
  StartAll();
  EXPECT_TRUE(absl::StrContains(Text(state_.OnGone(1, now_)), "term0"));
  EXPECT_TRUE(absl::StrContains(state_.reason(), "worker 0 was lost"));
}

TEST_F(RunStateTest, CancelStopsAllAndTheSecondKills) {
  StartAll();
  EXPECT_EQ(Text(state_.OnCancel(now_, "Ctrl-C")), "term0 term1 term2 term3");
  EXPECT_EQ(state_.phase(), RunPhase::kCancelRequested);
  EXPECT_EQ(End(0, {0, 15}), "");
  EXPECT_EQ(Text(state_.OnCancel(now_, "Ctrl-C")), "kill1 kill2 kill3");
  for (size_t i = 1; i < 4; ++i) End(i, kCrash);
  EXPECT_EQ(state_.phase(), RunPhase::kCanceled);
  EXPECT_EQ(state_.exit_code(), 1);
  EXPECT_EQ(state_.reason(), "Ctrl-C");
}

TEST_F(RunStateTest, CancelKillsAfterTheGrace) {
  StartAll();
  state_.OnCancel(now_, "Ctrl-C");
  EXPECT_EQ(Later(absl::Seconds(5)), "kill0 kill1 kill2 kill3");
}

TEST_F(RunStateTest, LateFailureDoesNotTurnACancelIntoAFailure) {
  StartAll();
  state_.OnCancel(now_, "Ctrl-C");
  for (size_t i = 0; i < 4; ++i) End(i, {1, 0});
  EXPECT_EQ(state_.phase(), RunPhase::kCanceled);
}

class TimeLimitTest : public RunStateTest {
 protected:
  TimeLimitTest()
      : RunStateTest([] {
          RunLimits limits;
          limits.max_duration = absl::Seconds(100);
          return limits;
        }()) {}
};

TEST_F(TimeLimitTest, MaxRunDurationCancels) {
  StartAll();
  EXPECT_EQ(state_.NextDeadline(), now_ + absl::Seconds(100));
  EXPECT_EQ(Later(absl::Seconds(100)), "term0 term1 term2 term3");
  EXPECT_EQ(state_.phase(), RunPhase::kCancelRequested);
  EXPECT_TRUE(absl::StrContains(state_.reason(), "max_run_duration_seconds (100)"));
}

TEST(RunStateWithChiefTest, TheChiefsEndIsTheEndOfTraining) {
  const absl::Time now = absl::UnixEpoch();
  RunState state({{Role::kPs, 0}, {Role::kChief, 0}, {Role::kWorker, 0}}, {});
  state.OnBegin(now);
  for (size_t i = 0; i < 3; ++i) state.OnStarted(i, now);
  EXPECT_EQ(Text(state.OnExited(2, kGood, now)), "");
  EXPECT_EQ(state.phase(), RunPhase::kRunning);
  EXPECT_EQ(Text(state.OnExited(1, kGood, now)), "");
  EXPECT_EQ(state.phase(), RunPhase::kFinalizing);
}

TEST(RunStateStartTest, ATaskThatCannotBeStartedFailsTheRun) {
  const absl::Time now = absl::UnixEpoch();
  RunState state({{Role::kPs, 0}, {Role::kWorker, 0}}, {});
  state.OnBegin(now);
  EXPECT_EQ(Text(state.OnExited(0, {127, 0}, now)), "term0 term1");
  state.OnGone(0, now);
  EXPECT_EQ(Text(state.OnGone(1, now)), "finish");
  EXPECT_EQ(state.phase(), RunPhase::kFailed);
}

}  // namespace
}  // namespace basin
