// Lanes on real threads over the in-process transport.
#include "ps/server.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

#include "absl/time/clock.h"
#include "cluster_spec/placement.h"
#include "common/wire/inproc_transport.h"
#include "tests/ps/lane_harness.h"

namespace basin {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(300);

// A client that waits for each answer.
class PatientClient {
 public:
  PatientClient(wire::InprocNetwork& network, const std::string& address, uint32_t lane)
      : dialer_(network.MakeDialer()), channel_(dialer_->Dial(address)), lane_(lane) {}

  wire::v1::Welcome SayHello(uint64_t incarnation, const std::string& run_id) {
    wire::v1::Hello hello;
    hello.set_protocol_version(wire::kProtocolVersion);
    hello.set_run_id(run_id);
    hello.set_role(wire::v1::ROLE_WORKER);
    hello.set_client_id("client");
    hello.set_incarnation(incarnation);
    hello.set_ps_count(1);
    hello.set_lane(lane_);
    hello.set_is_chief(true);
    const Heard heard = Ask(wire::Kind::kHello, hello);
    EXPECT_TRUE(heard.status().ok()) << heard.status();
    const auto welcome = heard.As<wire::v1::Welcome>();
    header.run = wire::RunHash(welcome.run_id());
    header.ps_incarnation = welcome.ps_incarnation();
    header.incarnation = Incarnation(welcome.incarnation());
    header.worker = wire::WorkerKey(wire::v1::ROLE_WORKER, 0);
    return welcome;
  }
  template <class Proto>
  Heard Ask(wire::Kind kind, const Proto& body) {
    header.kind = kind;
    ++header.request;
    return Exchange(wire::MakeControl(header, body.SerializeAsString()));
  }
  Heard Exchange(wire::Message message) {
    EXPECT_TRUE(channel_->Send(std::move(message)).ok());
    const absl::Time deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      auto received = channel_->Receive();
      if (!received.ok()) {
        ADD_FAILURE() << received.status();
        break;
      }
      if (*received) return {0, *wire::Parse(std::move(**received))};
      dialer_->Wait(deadline);
    }
    ADD_FAILURE() << "no answer";
    return {};
  }
  // Pushes ones to a shard and returns the version.
  uint64_t Push(uint32_t shard, uint64_t sequence, size_t elements) {
    header.kind = wire::Kind::kUpdate;
    ++header.request;
    wire::DataBuilder builder;
    builder.Add({.shard = ShardId(shard),
                 .dtype = static_cast<uint8_t>(DType::kF32),
                 .flags = wire::kPush | wire::kPull,
                 .sequence = Sequence(sequence)},
                wire::Frame::Copy(Floats(std::vector<float>(elements, 1))));
    const Heard heard = Exchange(std::move(builder).Build(header));
    EXPECT_EQ(heard.message.entries.at(0).code, 0);
    for (const float value : ToFloats({heard.message.payloads.at(0).data(), heard.message.payloads.at(0).size()}))
      EXPECT_EQ(value, -static_cast<float>(sequence));
    return heard.message.entries.at(0).version.value();
  }

  wire::Header header;

 private:
  std::unique_ptr<wire::Dialer> dialer_;
  std::unique_ptr<wire::Channel> channel_;
  const uint32_t lane_;
};

ServerOptions OptionsOf(uint32_t lanes) {
  ServerOptions options;
  options.view.self = {Role::kPs, 0};
  options.view.self_address = "ps0:1";
  options.view.ps = {{0, "ps0:1"}};
  options.view.self_ps = PsOrdinal(0);
  options.view.workers = {{0, "worker0:1"}};
  options.view.chief = {Role::kWorker, 0};
  options.lanes = lanes;
  return options;
}

Server::Listen ListenIn(wire::InprocNetwork& network) {
  return [&network](uint32_t lane) { return network.Listen(lane == 0 ? "ps0:1" : "ps0:0"); };
}

