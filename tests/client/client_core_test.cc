// Protocol tests of the client's core: receive X, expect Y, without sockets.
#include "worker/client/client_core.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"

namespace basin {
namespace {

using wire::Kind;

constexpr uint64_t kPsIncarnation = 77;

// One ps with one lane, answered by hand.
class ClientCoreTest : public ::testing::Test {
 protected:
  void Make(int ps_count = 1) {
    ClientCoreOptions options;
    options.role = wire::v1::ROLE_WORKER;
    options.is_chief = true;
    for (int ps = 0; ps < ps_count; ++ps) options.ps_addresses.push_back(absl::StrCat("h", ps, ":2222"));
    options.client_id = "me";
    options.start_timeout = absl::Seconds(20);
    options.unreachable_timeout = absl::Seconds(10);
    options.claim_timeout = absl::Seconds(5);
    core_ = std::make_unique<ClientCore>(options);
  }

  struct Sent {
    uint32_t channel = 0;
    wire::Parsed parsed;
  };
  // Everything the core wants sent; dials and closes are kept in dials_ and closes_.
  std::vector<Sent> TakeSent() {
    core_->Flush(now_);
    std::vector<Sent> sent;
    for (ClientAction& action : core_->TakeActions()) {
      if (action.kind == ClientAction::Kind::kDial) dials_.push_back(action.address);
      if (action.kind == ClientAction::Kind::kClose) closes_.push_back(action.channel);
      if (action.kind != ClientAction::Kind::kSend) continue;
      auto parsed = wire::Parse(std::move(action.message));
      EXPECT_TRUE(parsed.ok()) << parsed.status();
      sent.push_back({action.channel, *std::move(parsed)});
    }
    return sent;
  }
  Sent TakeOne(Kind kind) {
    std::vector<Sent> sent = TakeSent();
    EXPECT_EQ(sent.size(), 1u);
    if (sent.empty()) return {};
    EXPECT_EQ(sent[0].parsed.header.kind, kind) << Name(sent[0].parsed.header.kind);
    return std::move(sent[0]);
  }
  template <class Proto>
  void Give(uint32_t channel, Kind kind, uint64_t request, const Proto& body) {
    wire::Header header;
    header.kind = kind;
    header.request = request;
    core_->OnMessage(channel, wire::MakeControl(header, body.SerializeAsString()), now_);
  }
  void GiveWelcome(uint32_t channel, uint64_t ps_incarnation = kPsIncarnation) {
    wire::v1::Welcome welcome;
    welcome.set_run_id("run-1");
    welcome.set_incarnation(5);
    welcome.set_ps_incarnation(ps_incarnation);
    welcome.set_heartbeat_ms(1000);
    welcome.set_dead_after_ms(4000);
    welcome.add_lane_addresses("");
    Give(channel, Kind::kWelcome, 0, welcome);
  }
  void GiveError(uint32_t channel, uint64_t request, absl::StatusCode code, const std::string& message) {
    wire::v1::Refusal refusal;
    refusal.set_code(static_cast<int32_t>(code));
    refusal.set_message(message);
    Give(channel, Kind::kError, request, refusal);
  }
  // Answers an update: every entry with `code`, at `version`.
  void GiveUpdated(const Sent& update, uint64_t version, absl::StatusCode code = absl::StatusCode::kOk) {
    wire::DataBuilder builder;
    for (const wire::Entry& asked : update.parsed.entries) {
      wire::Entry entry;
      entry.shard = asked.shard;
      entry.version = Version(version);
      entry.code = static_cast<int32_t>(code);
      builder.Add(entry, {});
    }
    wire::Header header;
    header.kind = Kind::kUpdated;
    header.request = update.parsed.header.request;
    core_->OnMessage(update.channel, std::move(builder).Build(header), now_);
  }

  void ConnectAndDeclare() {
    Make();
    core_->Connect(now_);
    TakeSent();
    GiveWelcome(0);
    wire::v1::Model model;
    auto* variable = model.add_variables();
    variable->set_name("w");
    variable->set_dtype(static_cast<uint32_t>(DType::kF32));
    variable->add_shape(4);
    const CallId call = core_->Declare(model, now_);
    const Sent declare = TakeOne(Kind::kDeclare);
    wire::v1::RunSpec spec;
    *spec.mutable_model() = model;
    spec.add_generations(1);
    spec.set_ps_count(1);
    wire::v1::Declared declared;
    declared.set_spec(spec.SerializeAsString());
    declared.set_spec_hash("12345678");
    Give(0, Kind::kDeclared, declare.parsed.header.request, declared);
    const Sent install = TakeOne(Kind::kInstall);
    wire::v1::Installed installed;
    installed.set_spec_hash("12345678");
    Give(0, Kind::kInstalled, install.parsed.header.request, installed);
    ASSERT_TRUE(core_->done(call));
    ASSERT_TRUE(core_->Take(call).status.ok());
  }

