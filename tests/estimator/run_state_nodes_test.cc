// Nodes that are lost and return, and supervisors that take a run over.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "estimator/run/run_state.h"
#include "tests/estimator/run_story.h"

namespace basin {
namespace {

RunLimits WithLease(absl::Duration detach_grace) {
  RunLimits limits = Limits(detach_grace);
  limits.ping = absl::Seconds(5);
  limits.lease = absl::Seconds(30);
  return limits;
}

TEST(RunStateLostNodeTest, NodesArePingedAndAByteRenewsTheLease) {
  Story run(OnTwoNodes(), 2, {}, WithLease(absl::ZeroDuration()));
  run.StartAll();
  EXPECT_EQ(run.Later(absl::Seconds(5)), "ping0 ping1");
  for (int i = 0; i < 20; ++i) {
    run.state.OnHeard(0, run.now);
    run.state.OnHeard(1, run.now);
    EXPECT_EQ(run.Later(absl::Seconds(5)), "ping0 ping1");
  }
}

TEST(RunStateLostNodeTest, AnAttachedRunFailsWhenTheLeaseIsOver) {
  Story run(OnTwoNodes(), 2, {}, WithLease(absl::ZeroDuration()));
  run.StartAll();
  for (int i = 0; i < 5; ++i) {
    run.Later(absl::Seconds(5));
    run.state.OnHeard(0, run.now);
  }
  EXPECT_EQ(run.Later(absl::Seconds(5)), "ping0 drop1 term0 term1");
  EXPECT_TRUE(
      absl::StrContains(run.state.reason(), "node n1: the connection ended: nothing was heard from it for 30 s"))
      << run.state.reason();
  run.End(0, {0, 15});
  EXPECT_EQ(run.End(1, {0, 15}), "collect0");
}

TEST(RunStateLostNodeTest, ADetachedRunDoesNotRespondUntilTheNodeReturns) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.StartAll();
  EXPECT_EQ(Text(run.state.OnLost(1, "link down", run.now)), "");
  EXPECT_EQ(run.state.phase(), RunPhase::kNotResponding);
  EXPECT_EQ(run.Later(absl::Seconds(1)), "open1");
  EXPECT_EQ(Text(run.state.OnLost(1, "no route to host", run.now)), "");
  EXPECT_EQ(run.Later(absl::Seconds(1)), "");  // the pauses grow
  EXPECT_EQ(run.Later(absl::Seconds(1)), "open1");
  NodeReport report;
  report.rejoined = true;
  report.started = {2};
  report.exited = {{2, kGood}};
  report.gone = {2};
  EXPECT_EQ(run.Connect(1, report), "");
  EXPECT_EQ(run.state.phase(), RunPhase::kRunning);
  EXPECT_EQ(run.Changes(), "NotResponding Running");
  run.End(1, kGood);
  EXPECT_EQ(run.state.phase(), RunPhase::kFinalizing);
}

TEST(RunStateLostNodeTest, ADetachedRunFailsWhenTheGraceIsOver) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.StartAll();
  run.state.OnLost(1, "link down", run.now);
  run.Later(absl::Seconds(1));
  run.state.OnLost(1, "no route to host", run.now);
  EXPECT_EQ(run.Later(absl::Minutes(10)), "drop1 term0 term1");
  EXPECT_TRUE(absl::StrContains(run.state.reason(), "node n1: no answer for 600 s: no route to host"))
      << run.state.reason();
}

TEST(RunStateLostNodeTest, AnAgentThatIsNewHasLostItsTasks) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.StartAll();
  run.state.OnLost(1, "link down", run.now);
  run.Later(absl::Seconds(1));
  EXPECT_EQ(run.Connect(1), "term0 term1");
  EXPECT_TRUE(absl::StrContains(run.state.reason(), "node n1: the agent of this run has ended"));
}

TEST(RunStateLostNodeTest, AStartThatWasLostWithTheConnectionIsOrderedAgain) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.state.OnBegin(run.now);
  for (const size_t node : {0, 1}) run.Connect(node);
  for (const size_t node : {0, 1}) run.Done(node);
  run.state.OnPlanned(run.now);
  run.state.OnLost(1, "link down", run.now);
  run.Later(absl::Seconds(1));
  NodeReport report;
  report.rejoined = true;
  EXPECT_EQ(run.Connect(1, report), "start2");
}

TEST(RunStateLostNodeTest, AStopThatWasLostWithTheConnectionIsOrderedAgain) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.StartAll();
  run.state.OnLost(1, "link down", run.now);
  run.state.OnCancel(run.now, "basin cancel");
  EXPECT_EQ(run.state.phase(), RunPhase::kCancelRequested);
  EXPECT_EQ(run.Later(absl::Seconds(1)), "open1");
  NodeReport report;
  report.rejoined = true;
  report.started = {2};
  EXPECT_EQ(run.Connect(1, report), "term2");
}

