// Receive a Hello, expect a Welcome or the first check that fails: docs/wire.md "Hello, Welcome".
#include <gtest/gtest.h>

#include "ps/block.h"
#include "ps/coordinator.h"
#include "ps/presence.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

using absl::StatusCode;

LaneCoreOptions OtherPs() {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.ordinal = PsOrdinal(1);
  options.ps_count = 0;
  options.run_id = "";
  return options;
}

wire::v1::Hello HelloToOtherPs(const LaneHarness& lane, uint64_t incarnation, const std::string& client = "c1") {
  wire::v1::Hello hello = lane.HelloOf(wire::v1::ROLE_WORKER, 1, client);
  hello.set_incarnation(incarnation);
  hello.set_ps_count(2);
  return hello;
}

TEST(LaneHelloTest, AWelcomeTellsRunLivesAndLanes) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.lanes = 2;
  options.lane_addresses = {"", "h:1"};
  LaneHarness lane(options);
  wire::v1::Hello hello = lane.HelloOf(wire::v1::ROLE_WORKER, 1, "c");
  hello.clear_run_id();
  const auto welcome = lane.SayHello(1, hello).As<wire::v1::Welcome>();
  EXPECT_EQ(welcome.run_id(), "run");
  EXPECT_GT(welcome.incarnation(), 0u);
  EXPECT_EQ(welcome.ps_incarnation(), kPsLife);
  EXPECT_EQ(welcome.lane_addresses_size(), 2);
  EXPECT_EQ(welcome.heartbeat_ms(), 1000u);
  EXPECT_EQ(welcome.dead_after_ms(), 10000u);
  EXPECT_TRUE(welcome.spec_hash().empty());
  EXPECT_EQ(welcome.host(), "here");
}

TEST(LaneHelloTest, AnotherProtocolVersionIsNamedWithOurs) {
  LaneHarness lane;
  wire::v1::Hello hello = lane.HelloOf(wire::v1::ROLE_WORKER, 1, "c");
  hello.set_protocol_version(9);
  hello.set_token("irrelevant");
  const absl::Status status = lane.SayHello(1, hello).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("speaks protocol version 9"), absl::string_view::npos);
}

TEST(LaneHelloTest, TheTokenIsAskedForAndNeverShown) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.token = "s3cret";
  LaneHarness lane(options);
  wire::v1::Hello hello = lane.HelloOf(wire::v1::ROLE_WORKER, 1, "c");
  for (const std::string token : {"", "s3cres"}) {
    hello.set_token(token);
    const absl::Status status = lane.SayHello(1, hello).status();
    EXPECT_EQ(status.code(), StatusCode::kUnauthenticated);
    EXPECT_EQ(status.message().find("s3cre"), absl::string_view::npos);
  }
  const std::vector<std::string> notes = lane.core.TakeNotes();
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_NE(notes[0].find("host-of-c"), std::string::npos);
  EXPECT_EQ(notes[1].find("s3cre"), std::string::npos);
  hello.set_token("s3cret");
  EXPECT_TRUE(lane.SayHello(1, hello).status().ok());
}

TEST(LaneHelloTest, AnotherPsTakesTheFirstRunAndNamesItsClaimantToOthers) {
  LaneHarness lane(OtherPs());
  wire::v1::Hello hello = HelloToOtherPs(lane, 5);
  hello.clear_run_id();
  EXPECT_EQ(lane.SayHello(1, hello).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(lane.SayHello(1, HelloToOtherPs(lane, 5)).status().ok());
  hello.set_run_id("other");
  const absl::Status status = lane.SayHello(2, hello).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("belongs to run \"run\" (claimed by pid 4711 on host-of-c1 at 00:16:40 UTC)"),
            absl::string_view::npos)
      << status;
}

