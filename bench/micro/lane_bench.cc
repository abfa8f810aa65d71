// What a lane does with a push and with a pull, from the received message to the answer; no socket.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/status_macros.h"
#include "common/wire/header.h"
#include "ps/lane_core.h"
#include "ps/shard.h"

namespace basin {
namespace {

constexpr wire::PeerId kPeer = 1;

// A lane with one client and variables of `bytes` each, trained by SGD.
class LaneWithClient {
 public:
  explicit LaneWithClient(size_t bytes, int variables = 1) : core_(OptionsOf()) {
    wire::v1::Hello hello;
    hello.set_protocol_version(wire::kProtocolVersion);
    hello.set_role(wire::v1::ROLE_WORKER);
    hello.set_client_id("bench");
    hello.set_ps_count(1);
    hello.set_is_chief(true);
    const auto welcome = Ask<wire::v1::Welcome>(wire::Kind::kHello, hello);
    header_.run = wire::RunHash(welcome.run_id());
    header_.ps_incarnation = welcome.ps_incarnation();
    header_.incarnation = Incarnation(welcome.incarnation());
    header_.worker = wire::WorkerKey(wire::v1::ROLE_WORKER, 0);
    wire::v1::Declare declare;
    declare.set_is_chief(true);
    for (int i = 0; i < variables; ++i) {
      auto* variable = declare.mutable_model()->add_variables();
      variable->set_name(absl::StrCat("w", i));
      variable->set_dtype(static_cast<uint32_t>(DType::kF32));
      variable->add_shape(static_cast<int64_t>(bytes / sizeof(float)));
      variable->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
    }
    declare.mutable_model()->mutable_rule()->set_kind(wire::v1::RULE_KIND_SGD);
    declare.mutable_model()->mutable_rule()->set_learning_rate(1e-6f);
    declare.mutable_model()->set_consistency(wire::v1::CONSISTENCY_ASYNC);
    const auto declared = Ask<wire::v1::Declared>(wire::Kind::kDeclare, declare);
    wire::v1::Install install;
    install.set_spec(declared.spec());
    install.set_spec_hash(declared.spec_hash());
    install.add_lanes(1);
    Ask<wire::v1::Installed>(wire::Kind::kInstall, install);
    while (core_.shard(ShardId(shards_)) != nullptr) ++shards_;
  }

  // One message with every shard; `flags` of its entries.
  void Update(uint16_t flags, const std::vector<wire::Frame>& gradients) {
    wire::DataBuilder builder;
    ++sequence_;
    for (uint32_t shard = 0; shard < shards_; ++shard) {
      wire::Entry entry;
      entry.shard = ShardId(shard);
      entry.dtype = static_cast<uint8_t>(DType::kF32);
      entry.flags = flags;
      if (flags & wire::kPush) entry.sequence = Sequence(sequence_);
      builder.Add(entry, flags & wire::kPush ? gradients[shard] : wire::Frame());
    }
    header_.kind = wire::Kind::kUpdate;
    ++header_.request;
    const std::vector<Reply> replies = core_.OnMessage(kPeer, std::move(builder).Build(header_), now_);
    BASIN_CHECK(replies.size() == 1);
    const absl::StatusOr<wire::Parsed> answer = wire::Parse(replies[0].message);
    BASIN_CHECK(answer.ok() && answer->entries.size() == shards_ && answer->entries[0].code == 0);
  }

  std::vector<wire::Frame> Gradients() const {
    std::vector<wire::Frame> frames;
    for (uint32_t shard = 0; shard < shards_; ++shard) {
      const size_t bytes = core_.shard(ShardId(shard))->bytes();
      frames.push_back(wire::Frame::Make(bytes, [&](char* out) { std::fill(out, out + bytes, '\0'); }));
    }
    return frames;
  }

 private:
  static LaneCoreOptions OptionsOf() {
    LaneCoreOptions options;
    options.ps_count = 1;
    options.run_id = "bench";
    return options;
  }

  template <class Answer, class Body>
  Answer Ask(wire::Kind kind, const Body& body) {
    header_.kind = kind;
    if (kind != wire::Kind::kHello) ++header_.request;
    const std::vector<Reply> replies =
        core_.OnMessage(kPeer, wire::MakeControl(header_, body.SerializeAsString()), now_);
    BASIN_CHECK(replies.size() == 1);
    const absl::StatusOr<wire::Parsed> parsed = wire::Parse(replies[0].message);
    Answer answer;
    BASIN_CHECK(parsed.ok() && parsed->header.kind != wire::Kind::kError &&
                answer.ParseFromArray(parsed->body.data(), static_cast<int>(parsed->body.size())));
    return answer;
  }

  LaneCore core_;
  wire::Header header_;
  uint32_t shards_ = 0;
  uint64_t sequence_ = 0;
  const absl::Time now_ = absl::FromUnixSeconds(1);
};

void BM_LanePush(benchmark::State& state) {
  LaneWithClient lane(static_cast<size_t>(state.range(0)));
  const std::vector<wire::Frame> gradients = lane.Gradients();
  for (auto _ : state) lane.Update(wire::kPush, gradients);
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_LanePush)->ArgName("bytes")->Arg(64)->Arg(64 << 10)->Arg(1 << 20)->Arg(16 << 20);

// A gathered message of small pushes, each applied on its own.
void BM_LanePushSmall(benchmark::State& state) {
  LaneWithClient lane(64, static_cast<int>(state.range(0)));
  const std::vector<wire::Frame> gradients = lane.Gradients();
  for (auto _ : state) lane.Update(wire::kPush, gradients);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_LanePushSmall)->ArgName("pushes")->Arg(64)->Arg(1024);

void BM_LanePull(benchmark::State& state) {
  LaneWithClient lane(static_cast<size_t>(state.range(0)));
  for (auto _ : state) lane.Update(wire::kPull, {});
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_LanePull)->ArgName("bytes")->Arg(64)->Arg(64 << 10)->Arg(1 << 20)->Arg(16 << 20);

}  // namespace
}  // namespace basin