TEST(RunStateLostNodeTest, KillGivesUpANodeOutOfReach) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.StartAll();
  run.state.OnLost(1, "link down", run.now);
  run.state.OnCancel(run.now, "basin cancel");
  EXPECT_EQ(Text(run.state.OnCancel(run.now, "basin cancel")), "kill0 kill1 kill2 drop1");
  run.End(0, kCrash);
  EXPECT_EQ(run.End(1, kCrash), "collect0");
  run.state.OnCollected(0, run.now);
  EXPECT_EQ(Text(run.state.OnGoodbye(0, run.now)), "finish");
  EXPECT_EQ(run.state.phase(), RunPhase::kCanceled);
}

TEST(RunStateLostNodeTest, ANodeThatIsLostBeforeItsOutputsCameInFailsTheRun) {
  Story run(OnTwoNodes(), 2, {}, Limits());
  run.StartAll();
  for (const size_t task : {1, 2, 0}) run.End(task, kGood);
  EXPECT_EQ(Text(run.state.OnLost(1, "link down", run.now)), "");
  run.state.OnCollected(0, run.now);
  run.state.OnGoodbye(0, run.now);
  EXPECT_EQ(run.state.phase(), RunPhase::kFailed);
}

TEST(RunStateLostNodeTest, ANodeWhoseProgramsVanishedIsOutOfReachUntilItsGraceIsOver) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.StartAll();
  run.state.OnLost(1, "link down", run.now);
  run.state.OnCancel(run.now, "basin cancel");
  EXPECT_EQ(run.Later(absl::Seconds(1)), "open1");
  EXPECT_EQ(Text(run.state.OnProgramsMissing(1, run.now)), "");
  run.End(0, {0, 15});
  EXPECT_EQ(run.End(1, {0, 15}), "");
  EXPECT_EQ(run.Later(absl::Minutes(10)), "drop1 collect0");
  run.state.OnCollected(0, run.now);
  EXPECT_EQ(Text(run.state.OnGoodbye(0, run.now)), "finish");
  EXPECT_EQ(run.state.phase(), RunPhase::kCanceled);
}

TEST(RunStateLostNodeTest, AnAnswerThatCameLateIsOfTheStepItAnswers) {
  Story run(OnTwoNodes(), 2, {true, false, true}, Limits(absl::Minutes(10)));
  run.state.OnBegin(run.now);
  run.Connect(0);
  EXPECT_EQ(run.Done(0), "prepare0");
  run.state.OnLost(0, "link down", run.now);
  EXPECT_EQ(run.Later(absl::Seconds(1)), "open0");
  NodeReport report;
  report.rejoined = true;
  EXPECT_EQ(run.Connect(0, report), "inputs0");
  // The environment that was asked for before is ready now, and nothing is said of the inputs yet.
  EXPECT_EQ(Text(run.state.OnStepDone(0, RunStep::kEnvironment, run.now)), "");
  EXPECT_EQ(Text(run.state.OnStepDone(0, RunStep::kInputs, run.now)), "prepare0");
}

TEST(RunStateLostNodeTest, AnAgentThatIsNewBeforeThePlanIsAskedEverythingAgain) {
  Story run(OnTwoNodes(), 2, {true, false, false}, Limits(absl::Minutes(10)));
  run.state.OnBegin(run.now);
  run.Connect(0);
  run.Done(0);
  EXPECT_EQ(run.Done(0), "");  // it is ready, the other is not
  run.state.OnLost(0, "its agent was killed", run.now);
  run.Later(absl::Seconds(1));
  EXPECT_EQ(run.Connect(0), "inputs0");
}

TEST(RunStateLostNodeTest, AReportDuringARepeatedStartIsOfTheAttemptBefore) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.StartAll();
  TaskExit taken = {1, 0};
  taken.port_taken = true;
  run.End(2, taken);
  run.End(0, {0, 15});
  EXPECT_EQ(run.End(1, {0, 15}), "ports0 ports1");
  run.state.OnLost(1, "link down", run.now);
  EXPECT_EQ(run.Later(absl::Seconds(1)), "open1");
  NodeReport report;
  report.rejoined = true;
  report.started = {2};
  report.exited = {{2, taken}};
  report.gone = {2};
  EXPECT_EQ(run.Connect(1, report), "ports1");
  EXPECT_FALSE(run.state.failed()) << run.state.reason();
  run.Done(0);
  EXPECT_EQ(run.Done(1), "plan");
}

TEST(RunStateLostNodeTest, PortsAreAskedForOnceWhereTheReportRepeatsTheStart) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.StartAll();
  run.state.OnLost(1, "link down", run.now);
  run.Later(absl::Seconds(1));
  TaskExit taken = {1, 0};
  taken.port_taken = true;
  run.End(0, taken);
  run.End(1, {0, 15});
  NodeReport report;
  report.rejoined = true;
  report.started = {2};
  report.exited = {{2, {0, 15}}};
  report.gone = {2};
  EXPECT_EQ(run.Connect(1, report), "ports0 ports1");
}