  absl::StatusOr<CallId> Push(std::vector<float> gradient) {
    return core_->StartUpdate(
        {{VariableId(0),
          absl::MakeConstSpan(reinterpret_cast<const char*>(gradient.data()), gradient.size() * sizeof(float)),
          {},
          {}}},
        nullptr, now_);
  }

  std::unique_ptr<ClientCore> core_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  std::vector<std::string> dials_;
  std::vector<uint32_t> closes_;
};

TEST_F(ClientCoreTest, OtherParameterServersAreGreetedOnlyAfterPsZeroHasGivenTheIncarnation) {
  Make(/*ps_count=*/2);
  const CallId call = core_->Connect(now_);
  const Sent first = TakeOne(Kind::kHello);
  EXPECT_EQ(first.channel, 0u);
  EXPECT_EQ(dials_, std::vector<std::string>{"h0:2222"});
  GiveWelcome(0);
  const Sent second = TakeOne(Kind::kHello);
  EXPECT_EQ(second.channel, 1u);
  wire::v1::Hello hello;
  ASSERT_TRUE(hello.ParseFromArray(second.parsed.body.data(), static_cast<int>(second.parsed.body.size())));
  EXPECT_EQ(hello.incarnation(), 5u);
  EXPECT_EQ(hello.run_id(), "run-1");
  EXPECT_FALSE(core_->done(call));
  GiveWelcome(1, 78);
  EXPECT_TRUE(core_->done(call));
}

TEST_F(ClientCoreTest, AnUnansweredPushIsSentAgainUnchangedAfterACut) {
  ConnectAndDeclare();
  const CallId call = *Push({1, 2, 3, 4});
  const Sent first = TakeOne(Kind::kUpdate);
  core_->OnCut(0, absl::UnavailableError("connection reset"), now_);
  core_->OnTime(now_);
  const Sent hello = TakeOne(Kind::kHello);
  wire::v1::Hello body;
  ASSERT_TRUE(body.ParseFromArray(hello.parsed.body.data(), static_cast<int>(hello.parsed.body.size())));
  EXPECT_EQ(body.incarnation(), 5u);
  EXPECT_EQ(body.ps_incarnation(), kPsIncarnation);
  GiveWelcome(0);
  const Sent again = TakeOne(Kind::kUpdate);
  EXPECT_EQ(again.parsed.header.request, first.parsed.header.request);
  ASSERT_EQ(again.parsed.entries.size(), 1u);
  EXPECT_EQ(again.parsed.entries[0].sequence, Sequence(1));
  EXPECT_EQ(std::string(again.parsed.payloads[0].data(), again.parsed.payloads[0].size()),
            std::string(first.parsed.payloads[0].data(), first.parsed.payloads[0].size()));
  GiveUpdated(again, 2);
  EXPECT_TRUE(core_->Take(call).status.ok());
}

TEST_F(ClientCoreTest, APushSentAgainKeepsTheLearningRateThatItWasMadeWith) {
  ConnectAndDeclare();
  core_->SetLearningRate(0.25f);
  ASSERT_TRUE(Push({1, 2, 3, 4}).ok());
  EXPECT_EQ(TakeOne(Kind::kUpdate).parsed.header.learning_rate, 0.25f);
  core_->SetLearningRate(0.125f);
  core_->OnCut(0, absl::UnavailableError("connection reset"), now_);
  core_->OnTime(now_);
  TakeSent();
  GiveWelcome(0);
  EXPECT_EQ(TakeOne(Kind::kUpdate).parsed.header.learning_rate, 0.25f);
}

TEST_F(ClientCoreTest, ARefusedPushDoesNotUseItsSequenceUp) {
  ConnectAndDeclare();
  const CallId first = *Push({1, 1, 1, 1});
  const CallId second = *Push({1, 1, 1, 1});
  const std::vector<Sent> sent = TakeSent();
  ASSERT_EQ(sent.size(), 2u);
  GiveUpdated(sent[0], 1, absl::StatusCode::kInvalidArgument);
  const CallId third = *Push({1, 1, 1, 1});  // before the answer to the second, which the lane finds to be a gap
  const Sent renumbered = TakeOne(Kind::kUpdate);
  EXPECT_EQ(renumbered.parsed.entries[0].sequence, Sequence(1));
  GiveUpdated(sent[1], 1, absl::StatusCode::kOutOfRange);
  GiveUpdated(renumbered, 2);
  EXPECT_EQ(core_->Take(first).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(core_->Take(second).status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(core_->Take(third).status.ok());
  ASSERT_TRUE(Push({1, 1, 1, 1}).ok());
  EXPECT_EQ(TakeOne(Kind::kUpdate).parsed.entries[0].sequence, Sequence(2));
}

TEST_F(ClientCoreTest, AfterARefusalAndACutPushesOfTheOldNumberingAreNotSentAgain) {
  ConnectAndDeclare();
  const CallId first = *Push({1, 1, 1, 1});
  const CallId second = *Push({1, 1, 1, 1});
  const std::vector<Sent> sent = TakeSent();
  GiveUpdated(sent[0], 1, absl::StatusCode::kInvalidArgument);
  const CallId third = *Push({1, 1, 1, 1});
  TakeSent();
  core_->OnCut(0, absl::UnavailableError("connection reset"), now_);
  core_->OnTime(now_);
  TakeSent();
  GiveWelcome(0);
  // The second would pass for a repeat of a later push, and be acknowledged without being applied.
  const Sent again = TakeOne(Kind::kUpdate);
  EXPECT_EQ(again.parsed.entries[0].sequence, Sequence(1));
  EXPECT_EQ(core_->Take(first).status.code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(core_->done(second));
  EXPECT_EQ(core_->Take(second).status.code(), absl::StatusCode::kOutOfRange);
  GiveUpdated(again, 2);
  EXPECT_TRUE(core_->Take(third).status.ok());
}

TEST_F(ClientCoreTest, ALaneThatHasLostAcknowledgedPushesIsDataLoss) {
  ConnectAndDeclare();
  const CallId call = *Push({1, 1, 1, 1});
  GiveUpdated(TakeOne(Kind::kUpdate), 2);
  ASSERT_TRUE(core_->Take(call).status.ok());
  core_->OnCut(0, absl::UnavailableError("connection reset"), now_);
  core_->OnTime(now_);
  TakeSent();
  GiveWelcome(0);  // lists no applied push
  EXPECT_EQ(core_->failure().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ClientCoreTest, AGradientOf16BitsIsSentAsItIs) {
  ConnectAndDeclare();
  std::string halves = {0, 0x3c, 0, 0x40, 0, 0x42, 0, 0x44};  // 1, 2, 3, 4 in float16
  UpdateItem item{.variable = VariableId(0), .push = halves, .push_dtype = DType::kF16};
  ASSERT_TRUE(core_->StartUpdate({item}, nullptr, now_).ok());
  const Sent sent = TakeOne(Kind::kUpdate);
  EXPECT_EQ(sent.parsed.entries.at(0).dtype, static_cast<uint8_t>(DType::kF16));
  EXPECT_EQ(std::string(sent.parsed.payloads.at(0).data(), sent.parsed.payloads.at(0).size()), halves);
  const auto refusal = [&] { return std::string(core_->StartUpdate({item}, nullptr, now_).status().message()); };
  halves[5] = 0x7c;
  EXPECT_EQ(refusal(), "gradient of \"w\" has Inf at element 2; nothing of this call was sent");
  item.push_dtype = DType::kF32;
  EXPECT_EQ(refusal(), "gradient of \"w\": the buffer has 8 bytes, the variable 16; fix the tensor's shape");
  item.push_dtype = DType::kI8;
  EXPECT_EQ(refusal(), "gradient of \"w\": elements are i8, expected f32, f16 or bf16");
  EXPECT_TRUE(TakeSent().empty());
}

TEST_F(ClientCoreTest, ANaNGradientIsRefusedBeforeAnythingLeaves) {
  ConnectAndDeclare();
  const absl::StatusOr<CallId> call = Push({1, std::nanf(""), 3, 4});
  EXPECT_EQ(call.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(call.status().message().find("NaN at element 1"), absl::string_view::npos) << call.status();
  EXPECT_NE(call.status().message().find("\"w\""), absl::string_view::npos) << call.status();
  EXPECT_TRUE(TakeSent().empty());
}

TEST_F(ClientCoreTest, AGradientOfTheWrongSizeNamesBothSizes) {
  ConnectAndDeclare();
  const absl::StatusOr<CallId> call = Push({1, 2, 3});
  EXPECT_NE(call.status().message().find("12 bytes"), absl::string_view::npos) << call.status();
  EXPECT_NE(call.status().message().find("16"), absl::string_view::npos) << call.status();
}

TEST_F(ClientCoreTest, StalenessIsTheVersionAtApplyLessTheVersionPulled) {
  ConnectAndDeclare();
  std::vector<float> parameters(4);
  const CallId pull = *core_->StartUpdate(
      {{VariableId(0), {}, {}, absl::MakeSpan(reinterpret_cast<char*>(parameters.data()), 16)}}, nullptr, now_);
  const Sent asked = TakeOne(Kind::kUpdate);
  wire::DataBuilder builder;
  wire::Entry entry;
  entry.shard = ShardId(0);
  entry.version = Version(10);
  const std::vector<float> values = {1, 2, 3, 4};
  builder.Add(entry, wire::Frame::Copy(absl::string_view(reinterpret_cast<const char*>(values.data()), 16)));
  wire::Header header;
  header.kind = Kind::kUpdated;
  header.request = asked.parsed.header.request;
  core_->OnMessage(0, std::move(builder).Build(header), now_);
  ASSERT_TRUE(core_->Take(pull).status.ok());
  EXPECT_EQ(parameters, values);
  const CallId push = *Push({1, 1, 1, 1});
  GiveUpdated(TakeOne(Kind::kUpdate), 14);  // 13 before this push: three others came between
  EXPECT_EQ(core_->Take(push).staleness_max, 3u);
}

TEST_F(ClientCoreTest, InputDoneIsSentOnlyAfterThePushesBeforeItAreAcknowledged) {
  ConnectAndDeclare();
  ASSERT_TRUE(Push({1, 1, 1, 1}).ok());
  const Sent update = TakeOne(Kind::kUpdate);
  core_->InputDone("train", 3, now_);
  EXPECT_TRUE(TakeSent().empty());
  GiveUpdated(update, 2);
  TakeOne(Kind::kInputDone);
}

TEST_F(ClientCoreTest, SmallPushesShareAMessageWhileAnotherIsUnderWay) {
  ConnectAndDeclare();
  std::vector<CallId> calls;
  for (int i = 0; i < 5; ++i) calls.push_back(*Push({1, 1, 1, 1}));
  std::vector<ClientAction> actions = core_->TakeActions();
  ASSERT_EQ(actions.size(), 1u);  // the first, since nothing was under way
  const auto first = wire::Parse(std::move(actions[0].message));
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->entries.size(), 1u);
  EXPECT_TRUE(core_->gathering());
  // Its answer lets the others go, in one message.
  GiveUpdated({.channel = 0, .parsed = *first}, 2);
  actions = core_->TakeActions();
  ASSERT_EQ(actions.size(), 1u);
  const auto second = wire::Parse(std::move(actions[0].message));
  ASSERT_TRUE(second.ok());
  ASSERT_EQ(second->entries.size(), 4u);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(second->entries[i].sequence, Sequence(2 + i));
  EXPECT_TRUE(core_->done(calls[0]));
  EXPECT_FALSE(core_->done(calls[1]));
  GiveUpdated({.channel = 0, .parsed = *second}, 6);
  for (const CallId call : calls) EXPECT_TRUE(core_->Take(call).status.ok());
  EXPECT_EQ(core_->bytes_in_flight(), 0u);
}

TEST_F(ClientCoreTest, SmallPushesLeaveAfterAMomentWithoutAnAnswer) {
  ConnectAndDeclare();
  (void)*Push({1, 1, 1, 1});
  (void)*Push({1, 1, 1, 1});
  EXPECT_EQ(core_->TakeActions().size(), 1u);
  now_ += absl::Milliseconds(5);
  EXPECT_LE(core_->next_wake(), now_);
  core_->OnTime(now_);
  EXPECT_FALSE(core_->gathering());
  EXPECT_EQ(core_->TakeActions().size(), 1u);
}

TEST_F(ClientCoreTest, AnotherLearningRateBeginsAnotherMessage) {
  ConnectAndDeclare();
  (void)*Push({1, 1, 1, 1});
  (void)*Push({1, 1, 1, 1});
  core_->SetLearningRate(0.5f);
  (void)*Push({1, 1, 1, 1});
  const std::vector<Sent> sent = TakeSent();
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_TRUE(std::isnan(sent[1].parsed.header.learning_rate));
  EXPECT_EQ(sent[2].parsed.header.learning_rate, 0.5f);
}

TEST_F(ClientCoreTest, AFencedClientFailsForGoodWithTheReplacementsName) {
  ConnectAndDeclare();
  const CallId call = *Push({1, 1, 1, 1});
  const Sent update = TakeOne(Kind::kUpdate);
  GiveError(0, update.parsed.header.request, absl::StatusCode::kAborted, "worker 0 was replaced by pid 9 on host b");
  EXPECT_EQ(core_->Take(call).status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(core_->failure().code(), absl::StatusCode::kAborted);
  EXPECT_NE(core_->failure().message().find("pid 9 on host b"), absl::string_view::npos);
}

TEST_F(ClientCoreTest, APsThatStaysAwayFailsTheClientNamingItAndTheReason) {
  ConnectAndDeclare();
  const CallId call = *Push({1, 1, 1, 1});
  core_->OnCut(0, absl::UnavailableError("connection refused"), now_);
  for (int i = 0; i < 100 && core_->failure().ok(); ++i) {
    now_ = std::max(now_ + absl::Milliseconds(1), core_->next_wake());
    core_->OnTime(now_);
    TakeSent();
    core_->OnCut(0, absl::UnavailableError("connection refused"), now_);
  }
  const absl::Status status = core_->Take(call).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("h0:2222"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("connection refused"), absl::string_view::npos) << status;
}

TEST_F(ClientCoreTest, ASilentPsIsDialledAgain) {
  ConnectAndDeclare();
  now_ = core_->next_wake();
  core_->OnTime(now_);
  TakeOne(Kind::kHeartbeat);
  now_ += absl::Seconds(5);
  core_->OnTime(now_);
  TakeOne(Kind::kHello);
  EXPECT_EQ(closes_, std::vector<uint32_t>{0});
}

TEST_F(ClientCoreTest, AnIdleClientSendsAHeartbeatEveryInterval) {
  ConnectAndDeclare();
  for (int i = 0; i < 5; ++i) {
    const absl::Time before = now_;
    now_ = core_->next_wake();
    EXPECT_LE(now_, before + absl::Seconds(1));
    core_->OnTime(now_);
    const Sent heartbeat = TakeOne(Kind::kHeartbeat);
    now_ += absl::Milliseconds(10);
    Give(0, Kind::kRunState, heartbeat.parsed.header.request, wire::v1::RunState());
  }
}

TEST_F(ClientCoreTest, AClaimedTaskIsTriedAgainAndThenRefusedNamingTheHolder) {
  Make();
  const CallId call = core_->Connect(now_);
  TakeSent();
  GiveError(0, 0, absl::StatusCode::kAlreadyExists, "worker 0 is held by pid 12 on host a");
  EXPECT_FALSE(core_->done(call));
  for (int i = 0; i < 100 && !core_->done(call); ++i) {
    now_ = std::max(now_ + absl::Milliseconds(1), core_->next_wake());
    core_->OnTime(now_);
    if (!TakeSent().empty()) GiveError(0, 0, absl::StatusCode::kAlreadyExists, "worker 0 is held by pid 12 on host a");
  }
  const absl::Status status = core_->Take(call).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_NE(status.message().find("pid 12 on host a"), absl::string_view::npos) << status;
}

TEST_F(ClientCoreTest, AnAnswerThatCannotBeReadFailsTheClientAndNamesThePs) {
  ConnectAndDeclare();
  wire::Message garbage;
  garbage.frames.push_back(
      wire::Frame::Copy("not a Basin message at all, and long enough for no header to be missing in it, really"));
  core_->OnMessage(0, std::move(garbage), now_);
  EXPECT_FALSE(core_->failure().ok());
  EXPECT_NE(core_->failure().message().find("h0:2222"), absl::string_view::npos) << core_->failure();
}

}  // namespace
}  // namespace basin