TEST(LaneHelloTest, OrdinalAndCountOfPsMustBeOurs) {
  LaneHarness lane(OtherPs());
  wire::v1::Hello hello = HelloToOtherPs(lane, 5);
  hello.set_ps_ordinal(0);
  EXPECT_EQ(lane.SayHello(1, hello).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(lane.SayHello(1, HelloToOtherPs(lane, 5)).status().ok());
  hello = HelloToOtherPs(lane, 5);
  hello.set_ps_count(3);
  EXPECT_EQ(lane.SayHello(1, hello).status().code(), StatusCode::kFailedPrecondition);
}

TEST(LaneHelloTest, AnotherLaneOrLifeOfThePsIsRefused) {
  LaneHarness lane;
  wire::v1::Hello hello = lane.HelloOf(wire::v1::ROLE_WORKER, 1, "c");
  hello.set_lane(1);
  EXPECT_EQ(lane.SayHello(1, hello).status().code(), StatusCode::kInvalidArgument);
  hello.set_lane(0);
  hello.set_ps_incarnation(kPsLife + 1);
  EXPECT_EQ(lane.SayHello(1, hello).status().code(), StatusCode::kDataLoss);
}

TEST(LaneHelloTest, ATaskThatTheClusterLacksIsRefusedWithTheListOfThose) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.trainers = {{Role::kWorker, 0}, {Role::kWorker, 2}};
  options.chief = TaskId{Role::kWorker, 0};
  LaneHarness lane(options);
  const absl::Status status = lane.SayHello(1, lane.HelloOf(wire::v1::ROLE_WORKER, 1, "c")).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("worker 0, worker 2"), absl::string_view::npos);
  EXPECT_EQ(lane.core.missing().size(), 2u);
  EXPECT_TRUE(lane.SayHello(1, lane.HelloOf(wire::v1::ROLE_WORKER, 2, "c")).status().ok());
  EXPECT_EQ(lane.core.missing(), (std::vector<TaskId>{{Role::kWorker, 0}}));
  EXPECT_TRUE(lane.SayHello(2, lane.HelloOf(wire::v1::ROLE_EVALUATOR, 0, "e")).status().ok());
  wire::v1::Hello hello = lane.HelloOf(wire::v1::ROLE_WORKER, 2, "c");
  hello.set_is_chief(true);
  EXPECT_EQ(lane.SayHello(1, hello).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(lane.SayHello(3, lane.HelloOf(wire::v1::ROLE_PS, 0, "p")).status().code(), StatusCode::kInvalidArgument);
}

TEST(LaneHelloTest, ARepeatedHelloGetsTheSameIncarnationAndASecondProcessNone) {
  LaneHarness lane;
  const uint64_t first = lane.Join(1, 1, "a").As<wire::v1::Welcome>().incarnation();
  EXPECT_EQ(lane.Join(2, 1, "a").As<wire::v1::Welcome>().incarnation(), first);
  lane.now += absl::Seconds(3);
  const absl::Status status = lane.Join(3, 1, "b").status();
  EXPECT_EQ(status.code(), StatusCode::kAlreadyExists);
  EXPECT_NE(status.message().find("pid 4711 on host-of-a, last heard 3 s ago"), absl::string_view::npos) << status;
}

TEST(LaneHelloTest, AReplacementGetsALargerIncarnationAndTheOldLifeIsRefused) {
  LaneHarness lane;
  const uint64_t first = lane.Join(1, 1, "a").As<wire::v1::Welcome>().incarnation();
  lane.now += absl::Seconds(10);
  const uint64_t second = lane.Join(2, 1, "b").As<wire::v1::Welcome>().incarnation();
  EXPECT_GT(second, first);
  const absl::Status status = lane.Step(1, 1).at(0).status();
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_NE(status.message().find("pid 4711 on host-of-b"), absl::string_view::npos);
  wire::v1::Hello again = lane.HelloOf(wire::v1::ROLE_WORKER, 1, "a");
  again.set_incarnation(first);
  EXPECT_EQ(lane.SayHello(3, again).status().code(), StatusCode::kAborted);
  EXPECT_EQ(lane.core.coordinator()->global_step(), 0u);
}

TEST(LaneHelloTest, AnIncarnationThatWasNeverGivenOutIsRefused) {
  LaneHarness lane;
  wire::v1::Hello hello = lane.HelloOf(wire::v1::ROLE_WORKER, 1, "a");
  hello.set_incarnation(9);
  EXPECT_EQ(lane.SayHello(1, hello).status().code(), StatusCode::kInvalidArgument);
}