TEST(RunStateLostNodeTest, NodesThatWaitForTheirTurnToBeOpenedWakeNobody) {
  RunLimits limits = Limits(absl::Minutes(10));
  limits.most_opening = 1;
  Story run(OnTwoNodes(), 2, {}, limits);
  run.StartAll();
  run.state.OnLost(0, "link down", run.now);
  run.state.OnLost(1, "link down", run.now);
  EXPECT_EQ(run.Later(absl::Seconds(1)), "open0");
  EXPECT_EQ(run.state.NextDeadline(), run.now + limits.open_limit);
  EXPECT_EQ(Text(run.state.OnLost(0, "link down", run.now)), "open1");
}

TEST(RunStateResumeTest, WithoutAGraceTheFirstTryDecidesAndWakesNobody) {
  Story run(OnTwoNodes(), 2, {}, Limits());
  run.state.OnResume(run.now - absl::Minutes(5), run.now);
  EXPECT_EQ(run.state.NextDeadline(), run.now + absl::Seconds(60));
  EXPECT_EQ(run.Later(absl::Seconds(1)), "");
  NodeReport report;
  report.rejoined = true;
  report.started = {0, 1};
  run.Connect(0, report);
  run.state.OnLost(1, "no route to host", run.now);
  EXPECT_TRUE(run.state.failed());
}

TEST(RunStateResumeTest, ARunThatWasTakenOverDoesNotRepeatItsStart) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.state.OnResume(run.now - absl::Seconds(5), run.now);
  NodeReport report;
  report.rejoined = true;
  report.started = {0, 1, 2};
  run.Connect(0, report);
  run.Connect(1, report);
  TaskExit taken = {1, 0};
  taken.port_taken = true;
  EXPECT_EQ(Text(run.state.OnExited(2, taken, run.now)), "term0 term1 term2");
  EXPECT_TRUE(run.state.failed());
  EXPECT_TRUE(absl::StrContains(run.state.reason(), "its port was taken; submit again")) << run.state.reason();
}

TEST(RunStateResumeTest, ANewSupervisorGoesOnWithWhatTheAgentsTell) {
  Story run(OnTwoNodes(), 2, {true, true, true}, Limits(absl::Minutes(10)));
  EXPECT_EQ(Text(run.state.OnResume(run.now - absl::Minutes(5), run.now)), "open0 open1");
  EXPECT_EQ(run.state.phase(), RunPhase::kNotResponding);
  NodeReport first;
  first.rejoined = true;
  first.started = {0, 1};
  EXPECT_EQ(run.Connect(0, first), "");
  NodeReport second;
  second.rejoined = true;
  second.started = {2};
  second.exited = {{2, kGood}};
  second.gone = {2};
  EXPECT_EQ(run.Connect(1, second), "");
  EXPECT_EQ(run.state.phase(), RunPhase::kRunning);
  run.End(1, kGood);
  EXPECT_EQ(run.state.phase(), RunPhase::kFinalizing);
  EXPECT_EQ(run.End(0, kGood), "collect0 collect1");
  run.LeaveAll();
  EXPECT_EQ(run.state.phase(), RunPhase::kCompleted);
}

TEST(RunStateResumeTest, TheTimeLimitGoesOnFromTheStartOfTheTasks) {
  RunLimits limits = Limits(absl::Minutes(10));
  limits.max_duration = absl::Seconds(100);
  Story run(OnTwoNodes(), 2, {}, limits);
  run.state.OnResume(run.now - absl::Seconds(60), run.now);
  NodeReport report;
  report.rejoined = true;
  report.started = {0, 1, 2};
  run.Connect(0, report);
  run.Connect(1, report);
  EXPECT_EQ(run.state.NextDeadline(), run.now + absl::Seconds(40));
}

TEST(RunStateResumeTest, ARunThatHadNotStartedFails) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.state.OnResume(absl::InfiniteFuture(), run.now);
  NodeReport report;
  report.rejoined = true;
  EXPECT_EQ(run.Connect(0, report), "bye0");
  EXPECT_EQ(run.Connect(1, report), "bye1");
  run.state.OnGoodbye(0, run.now);
  run.state.OnGoodbye(1, run.now);
  EXPECT_EQ(run.state.phase(), RunPhase::kFailed);
  EXPECT_TRUE(absl::StrContains(run.state.reason(), "its supervisor ended before the tasks had started"));
}

TEST(RunStateResumeTest, ARunWhoseAgentsHaveEndedFails) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::ZeroDuration()));
  run.state.OnResume(run.now, run.now);
  run.Connect(0);
  EXPECT_TRUE(run.state.failed());
  run.Connect(1);
  run.LeaveAll();
  EXPECT_EQ(run.state.phase(), RunPhase::kFailed);
}

TEST(RunStateResumeTest, CancelOfARunWithoutASupervisorReachesItsTasks) {
  Story run(OnTwoNodes(), 2, {}, Limits(absl::Minutes(10)));
  run.state.OnResume(run.now, run.now);
  run.state.OnCancel(run.now, "basin cancel");
  NodeReport report;
  report.rejoined = true;
  report.started = {0, 1, 2};
  EXPECT_EQ(run.Connect(0, report), "term0 term1");
  EXPECT_EQ(run.Connect(1, report), "term2");
}

}  // namespace
}  // namespace basin
