// What the coordinator decides, seen through its lane.
#include "ps/coordinator.h"

#include <gtest/gtest.h>

#include "ps/presence.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

class CoordinatorTest : public ::testing::Test {
 protected:
  // Chief (peer 1) and worker 1 (peer 2), with an input of `pieces`.
  void TwoWorkers(uint64_t pieces = 0, uint64_t max_steps = 0) {
    lane_.Join(1, 0);
    lane_.Join(2, 1);
    wire::v1::Model model = OneVariable(2);
    if (pieces > 0) AddInput(model, pieces);
    model.set_max_steps(max_steps);
    lane_.SetUpModel(1, model);
  }
  // The chief stays alive while `silence` passes.
  void Pass(absl::Duration silence) {
    for (absl::Duration passed; passed < silence; passed += absl::Seconds(1)) {
      lane_.now += absl::Seconds(1);
      lane_.Beat(1);
      for (Heard& heard : lane_.Tick()) later_.push_back(std::move(heard));
    }
  }
  const Coordinator& coordinator() const { return *lane_.core.coordinator(); }

  LaneHarness lane_;
  std::vector<Heard> later_;  // answers that came while time passed
};

// ---- The model ----

TEST_F(CoordinatorTest, ADeclareOfAnotherWaitsForTheChiefs) {
  lane_.Join(1, 0);
  lane_.Join(2, 1);
  EXPECT_TRUE(lane_.Declare(2, OneVariable(2), 7).empty());
  const auto heard = lane_.Declare(1, OneVariable(2), 3);
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[0].peer, 1u);
  EXPECT_EQ(heard[0].message.header.request, 3u);
  EXPECT_EQ(heard[1].peer, 2u);
  EXPECT_EQ(heard[1].message.header.request, 7u);
  EXPECT_EQ(heard[0].As<wire::v1::Declared>().spec(), heard[1].As<wire::v1::Declared>().spec());
}

TEST_F(CoordinatorTest, ARepeatedDeclareTakesTheParkedOnesPlace) {
  lane_.Join(1, 0);
  lane_.Join(2, 1);
  lane_.Declare(2, OneVariable(2), 7);
  lane_.Join(3, 1);
  lane_.Declare(3, OneVariable(2), 7);
  const auto heard = lane_.Declare(1, OneVariable(2));
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[1].peer, 3u);
}

TEST_F(CoordinatorTest, AModelThatDiffersIsRefused) {
  TwoWorkers();
  const absl::Status status = lane_.Declare(2, OneVariable(3)).at(0).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("worker 1 (host-of-c1, pid 4711)"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("is [3], the run has [2]"), absl::string_view::npos) << status;
  EXPECT_EQ(lane_.Declare(1, OneVariable(3)).at(0).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(CoordinatorTest, TheChiefMayAppendAndOthersWaitForAllTheirVariables) {
  TwoWorkers();
  wire::v1::Model more = OneVariable(2);
  *more.add_variables() = more.variables(0);
  more.mutable_variables(1)->set_name("v");
  EXPECT_TRUE(lane_.Declare(2, more).empty());
  const auto heard = lane_.Declare(1, more);
  ASSERT_EQ(heard.size(), 2u);
  wire::v1::RunSpec spec;
  ASSERT_TRUE(spec.ParseFromString(heard[1].As<wire::v1::Declared>().spec()));
  EXPECT_EQ(spec.generations_size(), 2);
  EXPECT_EQ(spec.run_id(), "run");
}

TEST_F(CoordinatorTest, AnObserversEmptyDeclareIsAnsweredWithTheWholeSpecOnceThereIsOne) {
  lane_.Join(1, 0);
  lane_.SayHello(5, lane_.HelloOf(wire::v1::ROLE_OBSERVER, 0, "o"));
  EXPECT_TRUE(lane_.Declare(5, wire::v1::Model()).empty());
  const auto heard = lane_.Declare(1, OneVariable(2));
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[1].peer, 5u);
  EXPECT_EQ(heard[1].kind(), wire::Kind::kDeclared);
}

// ---- Clocks and membership ----

TEST_F(CoordinatorTest, ClocksAreAbsoluteAndNeverGoBack) {
  TwoWorkers();
  lane_.Step(1, 5);
  lane_.Step(2, 3);
  lane_.Step(1, 4);
  lane_.Step(1, 5);
  const auto state = lane_.Beat(1);
  EXPECT_EQ(state.global_step(), 8u);
  EXPECT_EQ(state.min_clock(), 3u);
}

TEST_F(CoordinatorTest, AReplacementsStepsAddToThoseOfTheLivesBefore) {
  TwoWorkers();
  lane_.Step(2, 3);
  Pass(absl::Seconds(10));
  ASSERT_TRUE(lane_.Join(3, 1, "replacement").status().ok());
  EXPECT_EQ(lane_.Step(3, 1).at(0).As<wire::v1::RunState>().global_step(), 4u);
  EXPECT_EQ(lane_.Step(2, 9).at(0).status().code(), StatusCode::kAborted);
}

TEST_F(CoordinatorTest, TheViewCountsEachChangeOfMembership) {
  TwoWorkers();
  const uint64_t view = lane_.Beat(1).view();
  EXPECT_EQ(lane_.Beat(1).view(), view);
  Pass(absl::Seconds(10));
  EXPECT_EQ(lane_.Beat(1).view(), view + 1);
  EXPECT_EQ(lane_.Beat(2).view(), view + 2);
}

TEST_F(CoordinatorTest, TheDeadDoNotHoldTheMinimumClock) {
  TwoWorkers();
  lane_.Step(1, 5);
  EXPECT_EQ(lane_.Beat(1).min_clock(), 0u);
  Pass(absl::Seconds(10));
  EXPECT_EQ(lane_.Beat(1).min_clock(), 5u);
  lane_.Beat(2);
  EXPECT_EQ(lane_.Beat(1).min_clock(), 0u);
}

TEST_F(CoordinatorTest, NextWakeIsWhenTheFirstClientMayDie) {
  EXPECT_EQ(lane_.core.next_wake(), absl::InfiniteFuture());
  lane_.Join(1, 0);
  EXPECT_EQ(lane_.core.next_wake(), lane_.now + absl::Seconds(10));
}

// ---- Inputs ----

TEST_F(CoordinatorTest, PiecesGoToWhoAsksAndTheLastAskerWaits) {
  TwoWorkers(2);
  const auto a = lane_.NextInput(1, 1).at(0).As<wire::v1::InputPiece>();
  const auto b = lane_.NextInput(2, 1).at(0).As<wire::v1::InputPiece>();
  EXPECT_NE(a.piece(), b.piece());
  EXPECT_TRUE(lane_.NextInput(1, 2, 8).empty());
  EXPECT_EQ(lane_.InputDone(1, a.piece()).size(), 1u);
  const auto heard = lane_.InputDone(2, b.piece());
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[1].peer, 1u);
  EXPECT_EQ(heard[1].message.header.request, 8u);
  EXPECT_TRUE(heard[1].As<wire::v1::InputPiece>().end());
}

