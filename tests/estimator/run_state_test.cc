#include "estimator/run/run_state.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/estimator/run_story.h"

namespace basin {
namespace {

class RunStateTest : public testing::Test {
 protected:
  Story run_{FourTasks(), 1, {}, Limits()};
  RunState& state_ = run_.state;
};

TEST_F(RunStateTest, CompletesWhenAllWorkersAndThenTheOthersHaveEnded) {
  run_.StartAll();
  EXPECT_EQ(run_.End(1, kGood), "");
  EXPECT_EQ(state_.phase(), RunPhase::kRunning);
  EXPECT_EQ(run_.End(2, kGood), "");
  EXPECT_EQ(state_.phase(), RunPhase::kFinalizing);
  EXPECT_EQ(run_.End(3, kGood), "");
  EXPECT_EQ(run_.End(0, kGood), "collect0");
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
  EXPECT_EQ(state_.exit_code(), 0);
  EXPECT_EQ(run_.Changes(), "Finalizing Completed");
}

TEST_F(RunStateTest, WorkerThatCameAfterTheEndOfTheServersIsNotWaitedFor) {
  run_.StartAll();
  EXPECT_EQ(run_.End(0, kGood), "");
  EXPECT_EQ(state_.phase(), RunPhase::kRunning);  // worker 0 may still write its model
  EXPECT_EQ(run_.End(1, kGood), "");
  EXPECT_EQ(state_.phase(), RunPhase::kFinalizing);
  EXPECT_EQ(run_.Later(absl::Seconds(10)), "term3");
  EXPECT_EQ(run_.Later(absl::Seconds(10)), "term2");
  run_.End(3, {1, 0});
  EXPECT_EQ(run_.End(2, {0, 15}), "collect0");
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
}

TEST(RunStateOfScriptsTest, ParameterServersThatNeverEndAreStoppedAtOnce) {
  Story run({{{Role::kPs, 0}, 0, false}, {{Role::kWorker, 0}, 0}}, 1, {}, Limits());
  run.StartAll();
  EXPECT_EQ(run.End(1, kGood), "term0 term1");  // the second sweeps up what worker 0 left
}

TEST(RunStateOfScriptsTest, WorkersThatServeAreStoppedTenSecondsAfterTheChief) {
  Story run({{{Role::kPs, 0}, 0, false}, {{Role::kChief, 0}, 0}, {{Role::kWorker, 0}, 0}}, 1, {}, Limits());
  run.StartAll();
  EXPECT_EQ(run.End(1, kGood), "");
  EXPECT_EQ(run.state.phase(), RunPhase::kFinalizing);
  EXPECT_EQ(run.Later(absl::Seconds(9)), "");
  EXPECT_EQ(run.Later(absl::Seconds(1)), "term0 term2");
  run.End(0, {0, 15});
  EXPECT_EQ(run.End(2, {0, 15}), "collect0");
  run.LeaveAll();
  EXPECT_EQ(run.state.phase(), RunPhase::kCompleted);
}

TEST(RunStateOfScriptsTest, ServersThatEndBadlyOnceTheChiefIsDoneDoNotFailTheRun) {
  Story run({{{Role::kPs, 0}, 0, false}, {{Role::kChief, 0}, 0}, {{Role::kWorker, 0}, 0}}, 1, {}, Limits());
  run.StartAll();
  run.End(1, kGood);
  run.End(2, {1, 0});  // its chief is gone
  EXPECT_EQ(run.End(0, kCrash), "collect0");
  run.LeaveAll();
  EXPECT_EQ(run.state.phase(), RunPhase::kCompleted);
}

TEST(RunStateOfScriptsTest, ServersThatEndBadlyBeforeTheChiefIsDoneFailTheRun) {
  for (const size_t task : {0, 2}) {
    Story run({{{Role::kPs, 0}, 0, false}, {{Role::kChief, 0}, 0}, {{Role::kWorker, 0}, 0}}, 1, {}, Limits());
    run.StartAll();
    run.End(task, kCrash);
    EXPECT_EQ(run.state.failed_task(), std::optional<size_t>(task));
  }
}

TEST(RunStateWithChiefTest, WorkerOfBasinPsThatEndsBadlyAfterTheChiefFailsTheRun) {
  Story run({{{Role::kPs, 0}, 0}, {{Role::kChief, 0}, 0}, {{Role::kWorker, 0}, 0}}, 1, {}, Limits());
  run.StartAll();
  run.End(1, kGood);
  run.End(2, {1, 0});
  EXPECT_EQ(run.state.failed_task(), std::optional<size_t>(2));
}

// As where workers are scripts that never speak to it.
TEST_F(RunStateTest, PsThatStaysThoughNobodyIsLeftIsStoppedSoonAndTheRunIsComplete) {
  run_.StartAll();
  for (const size_t task : {1, 2, 3}) run_.End(task, kGood);
  EXPECT_EQ(state_.NextDeadline(), run_.now + absl::Seconds(1));
  EXPECT_EQ(run_.Later(absl::Milliseconds(999)), "");
  EXPECT_EQ(run_.Later(absl::Milliseconds(1)), "term0");
  EXPECT_EQ(run_.End(0, {0, 15}), "collect0");
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
}

TEST_F(RunStateTest, PsHasTenSecondsWhileSomethingOfAWorkerIsLeftThatMayUseIt) {
  run_.StartAll();
  for (const size_t task : {1, 3}) run_.End(task, kGood);
  state_.OnExited(2, kGood, run_.now);  // what it had started goes on
  EXPECT_EQ(run_.Later(absl::Seconds(3)), "");
  EXPECT_EQ(Text(state_.OnGone(2, run_.now)), "");
  EXPECT_EQ(run_.Later(absl::Milliseconds(999)), "");
  EXPECT_EQ(run_.Later(absl::Milliseconds(1)), "term0");
}

TEST_F(RunStateTest, PsIsStoppedAfterTenSecondsAlsoWhileSomethingOfAWorkerIsLeft) {
  run_.StartAll();
  for (const size_t task : {1, 3}) run_.End(task, kGood);
  state_.OnExited(2, kGood, run_.now);
  EXPECT_EQ(run_.Later(absl::Milliseconds(9'999)), "");
  EXPECT_EQ(run_.Later(absl::Milliseconds(1)), "term0 term2");
}

TEST_F(RunStateTest, PsWaitsForTheEvaluatorWhichHasAMinute) {
  run_.StartAll();
  run_.End(1, kGood);
  run_.End(2, kGood);
  EXPECT_EQ(run_.Later(absl::Seconds(59)), "");
  EXPECT_EQ(run_.Later(absl::Seconds(1)), "term3");
  EXPECT_EQ(run_.Later(absl::Seconds(9)), "");
  EXPECT_EQ(run_.Later(absl::Seconds(1)), "term0");
  EXPECT_EQ(run_.Later(absl::Seconds(5)), "kill0 kill3");
}

TEST_F(RunStateTest, ATaskThatFailsStopsTheOthersAndIsTheCause) {
  run_.StartAll();
  EXPECT_EQ(Text(state_.OnExited(2, {3, 0}, run_.now)), "term0 term1 term2 term3");
  EXPECT_EQ(state_.reason(), "worker 1 exited with code 3");
  EXPECT_EQ(state_.failed_task(), std::optional<size_t>(2));
  run_.End(1, kCrash);
  EXPECT_EQ(state_.reason(), "worker 1 exited with code 3");
  EXPECT_EQ(run_.Later(absl::Seconds(5)), "kill0 kill2 kill3");
  state_.OnGone(2, run_.now);
  run_.End(0, {0, 9});
  EXPECT_EQ(run_.End(3, {0, 9}), "collect0");
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kFailed);
  EXPECT_EQ(state_.exit_code(), 1);
}

TEST_F(RunStateTest, WrongInputOfATaskIsWrongInputOfTheRun) {
  run_.StartAll();
  run_.End(1, {2, 0});
  for (const size_t task : {0, 2, 3}) run_.End(task, {0, 15});
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kFailed);
  EXPECT_EQ(state_.exit_code(), 2);
}

TEST_F(RunStateTest, ATaskWhoseGuardWasKilledIsLost) {
  run_.StartAll();
  EXPECT_TRUE(absl::StrContains(Text(state_.OnGone(1, run_.now)), "term0"));
  EXPECT_TRUE(absl::StrContains(state_.reason(), "worker 0 was lost"));
}

TEST_F(RunStateTest, ATaskThatCannotBeStartedFailsTheRunWithItsReason) {
  state_.OnBegin(run_.now);
  run_.Connect(0);
  run_.Done(0);
  state_.OnPlanned(run_.now);
  EXPECT_EQ(Text(state_.OnExited(0, {127, 0}, run_.now, "no such file")), "term0 term1 term2 term3");
  EXPECT_EQ(state_.reason(), "ps 0 could not be started: no such file");
}

TEST_F(RunStateTest, CancelStopsAllAndTheSecondKills) {
  run_.StartAll();
  EXPECT_EQ(Text(state_.OnCancel(run_.now, "Ctrl-C")), "term0 term1 term2 term3");
  EXPECT_EQ(state_.phase(), RunPhase::kCancelRequested);
  EXPECT_EQ(run_.End(0, {0, 15}), "");
  EXPECT_EQ(Text(state_.OnCancel(run_.now, "Ctrl-C")), "kill1 kill2 kill3");
  for (size_t i = 1; i < 4; ++i) run_.End(i, kCrash);
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kCanceled);
  EXPECT_EQ(state_.exit_code(), 1);
  EXPECT_EQ(state_.reason(), "Ctrl-C");
  EXPECT_EQ(run_.Changes(), "CancelRequested Canceled");
}

TEST_F(RunStateTest, CancelKillsAfterTheGrace) {
  run_.StartAll();
  state_.OnCancel(run_.now, "Ctrl-C");
  EXPECT_EQ(run_.Later(absl::Seconds(5)), "kill0 kill1 kill2 kill3");
}

TEST_F(RunStateTest, LateFailureDoesNotTurnACancelIntoAFailure) {
  run_.StartAll();
  state_.OnCancel(run_.now, "Ctrl-C");
  for (size_t i = 0; i < 4; ++i) run_.End(i, {1, 0});
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kCanceled);
}

TEST_F(RunStateTest, CancelWhileOutputsComeInLeavesThemAndTheOutcome) {
  run_.StartAll();
  for (const size_t task : {1, 2, 3, 0}) run_.End(task, kGood);
  EXPECT_EQ(Text(state_.OnCancel(run_.now, "Ctrl-C")), "bye0");
  EXPECT_EQ(Text(state_.OnGoodbye(0, run_.now)), "finish");
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
}

TEST_F(RunStateTest, ANodeThatDoesNotSayGoodbyeIsLeftAfterTenSeconds) {
  run_.StartAll();
  for (const size_t task : {1, 2, 3, 0}) run_.End(task, kGood);
  state_.OnCollected(0, run_.now);
  EXPECT_EQ(run_.Later(absl::Seconds(9)), "");
  EXPECT_EQ(run_.Later(absl::Seconds(1)), "drop0 finish");
}

TEST(RunStateTimeLimitTest, MaxRunDurationCancelsAndCountsFromTheStartOfTheTasks) {
  RunLimits limits = Limits();
  limits.max_duration = absl::Seconds(100);
  Story run(FourTasks(), 1, {}, limits);
  run.StartAll();
  EXPECT_EQ(run.state.NextDeadline(), run.now + absl::Seconds(100));
  EXPECT_EQ(run.Later(absl::Seconds(100)), "term0 term1 term2 term3");
  EXPECT_EQ(run.state.phase(), RunPhase::kCancelRequested);
  EXPECT_TRUE(absl::StrContains(run.state.reason(), "max_run_duration_seconds (100)"));
}

TEST(RunStateWithChiefTest, TheChiefsEndIsTheEndOfTraining) {
  Story run({{{Role::kPs, 0}, 0}, {{Role::kChief, 0}, 0}, {{Role::kWorker, 0}, 0}}, 1, {}, Limits());
  run.StartAll();
  EXPECT_EQ(Text(run.state.OnExited(2, kGood, run.now)), "");
  EXPECT_EQ(run.state.phase(), RunPhase::kRunning);
  EXPECT_EQ(Text(run.state.OnExited(1, kGood, run.now)), "");
  EXPECT_EQ(run.state.phase(), RunPhase::kFinalizing);
}

TEST(RunStatePreparationTest, EachNodeGoesItsStepsAndThePhaseFollowsTheSlowest) {
  Story run(OnTwoNodes(), 2, {true, true, true}, Limits());
  EXPECT_EQ(Text(run.state.OnBegin(run.now)), "open0 open1");
  EXPECT_EQ(run.Connect(0), "inputs0");
  EXPECT_EQ(run.Done(0), "offer0");
  EXPECT_EQ(run.state.phase(), RunPhase::kStarting);
  EXPECT_EQ(run.Connect(1), "inputs1");
  EXPECT_EQ(run.state.phase(), RunPhase::kProvisioning);
  EXPECT_EQ(run.Done(0, /*have=*/false), "send0");
  EXPECT_EQ(run.Done(0), "prepare0");
  EXPECT_EQ(run.Done(0), "ports0");
  EXPECT_EQ(run.Done(0), "");
  EXPECT_EQ(run.Done(1), "offer1");
  EXPECT_EQ(run.state.phase(), RunPhase::kProvisioning);
  EXPECT_EQ(run.Done(1, /*have=*/true), "prepare1");
  EXPECT_EQ(run.state.phase(), RunPhase::kPreparing);
  EXPECT_EQ(run.Done(1), "ports1");
  EXPECT_EQ(run.Done(1), "plan");
  EXPECT_EQ(Text(run.state.OnPlanned(run.now)), "start0 start1 start2");
  for (size_t i = 0; i < 3; ++i) run.state.OnStarted(i, run.now);
  EXPECT_EQ(run.Changes(), "Starting Provisioning Preparing Running");
}

TEST(RunStatePreparationTest, AtMostEightConnectionsAreOpenedAtOnce) {
  std::vector<RunTask> tasks;
  for (uint32_t i = 0; i < 10; ++i) tasks.push_back({{Role::kWorker, i}, i});
  Story run(std::move(tasks), 10, {}, Limits());
  EXPECT_EQ(Text(run.state.OnBegin(run.now)), "open0 open1 open2 open3 open4 open5 open6 open7");
  EXPECT_EQ(run.Connect(3), "ports3 open8");
  EXPECT_EQ(run.Connect(0), "ports0 open9");
  EXPECT_EQ(run.Connect(1), "ports1");
}

TEST(RunStatePreparationTest, ProgramsAreSentOnceWhereTheyAreMissing) {
  Story run(OnTwoNodes(), 2, {}, Limits());
  run.state.OnBegin(run.now);
  run.Connect(0);
  EXPECT_EQ(Text(run.state.OnProgramsMissing(1, run.now)), "programs1");
  EXPECT_EQ(run.state.phase(), RunPhase::kProvisioning);
  EXPECT_EQ(Text(run.state.OnProgramsSent(1, run.now)), "open1");
  EXPECT_EQ(Text(run.state.OnProgramsMissing(1, run.now)), "drop1 bye0");
  EXPECT_TRUE(absl::StrContains(run.state.reason(), "node n1: Basin's programs were sent, and are still not found"));
}

TEST(RunStatePreparationTest, ANodeThatCannotBeReachedFailsTheRunBeforeAnyTask) {
  Story run(OnTwoNodes(), 2, {}, Limits());
  run.state.OnBegin(run.now);
  run.Connect(0);
  EXPECT_EQ(Text(run.state.OnLost(1, "Permission denied", run.now)), "bye0");
  EXPECT_EQ(Text(run.state.OnGoodbye(0, run.now)), "finish");
  EXPECT_EQ(run.state.phase(), RunPhase::kFailed);
  EXPECT_EQ(run.state.reason(), "node n1: Permission denied");
  EXPECT_EQ(run.state.exit_code(), 1);
}

TEST(RunStatePreparationTest, ANodeThatDoesNotAnswerWithinAMinuteFailsTheRun) {
  Story run(OnTwoNodes(), 2, {}, Limits());
  run.state.OnBegin(run.now);
  run.Connect(0);
  EXPECT_EQ(run.Later(absl::Seconds(59)), "");
  EXPECT_EQ(run.Later(absl::Seconds(1)), "drop1 bye0");
  EXPECT_TRUE(absl::StrContains(run.state.reason(), "node n1: no answer within 60 s"));
}

TEST(RunStatePreparationTest, AMissingInputIsWrongInput) {
  Story run(OnTwoNodes(), 2, {true, false, false}, Limits());
  run.state.OnBegin(run.now);
  run.Connect(0);
  run.Connect(1);
  EXPECT_EQ(Text(run.state.OnRefused("node n1: inputs: data: not there", true, run.now)), "bye0 bye1");
  EXPECT_EQ(run.Done(0), "");  // the answer of the other comes too late
  run.state.OnGoodbye(0, run.now);
  run.state.OnGoodbye(1, run.now);
  EXPECT_EQ(run.state.phase(), RunPhase::kFailed);
  EXPECT_EQ(run.state.exit_code(), 2);
}

TEST(RunStatePreparationTest, CancelDuringPreparationLeavesTheNodes) {
  Story run(OnTwoNodes(), 2, {false, true, false}, Limits());
  run.state.OnBegin(run.now);
  run.Connect(0);
  EXPECT_EQ(Text(run.state.OnCancel(run.now, "Ctrl-C")), "bye0");
  EXPECT_EQ(Text(run.state.OnGoodbye(0, run.now)), "");
  // The other is just being reached, and must not wait for a first contact that never comes.
  EXPECT_EQ(run.Connect(1), "bye1");
  EXPECT_EQ(Text(run.state.OnGoodbye(1, run.now)), "finish");
  EXPECT_EQ(run.state.phase(), RunPhase::kCanceled);
}

TEST(RunStatePreparationTest, ANodeThatIsNotReachedSoonAfterTheCancelIsDropped) {
  Story run(OnTwoNodes(), 2, {false, true, false}, Limits());
  run.state.OnBegin(run.now);
  run.Connect(0);
  run.state.OnCancel(run.now, "Ctrl-C");
  run.state.OnGoodbye(0, run.now);
  EXPECT_EQ(run.Later(absl::Seconds(9)), "");
  EXPECT_EQ(run.Later(absl::Seconds(1)), "drop1 finish");
}

class RunStatePortTest : public testing::Test {
 protected:
  RunStatePortTest() { run_.StartAll(); }
  // Worker 1 finds its port taken; all others are stopped.
  std::string PortTaken() {
    TaskExit exit = {1, 0};
    exit.port_taken = true;
    const std::string said = Text(run_.state.OnExited(2, exit, run_.now));
    run_.state.OnGone(2, run_.now);
    run_.End(0, {0, 15});
    return said + " / " + run_.End(1, {0, 15});
  }
  Story run_{OnTwoNodes(), 2, {}, Limits()};
};

TEST_F(RunStatePortTest, ATakenPortRepeatsTheWholeStartThreeTimes) {
  for (int retry = 1; retry <= 3; ++retry) {
    EXPECT_EQ(PortTaken(), "term0 term1 term2 / ports0 ports1");
    EXPECT_EQ(run_.state.phase(), RunPhase::kPreparing);
    EXPECT_EQ(run_.state.retries(), retry);
    const std::vector<PhaseChange> changes = run_.state.TakeChanges();
    ASSERT_EQ(changes.size(), 1u);
    EXPECT_TRUE(absl::StrContains(changes[0].reason, absl::StrCat("(", retry, " of 3)"))) << changes[0].reason;
    EXPECT_EQ(run_.Done(0), "");
    EXPECT_EQ(run_.Done(1), "plan");
    EXPECT_EQ(Text(run_.state.OnPlanned(run_.now)), "start0 start1 start2");
    for (size_t i = 0; i < 3; ++i) run_.state.OnStarted(i, run_.now);
    EXPECT_EQ(run_.Changes(), "Running");
  }
  EXPECT_EQ(PortTaken(), "term0 term1 term2 / collect0 collect1");
  EXPECT_TRUE(absl::StrContains(run_.state.reason(), "another process listens on its port"));
}

TEST_F(RunStatePortTest, AfterAMinuteATakenPortFailsTheRun) {
  run_.Later(absl::Seconds(61));
  EXPECT_EQ(PortTaken(), "term0 term1 term2 / collect0 collect1");
  EXPECT_TRUE(run_.state.failed());
}

TEST_F(RunStatePortTest, CancelDuringARepeatedStartCancels) {
  TaskExit exit = {1, 0};
  exit.port_taken = true;
  run_.state.OnExited(2, exit, run_.now);
  run_.state.OnGone(2, run_.now);
  EXPECT_EQ(Text(run_.state.OnCancel(run_.now, "Ctrl-C")), "");
  run_.End(0, {0, 15});
  EXPECT_EQ(run_.End(1, {0, 15}), "collect0 collect1");
  run_.LeaveAll();
  EXPECT_EQ(run_.state.phase(), RunPhase::kCanceled);
}

}  // namespace
}  // namespace basin
