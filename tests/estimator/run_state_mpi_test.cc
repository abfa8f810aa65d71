// Runs with mpi: ranks 0 and 1 on node n0, 2 and 3 on n1, mpirun (task 4) on n0, its daemon (task 5) on n1.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "estimator/job/mpi_command.h"
#include "tests/estimator/run_story.h"

namespace basin {
namespace {

constexpr TaskExit kLostDaemon = {kLostDaemonCode, 0};

std::vector<RunTask> Ranks() {
  std::vector<RunTask> tasks;
  for (uint32_t rank = 0; rank < 4; ++rank) tasks.push_back({{Role::kWorker, rank}, rank / 2});
  tasks.push_back({{Role::kMpirun, 0}, 0});
  tasks.push_back({{Role::kOrted, 1}, 1});
  return tasks;
}

class RunStateMpiTest : public testing::Test {
 protected:
  void StartAll() {
    state_.OnBegin(run_.now);
    for (size_t i = 0; i < 2; ++i) run_.Connect(i);
    for (size_t i = 0; i < 2; ++i) run_.Done(i);
    for (size_t i = 0; i < 2; ++i) run_.Done(i);
    EXPECT_EQ(Text(state_.OnPlanned(run_.now)), "start0 start1 start2 start3 start4");
    EXPECT_EQ(Text(state_.OnDaemonWanted(5, run_.now)), "start5");
    for (size_t i = 0; i < 6; ++i) state_.OnStarted(i, run_.now);
    EXPECT_EQ(state_.phase(), RunPhase::kRunning);
  }
  // All that is left ends as it was told.
  void EndRest(const std::vector<size_t>& tasks) {
    for (const size_t task : tasks) run_.End(task, {0, 9});
  }