TEST_F(CoordinatorTest, ADeadWorkersPieceGoesToOneThatWaits) {
  TwoWorkers(1);
  const auto piece = lane_.NextInput(2, 1).at(0).As<wire::v1::InputPiece>();
  EXPECT_TRUE(lane_.NextInput(1, 1).empty());
  Pass(absl::Seconds(10));
  ASSERT_EQ(later_.size(), 1u);
  EXPECT_EQ(later_[0].As<wire::v1::InputPiece>().piece(), piece.piece());
  EXPECT_EQ(lane_.InputDone(2, piece.piece()).at(0).status().code(), StatusCode::kAborted);
  EXPECT_TRUE(lane_.InputDone(1, piece.piece()).at(0).status().ok());
}

TEST_F(CoordinatorTest, ADeadClientThatWaitsGetsNoPieceUntilItIsHeard) {
  TwoWorkers(1);
  const auto piece = lane_.NextInput(1, 1).at(0).As<wire::v1::InputPiece>();
  EXPECT_TRUE(lane_.NextInput(2, 1).empty());
  Pass(absl::Seconds(10));         // worker 1 is dead now
  lane_.now += absl::Seconds(10);  // and the chief, whose lease goes back
  const auto heard = lane_.Tick();
  EXPECT_TRUE(heard.empty());
  const auto revived = lane_.Ask(2, wire::Kind::kHeartbeat, wire::v1::Heartbeat());
  ASSERT_EQ(revived.size(), 2u);
  const Heard& answer = revived[0].kind() == wire::Kind::kInputPiece ? revived[0] : revived[1];
  EXPECT_EQ(answer.As<wire::v1::InputPiece>().piece(), piece.piece());
}

TEST_F(CoordinatorTest, MaxStepsEndsTheInput) {
  TwoWorkers(5, /*max_steps=*/3);
  for (uint64_t number = 1; number <= 5; ++number) lane_.NextInput(1, number);
  EXPECT_TRUE(lane_.NextInput(2, 1).empty());
  EXPECT_FALSE(lane_.Step(2, 2).at(0).As<wire::v1::RunState>().stop());
  const auto heard = lane_.Step(1, 1);
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_TRUE(lane_.Beat(2).stop());
  EXPECT_TRUE(lane_.NextInput(1, 6).at(0).As<wire::v1::InputPiece>().end());
}

TEST_F(CoordinatorTest, AnInputThatTheModelLacksIsRefusedByName) {
  TwoWorkers();
  const absl::Status status = lane_.NextInput(1, 1).at(0).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("\"train\""), absl::string_view::npos);
}

// ---- Barriers ----