TEST(LaneHelloTest, OtherLanesRaiseTheFenceByALargerIncarnation) {
  LaneHarness lane(OtherPs());
  EXPECT_EQ(lane.SayHello(1, HelloToOtherPs(lane, 0)).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(lane.SayHello(1, HelloToOtherPs(lane, 5, "a")).status().ok());
  EXPECT_TRUE(lane.SayHello(2, HelloToOtherPs(lane, 6, "b")).status().ok());
  EXPECT_EQ(lane.Ask(1, wire::Kind::kHeartbeat, wire::v1::Heartbeat()).at(0).status().code(), StatusCode::kAborted);
  EXPECT_EQ(lane.SayHello(3, HelloToOtherPs(lane, 5, "a")).status().code(), StatusCode::kAborted);
  EXPECT_TRUE(lane.Ask(2, wire::Kind::kHeartbeat, wire::v1::Heartbeat()).at(0).status().ok());
}

TEST(LaneHelloTest, MessagesWithoutAHelloOrOfAnotherRunOrLifeAreRefused) {
  LaneHarness lane;
  EXPECT_EQ(lane.Ask(1, wire::Kind::kStats, wire::v1::Stats()).at(0).status().code(), StatusCode::kFailedPrecondition);
  lane.Join(1, 1);
  const wire::Header good = lane.header(1);
  lane.header(1).run ^= 1;
  EXPECT_EQ(lane.Step(1, 1).at(0).status().code(), StatusCode::kFailedPrecondition);
  lane.header(1) = good;
  lane.header(1).ps_incarnation ^= 1;
  EXPECT_EQ(lane.Step(1, 1).at(0).status().code(), StatusCode::kDataLoss);
  lane.header(1) = good;
  lane.header(1).worker += 1;
  EXPECT_EQ(lane.Step(1, 1).at(0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(lane.core.coordinator()->global_step(), 0u);
}

TEST(LaneHelloTest, AMalformedMessageIsCountedAndAnswered) {
  LaneHarness lane;
  lane.Join(1, 1);
  wire::Message garbage;
  garbage.frames.push_back(wire::Frame::Copy("not a message"));
  const auto heard = lane.Give(1, garbage);
  EXPECT_EQ(heard.at(0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(heard.at(0).message.header.request, 0u);
  wire::Header header = lane.header(1);
  header.request = 8;
  for (const auto kind :
       {wire::Kind::kDeclare, wire::Kind::kInstall, wire::Kind::kStep, wire::Kind::kBarrier, wire::Kind::kHeartbeat}) {
    header.kind = kind;
    const auto answer = lane.Give(1, wire::MakeControl(header, "\xff\xff\xff"));
    EXPECT_EQ(answer.at(0).status().code(), StatusCode::kInvalidArgument) << wire::Name(kind);
    EXPECT_EQ(answer.at(0).message.header.request, 8u);
  }
  header.kind = wire::Kind::kWelcome;
  EXPECT_EQ(lane.Give(1, wire::MakeControl(header, "")).at(0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(lane.core.counters().malformed.value(), 6u);
}

TEST(LaneHelloTest, ObserversClaimNothingAndAreForgottenWhenTheyDie) {
  LaneHarness lane;
  const auto welcome = lane.SayHello(1, lane.HelloOf(wire::v1::ROLE_OBSERVER, 0, "o1")).As<wire::v1::Welcome>();
  EXPECT_EQ(welcome.incarnation(), 0u);
  EXPECT_TRUE(lane.SayHello(2, lane.HelloOf(wire::v1::ROLE_OBSERVER, 0, "o2")).status().ok());
  EXPECT_EQ(lane.Step(1, 3).at(0).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(lane.NextInput(1, 1).at(0).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(lane.Barrier(1, 1).at(0).status().code(), StatusCode::kPermissionDenied);
  lane.now += absl::Seconds(11);
  lane.Tick();
  EXPECT_TRUE(lane.core.presence()->clients().empty());
  EXPECT_EQ(lane.Ask(1, wire::Kind::kStats, wire::v1::Stats()).at(0).status().code(), StatusCode::kFailedPrecondition);
}

TEST(LaneHelloTest, AnObserverOfSomePsAloneMayAskForStatsOnly) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.ps_count = 2;
  LaneHarness lane(options);
  ASSERT_TRUE(lane.SayHello(1, lane.HelloOf(wire::v1::ROLE_OBSERVER, 0, "top")).status().ok());
  EXPECT_TRUE(lane.Ask(1, wire::Kind::kStats, wire::v1::Stats()).at(0).status().ok());
  EXPECT_EQ(lane.Declare(1, wire::v1::Model()).at(0).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(lane.Update(1, {{.flags = wire::kPull}}).status().code(), StatusCode::kFailedPrecondition);
}

TEST(LaneHelloTest, APsThatIsNotFirstLearnsTheRunsEndFromItsClients) {
  for (const bool by_goodbye : {true, false}) {
    LaneHarness lane(OtherPs());
    lane.SayHello(1, HelloToOtherPs(lane, 5));
    EXPECT_FALSE(lane.core.finished(lane.now));
    if (!by_goodbye) {
      wire::v1::Heartbeat heartbeat;
      heartbeat.set_run_finished(true);
      EXPECT_TRUE(lane.Ask(1, wire::Kind::kHeartbeat, heartbeat).at(0).As<wire::v1::RunState>().finished());
      EXPECT_FALSE(lane.core.finished(lane.now));
    }
    wire::v1::Goodbye goodbye;
    goodbye.set_run_finished(by_goodbye);
    EXPECT_TRUE(lane.Ask(1, wire::Kind::kGoodbye, goodbye).at(0).As<wire::v1::RunState>().finished());
    EXPECT_TRUE(lane.core.finished(lane.now));
  }
}

TEST(LaneHelloTest, AnInstallThatDoesNotFitIsRefused) {
  LaneHarness lane;
  lane.Join(1, 0);
  wire::v1::Declared declared = lane.Declare(1, OneVariable(4)).at(0).As<wire::v1::Declared>();
  wire::v1::Declared other = declared;
  other.set_spec_hash("12345678");
  EXPECT_EQ(lane.Install(1, other).at(0).status().code(), StatusCode::kInvalidArgument);
  wire::v1::RunSpec spec;
  spec.ParseFromString(declared.spec());
  spec.mutable_model()->mutable_variables(0)->set_shape(0, 5);
  other.set_spec(spec.SerializeAsString());
  const uint64_t hash = wire::RunHash(other.spec());
  other.set_spec_hash(std::string(reinterpret_cast<const char*>(&hash), 8));
  EXPECT_EQ(lane.Install(1, other).at(0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(lane.core.shard(ShardId(0)), nullptr);
  EXPECT_EQ(lane.Install(1, declared).at(0).As<wire::v1::Installed>().spec_hash(), declared.spec_hash());
  EXPECT_TRUE(lane.Install(1, declared).at(0).status().ok());
  EXPECT_NE(lane.core.shard(ShardId(0)), nullptr);
}

TEST(LaneHelloTest, AnInstallPastTheMemoryLimitSaysSoAndChangesNothing) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.memory_limit_bytes = 100'000;
  LaneHarness lane(options);
  lane.Join(1, 0);
  const auto declared = lane.Declare(1, OneVariable(12'000, wire::v1::RULE_KIND_ADAM)).at(0).As<wire::v1::Declared>();
  const absl::Status status = lane.Install(1, declared).at(0).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("--memory-limit"), absl::string_view::npos);
  EXPECT_EQ(lane.core.model(), nullptr);
}

TEST(LaneHelloTest, LaterGenerationsAddShardsAndOlderInstallsAreAnswered) {
  LaneHarness lane;
  lane.Join(1, 0);
  wire::v1::Model model = OneVariable(4);
  const auto first = lane.Declare(1, model).at(0).As<wire::v1::Declared>();
  lane.Install(1, first);
  EXPECT_EQ(lane.Push(1, 1, {1, 1, 1, 1}), StatusCode::kOk);
  *model.add_variables() = model.variables(0);
  model.mutable_variables(1)->set_name("later");
  const auto second = lane.Declare(1, model).at(0).As<wire::v1::Declared>();
  EXPECT_TRUE(lane.Install(1, second).at(0).status().ok());
  EXPECT_EQ(lane.Install(1, first).at(0).As<wire::v1::Installed>().spec_hash(), second.spec_hash());
  EXPECT_EQ(lane.Pull(1, 0), (std::vector<float>{-1, -1, -1, -1}));
  EXPECT_EQ(lane.Pull(1, 1), (std::vector<float>{0, 0, 0, 0}));
}

}  // namespace
}  // namespace basin