bool Finished(const Server& server) {
  pollfd entry{.fd = server.finished_fd(), .events = POLLIN, .revents = 0};
  return poll(&entry, 1, static_cast<int>(absl::ToInt64Milliseconds(kPatience))) > 0;
}

TEST(ServerTest, ServesARunFromHelloToItsEnd) {
  wire::InprocNetwork network;
  const std::unique_ptr<Server> server = *Server::Start(OptionsOf(2), ListenIn(network));
  EXPECT_EQ(server->missing(), (std::vector<TaskId>{{Role::kWorker, 0}}));
  PatientClient lane0(network, server->address(), 0);
  const auto welcome = lane0.SayHello(0, "");
  EXPECT_EQ(welcome.run_id(), server->run_id());
  ASSERT_EQ(welcome.lane_addresses_size(), 2);
  PatientClient lane1(network, welcome.lane_addresses(1), 1);
  lane1.SayHello(welcome.incarnation(), welcome.run_id());

  wire::v1::Declare declare;
  *declare.mutable_model() = OneVariable(2 * 8192);
  const auto declared = lane0.Ask(wire::Kind::kDeclare, declare).As<wire::v1::Declared>();
  wire::v1::Install install;
  install.set_spec(declared.spec());
  install.set_spec_hash(declared.spec_hash());
  install.add_lanes(2);
  EXPECT_TRUE(lane0.Ask(wire::Kind::kInstall, install).status().ok());
  EXPECT_TRUE(lane1.Ask(wire::Kind::kInstall, install).status().ok());

  // Both lanes at once, each with a shard of its own; the replies' blocks go back from this thread.
  wire::v1::RunSpec spec;
  spec.ParseFromString(declared.spec());
  const Placement placement = *Placement::Make(1).Extend({{{"w", DType::kF32, {2 * 8192}}}});
  ASSERT_GE(placement.shards().size(), 2u);
  std::vector<std::thread> threads;
  for (uint32_t shard = 0; shard < 2; ++shard) {
    PatientClient& client = placement.lane_of(ShardId(shard), 2).value() == 0 ? lane0 : lane1;
    threads.emplace_back([&client, shard, elements = placement.shard(ShardId(shard)).elements()] {
      for (uint64_t i = 1; i <= 100; ++i) EXPECT_EQ(client.Push(shard, i, elements), i + 1);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(server->missing().empty());

  EXPECT_TRUE(lane0.Ask(wire::Kind::kFinish, wire::v1::Finish()).status().ok());
  wire::v1::Goodbye goodbye;
  goodbye.set_run_finished(true);
  EXPECT_TRUE(lane0.Ask(wire::Kind::kGoodbye, goodbye).status().ok());
  EXPECT_TRUE(lane1.Ask(wire::Kind::kGoodbye, goodbye).status().ok());
  EXPECT_TRUE(Finished(*server));
  EXPECT_TRUE(server->run_over());
  server->End();
  EXPECT_NE(server->Summary().find("200 updates applied"), std::string::npos) << server->Summary();
}

TEST(ServerTest, EndsWhenItIsToldTo) {
  wire::InprocNetwork network;
  const std::unique_ptr<Server> server = *Server::Start(OptionsOf(3), ListenIn(network));
  server->End();
  EXPECT_FALSE(server->run_over());
}

TEST(ServerTest, ATakenAddressIsAnErrorAndNothingRuns) {
  wire::InprocNetwork network;
  const auto taken = network.Listen("ps0:1");
  EXPECT_EQ(Server::Start(OptionsOf(2), ListenIn(network)).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST(ServerTest, MetricsAreServed) {
  wire::InprocNetwork network;
  ServerOptions options = OptionsOf(1);
  options.metrics_host = "127.0.0.1";
  options.metrics_port = 0;
  const std::unique_ptr<Server> server = *Server::Start(options, ListenIn(network));
  EXPECT_GT(server->metrics_port().value_or(0), 0);
}

}  // namespace
}  // namespace basin