TEST_F(CoordinatorTest, ABarrierReleasesWhenAllHaveCome) {
  TwoWorkers();
  EXPECT_TRUE(lane_.Barrier(1, 1, 4).empty());
  const auto heard = lane_.Barrier(2, 1, 5);
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[0].message.header.request + heard[1].message.header.request, 9u);
  // A repeat is answered at once; the next number starts anew.
  EXPECT_EQ(lane_.Barrier(1, 1).size(), 1u);
  EXPECT_TRUE(lane_.Barrier(1, 2).empty());
  EXPECT_EQ(lane_.Barrier(1, 4).at(0).status().code(), StatusCode::kOutOfRange);
}

TEST_F(CoordinatorTest, ABarrierDoesNotWaitForTheDeadNorForThoseThatAreDone) {
  TwoWorkers();
  lane_.Join(3, 2);
  EXPECT_TRUE(lane_.Barrier(1, 1).empty());
  lane_.Ask(3, wire::Kind::kFinish, wire::v1::Finish());
  EXPECT_TRUE(later_.empty());
  Pass(absl::Seconds(10));
  ASSERT_EQ(later_.size(), 1u);
  EXPECT_EQ(later_[0].peer, 1u);
}

TEST_F(CoordinatorTest, ABarrierWaitsForNamedTasksThatHaveNotComeYet) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.trainers = {{Role::kWorker, 0}, {Role::kWorker, 1}};
  options.chief = TaskId{Role::kWorker, 0};
  LaneHarness lane(options);
  lane.Join(1, 0);
  EXPECT_TRUE(lane.Barrier(1, 1).empty());
  lane.Join(2, 1);
  EXPECT_EQ(lane.Barrier(2, 1).size(), 2u);
}

TEST_F(CoordinatorTest, AReplacementCatchesUpWithBarriersThatWereReleased) {
  TwoWorkers();
  lane_.Barrier(1, 1);
  lane_.Barrier(2, 1);
  Pass(absl::Seconds(10));
  lane_.Join(3, 1, "replacement");
  EXPECT_EQ(lane_.Barrier(3, 1).size(), 1u);
  EXPECT_TRUE(lane_.Barrier(3, 2).empty());
  EXPECT_EQ(lane_.Barrier(1, 2).size(), 2u);
}

// ---- The end ----

TEST_F(CoordinatorTest, TheChiefsFinishEndsTheRunForAll) {
  TwoWorkers(1);
  lane_.NextInput(1, 1);
  EXPECT_TRUE(lane_.NextInput(2, 1).empty());
  EXPECT_FALSE(lane_.core.run_over());
  const auto heard = lane_.Ask(1, wire::Kind::kFinish, wire::v1::Finish());
  EXPECT_TRUE(coordinator().finished());
  EXPECT_TRUE(heard.at(0).As<wire::v1::RunState>().finished());
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_TRUE(heard[1].As<wire::v1::InputPiece>().end());
  EXPECT_FALSE(lane_.core.finished(lane_.now));
  wire::v1::Goodbye goodbye;
  lane_.Ask(1, wire::Kind::kGoodbye, goodbye);
  EXPECT_FALSE(lane_.core.finished(lane_.now));
  lane_.Ask(2, wire::Kind::kGoodbye, goodbye);
  EXPECT_TRUE(lane_.core.finished(lane_.now));
}

TEST_F(CoordinatorTest, AFailureReachesThoseThatWait) {
  TwoWorkers(1);
  lane_.NextInput(1, 1);
  EXPECT_TRUE(lane_.NextInput(2, 1).empty());
  wire::v1::Finish finish;
  finish.set_failure("the loss is NaN");
  const auto heard = lane_.Ask(1, wire::Kind::kFinish, finish);
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[0].As<wire::v1::RunState>().failure(), "the loss is NaN");
  EXPECT_EQ(heard[1].As<wire::v1::InputPiece>().error(), "the loss is NaN");
}

TEST_F(CoordinatorTest, AWorkersFinishEndsOnlyItsOwnWork) {
  TwoWorkers();
  lane_.Ask(2, wire::Kind::kFinish, wire::v1::Finish());
  EXPECT_FALSE(coordinator().finished());
}

TEST_F(CoordinatorTest, ThePsEndsWhenTheRestIsDeadOrTheGraceHasPassed) {
  TwoWorkers();
  lane_.Ask(1, wire::Kind::kFinish, wire::v1::Finish());
  lane_.Ask(1, wire::Kind::kGoodbye, wire::v1::Goodbye());
  EXPECT_FALSE(lane_.core.finished(lane_.now));
  EXPECT_TRUE(lane_.core.finished(lane_.now + absl::Seconds(60)));
  lane_.now += absl::Seconds(10);
  lane_.Tick();
  EXPECT_TRUE(lane_.core.finished(lane_.now));
}

TEST_F(CoordinatorTest, AGoodbyeOfAReplacedLifeIsNoFailure) {
  TwoWorkers();
  Pass(absl::Seconds(10));
  lane_.Join(3, 1, "replacement");
  EXPECT_EQ(lane_.Ask(2, wire::Kind::kGoodbye, wire::v1::Goodbye()).at(0).kind(), wire::Kind::kRunState);
  EXPECT_TRUE(lane_.Step(3, 1).at(0).status().ok());
}

}  // namespace
}  // namespace basin
