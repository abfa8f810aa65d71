// What the client's core makes of refusals, of a server's nonsense and of messages that no server would take.
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "worker/client/client_core.h"

namespace basin {
namespace {

using wire::Kind;

// A client of one ps with one lane, which is answered by hand.
class ClientFaultsTest : public ::testing::Test {
 protected:
  struct Sent {
    Kind kind = Kind::kError;
    uint64_t request = 0;
    std::string body;
    std::vector<wire::Entry> entries;
  };

  void SetUp() override {
    ClientCoreOptions options;
    options.role = wire::v1::ROLE_WORKER;
    options.ps_addresses = {"h0:2222"};
    options.client_id = "me";
    core_ = std::make_unique<ClientCore>(options);
    connect_ = core_->Connect(now_);
    TakeSent();
  }
  std::vector<Sent> TakeSent() {
    std::vector<Sent> sent;
    core_->Flush(now_);
    for (ClientAction& action : core_->TakeActions()) {
      if (action.kind == ClientAction::Kind::kDial) dials_.push_back(action.address);
      if (action.kind != ClientAction::Kind::kSend) continue;
      auto parsed = wire::Parse(std::move(action.message));
      EXPECT_TRUE(parsed.ok()) << parsed.status();
      if (parsed.ok())
        sent.push_back({parsed->header.kind, parsed->header.request, std::string(parsed->body), parsed->entries});
    }
    return sent;
  }
  Sent TakeOne(Kind kind) {
    std::vector<Sent> sent = TakeSent();
    EXPECT_EQ(sent.size(), 1u);
    if (sent.size() != 1) return {};
    EXPECT_EQ(sent[0].kind, kind);
    return sent[0];
  }
  // `session`: the lane knows this channel, as it does whenever it is not said otherwise.
  template <class Proto>
  void Give(Kind kind, uint64_t request, const Proto& body, bool session = true) {
    wire::Header header;
    header.kind = kind;
    header.request = request;
    header.worker = session ? wire::WorkerKey(wire::v1::ROLE_WORKER, 0) : 0;
    core_->OnMessage(0, wire::MakeControl(header, body.SerializeAsString()), now_);
  }
  void GiveWelcome() {
    wire::v1::Welcome welcome;
    welcome.set_run_id("run-1");
    welcome.set_incarnation(5);
    welcome.set_ps_incarnation(77);
    welcome.set_heartbeat_ms(1000);
    welcome.set_dead_after_ms(4000);
    welcome.add_lane_addresses("");
    Give(Kind::kWelcome, 0, welcome);
  }
  void GiveRefusal(uint64_t request, int32_t code, bool session = true) {
    wire::v1::Refusal refusal;
    refusal.set_code(code);
    refusal.set_message("because");
    Give(Kind::kError, request, refusal, session);
  }
  void GiveUpdated(const Sent& update, absl::StatusCode code = absl::StatusCode::kOk) {
    wire::DataBuilder builder;
    for (const wire::Entry& asked : update.entries) {
      builder.Add({.shard = asked.shard, .version = Version(2), .code = static_cast<int32_t>(code)}, {});
    }
    wire::Header header;
    header.kind = Kind::kUpdated;
    header.request = update.request;
    core_->OnMessage(0, std::move(builder).Build(header), now_);
  }
  // A spec of `variables` variables of four elements, with all but `uncovered` of them in its one generation.
  static wire::v1::Declared Spec(const std::vector<std::string>& variables, uint32_t uncovered = 0) {
    wire::v1::RunSpec spec;
    for (const std::string& name : variables) {
      auto* variable = spec.mutable_model()->add_variables();
      variable->set_name(name);
      variable->set_dtype(static_cast<uint32_t>(DType::kF32));
      variable->add_shape(4);
    }
    spec.add_generations(static_cast<uint32_t>(variables.size()) - uncovered);
    spec.set_ps_count(1);
    wire::v1::Declared declared;
    declared.set_spec(spec.SerializeAsString());
    declared.set_spec_hash("hash");
    return declared;
  }
  CallId Declare(const wire::v1::Declared& declared) {
    const CallId call = core_->Declare(wire::v1::Model(), now_);
    Give(Kind::kDeclared, TakeOne(Kind::kDeclare).request, declared);
    return call;
  }
  void ConnectAndDeclare() {
    GiveWelcome();
    const CallId call = Declare(Spec({"w"}));
    wire::v1::Installed installed;
    installed.set_spec_hash("hash");
    Give(Kind::kInstalled, TakeOne(Kind::kInstall).request, installed);
    ASSERT_TRUE(core_->done(call));
    ASSERT_TRUE(core_->Take(call).status.ok());
  }
  CallId Push() {
    static const float gradient[4] = {1, 1, 1, 1};
    return *core_->StartUpdate({{VariableId(0), {reinterpret_cast<const char*>(gradient), 16}, {}, {}}}, nullptr, now_);
  }
  CallId Pull() {
    return *core_->StartUpdate({{VariableId(0), {}, {}, {reinterpret_cast<char*>(parameters_), 16}}}, nullptr, now_);
  }