  Story run_{Ranks(), 2, {false, false, false, true}, Limits()};
  RunState& state_ = run_.state;
};

TEST_F(RunStateMpiTest, MpirunIsLookedForBeforeThePlan) {
  state_.OnBegin(run_.now);
  EXPECT_EQ(run_.Connect(0), "mpi0");
  EXPECT_EQ(run_.Connect(1), "mpi1");
  EXPECT_EQ(run_.Done(0), "ports0");
  EXPECT_EQ(run_.Done(1), "ports1");
  run_.Done(0);
  EXPECT_EQ(run_.Done(1), "plan");
}

TEST_F(RunStateMpiTest, DaemonIsStartedOnceWhenMpirunWantsIt) {
  StartAll();
  EXPECT_EQ(Text(state_.OnDaemonWanted(5, run_.now)), "");  // told anew on a new connection
}

TEST_F(RunStateMpiTest, CompletesWhenRanksAndThenWhatStartedThemHaveEnded) {
  StartAll();
  for (const size_t rank : {3, 0, 1}) EXPECT_EQ(run_.End(rank, kGood), "");
  EXPECT_EQ(state_.phase(), RunPhase::kRunning);
  EXPECT_EQ(run_.End(2, kGood), "");
  EXPECT_EQ(state_.phase(), RunPhase::kFinalizing);
  EXPECT_EQ(run_.End(4, kGood), "");
  EXPECT_EQ(run_.End(5, kGood), "collect0 collect1");
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
}

TEST_F(RunStateMpiTest, WhatMpirunSaysAfterTheRanksChangesNothing) {
  StartAll();
  for (size_t rank = 0; rank < 4; ++rank) run_.End(rank, kGood);
  EXPECT_EQ(run_.End(4, {1, 0}), "");
  EXPECT_EQ(run_.Later(absl::Seconds(10)), "kill5");
  EXPECT_EQ(run_.End(5, kCrash), "collect0 collect1");
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kCompleted);
}

TEST_F(RunStateMpiTest, FailingRankIsNamedWithItsHostAndTheDaemonsGoLast) {
  StartAll();
  EXPECT_EQ(Text(state_.OnExited(3, {3, 0}, run_.now)), "term0 term1 term2 term3");
  EXPECT_EQ(state_.reason(), "worker 3 exited with code 3 on n1");
  EXPECT_EQ(state_.failed_task(), 3u);
  state_.OnGone(3, run_.now);
  EXPECT_EQ(run_.End(0, {0, 15}), "");
  EXPECT_EQ(run_.End(1, {0, 15}), "");
  EXPECT_EQ(run_.End(2, {0, 15}), "kill4 kill5");
  EndRest({4});
  EXPECT_EQ(run_.End(5, kCrash), "collect0 collect1");
}

TEST_F(RunStateMpiTest, KilledDaemonIsTheCauseThoughItsRanksTellFirst) {
  StartAll();
  EXPECT_EQ(run_.End(2, kLostDaemon), "");
  EXPECT_EQ(run_.End(3, kLostDaemon), "");
  EXPECT_EQ(state_.phase(), RunPhase::kRunning);
  EXPECT_EQ(Text(state_.OnExited(5, kCrash, run_.now)), "term0 term1");
  EXPECT_EQ(state_.reason(), "orted 1 was ended by SIGKILL on n1");
}

TEST_F(RunStateMpiTest, RankThatAbortsIsTheCauseThoughMpirunTellsFirst) {
  StartAll();
  EXPECT_EQ(run_.End(4, {5, 0}), "");
  EXPECT_EQ(run_.End(0, kLostDaemon), "");
  EXPECT_EQ(Text(state_.OnExited(2, {5, 0}, run_.now)), "term1 term2 term3");
  EXPECT_EQ(state_.reason(), "worker 2 exited with code 5 on n1");
}

TEST_F(RunStateMpiTest, WithoutAnotherCauseWhatStartedTheRanksIsIt) {
  StartAll();
  EXPECT_EQ(run_.End(0, kLostDaemon), "");
  EXPECT_EQ(run_.End(4, {1, 0}), "");
  EXPECT_EQ(state_.NextDeadline(), run_.now + absl::Seconds(2));
  EXPECT_EQ(run_.Later(absl::Seconds(2)), "term1 term2 term3");
  EXPECT_EQ(state_.reason(), "mpirun exited with code 1 on n0");
}

TEST_F(RunStateMpiTest, RankThatLostADaemonNobodyTellsOfFailsTheRunAtLast) {
  StartAll();
  EXPECT_EQ(run_.End(1, kLostDaemon), "");
  run_.Later(absl::Seconds(2));
  EXPECT_EQ(state_.reason(), "worker 1 exited with code 195 on n0");
}

TEST_F(RunStateMpiTest, WhereNothingIsLeftTheCauseIsNamedAtOnce) {
  StartAll();
  EXPECT_EQ(run_.End(4, {137, 0}), "");
  for (const size_t task : {0, 1, 2, 3}) EXPECT_EQ(run_.End(task, kLostDaemon), "");
  EXPECT_EQ(run_.End(5, kGood), "collect0 collect1");
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kFailed);
  EXPECT_EQ(state_.reason(), "mpirun exited with code 137 on n0");
}

TEST_F(RunStateMpiTest, CancelStopsTheRanksAndThenTheDaemons) {
  StartAll();
  EXPECT_EQ(Text(state_.OnCancel(run_.now, "enough")), "term0 term1 term2 term3");
  EXPECT_EQ(run_.Later(absl::Seconds(5)), "kill0 kill1 kill2 kill3 kill4 kill5");
  EndRest({0, 1, 2, 3, 4});
  EXPECT_EQ(run_.End(5, kCrash), "collect0 collect1");
  run_.LeaveAll();
  EXPECT_EQ(state_.phase(), RunPhase::kCanceled);
}

TEST_F(RunStateMpiTest, DaemonThatIsWantedTooLateIsNotStarted) {
  state_.OnBegin(run_.now);
  for (size_t i = 0; i < 2; ++i) run_.Connect(i);
  for (size_t i = 0; i < 2; ++i) run_.Done(i);
  for (size_t i = 0; i < 2; ++i) run_.Done(i);
  state_.OnPlanned(run_.now);
  state_.OnCancel(run_.now, "enough");
  EXPECT_EQ(Text(state_.OnDaemonWanted(5, run_.now)), "");
}

}  // namespace
}  // namespace basin