  std::unique_ptr<ClientCore> core_;
  CallId connect_ = 0;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  std::vector<std::string> dials_;
  float parameters_[4] = {};
};

TEST_F(ClientFaultsTest, ARefusalWithTheCodeOfSuccessIsNoSuccess) {
  GiveRefusal(0, /*code=*/0);
  ASSERT_TRUE(core_->done(connect_));
  EXPECT_EQ(core_->Take(connect_).status.code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(core_->failure().ok());
}

TEST_F(ClientFaultsTest, AnAnswerOfAnotherKindIsRefusedByName) {
  GiveWelcome();
  const CallId call = core_->Declare(wire::v1::Model(), now_);
  Give(Kind::kRunState, TakeOne(Kind::kDeclare).request, wire::v1::RunState());
  const absl::Status status = core_->Take(call).status;
  EXPECT_NE(status.message().find("answered Declare with RunState"), absl::string_view::npos) << status;
}

TEST_F(ClientFaultsTest, AWelcomeWithAMillionLanesIsRefused) {
  wire::v1::Welcome welcome;
  for (int i = 0; i < 1'000'000; ++i) welcome.add_lane_addresses("");
  Give(Kind::kWelcome, 0, welcome);
  EXPECT_FALSE(core_->failure().ok());
  EXPECT_EQ(dials_.size(), 1u);
}

TEST_F(ClientFaultsTest, ALaneWithoutAnAddressOfItsOwnIsDialledAtThePs) {
  wire::v1::Welcome welcome;
  welcome.set_run_id("run-1");
  welcome.add_lane_addresses("");
  welcome.add_lane_addresses("");
  Give(Kind::kWelcome, 0, welcome);
  TakeSent();
  EXPECT_EQ(dials_, (std::vector<std::string>{"h0:2222", "h0:2222"}));
}

TEST_F(ClientFaultsTest, ASpecWhoseGenerationsLeaveVariablesOutIsRefused) {
  GiveWelcome();
  const CallId call = Declare(Spec({"w", "b"}, /*uncovered=*/1));
  EXPECT_EQ(core_->Take(call).status.code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(core_->spec().has_value());
}

TEST_F(ClientFaultsTest, ASpecThatDoesNotExtendTheOneBeforeIsRefused) {
  ConnectAndDeclare();
  const CallId call = Declare(Spec({"another", "model"}));
  EXPECT_EQ(core_->Take(call).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(core_->spec()->model().variables(0).name(), "w");
}

TEST_F(ClientFaultsTest, AnUpdateRefusedAsAWholeDoesNotUseItsSequencesUp) {
  ConnectAndDeclare();
  const CallId call = Push();
  GiveRefusal(TakeOne(Kind::kUpdate).request, static_cast<int32_t>(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(core_->Take(call).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(core_->bytes_in_flight(), 0u);
  Push();
  EXPECT_EQ(TakeOne(Kind::kUpdate).entries[0].sequence, Sequence(1));
}

TEST_F(ClientFaultsTest, AChannelThatTheLaneHasForgottenSaysHelloAgainAndLosesNothing) {
  ConnectAndDeclare();
  const CallId call = Push();
  const Sent first = TakeOne(Kind::kUpdate);
  GiveRefusal(first.request, static_cast<int32_t>(absl::StatusCode::kFailedPrecondition), /*session=*/false);
  EXPECT_FALSE(core_->done(call));
  now_ += absl::Seconds(1);
  core_->OnTime(now_);
  TakeOne(Kind::kHello);
  GiveWelcome();
  const Sent again = TakeOne(Kind::kUpdate);
  EXPECT_EQ(again.request, first.request);
  EXPECT_EQ(again.entries[0].sequence, Sequence(1));
  GiveUpdated(again);
  EXPECT_TRUE(core_->Take(call).status.ok());
}

TEST_F(ClientFaultsTest, ARefusedInputRequestDoesNotUseItsNumberUp) {
  GiveWelcome();
  for (int i = 0; i < 2; ++i) {
    core_->NextInput("train", now_);
    const Sent sent = TakeOne(Kind::kNextInput);
    wire::v1::NextInput body;
    ASSERT_TRUE(body.ParseFromString(sent.body));
    EXPECT_EQ(body.number(), 1u);
    GiveRefusal(sent.request, static_cast<int32_t>(absl::StatusCode::kInvalidArgument));
  }
}

TEST_F(ClientFaultsTest, AMessageThatNoServerWouldTakeIsRefusedAtOnce) {
  GiveWelcome();
  const CallId call = core_->Barrier(std::string(kMaxFrameBytes, 'x'), now_);
  ASSERT_TRUE(core_->done(call));
  const absl::Status status = core_->Take(call).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("Barrier has"), absl::string_view::npos) << status;
  EXPECT_TRUE(TakeSent().empty());
}

TEST_F(ClientFaultsTest, APullOfAVariableWithoutValuesSaysSoAndEndsWithTheRun) {
  ConnectAndDeclare();
  const CallId call = Pull();
  GiveUpdated(TakeOne(Kind::kUpdate), absl::StatusCode::kUnavailable);
  EXPECT_NE(core_->WaitingFor(call, now_).find("first values of \"w\""), std::string::npos)
      << core_->WaitingFor(call, now_);
  core_->Step({}, now_);
  wire::v1::RunState state;
  state.set_finished(true);
  state.set_failure("model.safetensors is missing");
  Give(Kind::kRunState, TakeOne(Kind::kStep).request, state);
  now_ = core_->next_wake();
  core_->OnTime(now_);
  ASSERT_TRUE(core_->done(call));
  const absl::Status status = core_->Take(call).status;
  EXPECT_NE(status.message().find("model.safetensors is missing"), absl::string_view::npos) << status;
}

TEST_F(ClientFaultsTest, ALateAnswerIsNotWrittenIntoTheBuffersOfAnAbandonedCall) {
  ConnectAndDeclare();
  const CallId call = Pull();
  const Sent pull = TakeOne(Kind::kUpdate);
  core_->Abandon(absl::CancelledError("the client was closed"));
  ASSERT_TRUE(core_->done(call));
  EXPECT_EQ(core_->Take(call).status.code(), absl::StatusCode::kCancelled);
  const float values[4] = {7, 7, 7, 7};
  wire::DataBuilder builder;
  builder.Add({.shard = ShardId(0), .version = Version(2)},
              wire::Frame::Copy(absl::string_view(reinterpret_cast<const char*>(values), 16)));
  wire::Header header;
  header.kind = Kind::kUpdated;
  header.request = pull.request;
  core_->OnMessage(0, std::move(builder).Build(header), now_);
  EXPECT_EQ(parameters_[0], 0.0f);
}

}  // namespace
}  // namespace basin
