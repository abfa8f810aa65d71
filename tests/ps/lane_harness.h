// A lane on a desk: messages in, messages out, without sockets.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/codec/half.h"
#include "common/wire/control.pb.h"
#include "common/wire/header.h"
#include "ps/lane_core.h"

namespace basin {

inline constexpr uint64_t kPsLife = 77;

inline wire::v1::Model OneVariable(int64_t elements, wire::v1::RuleKind rule = wire::v1::RULE_KIND_SGD) {
  wire::v1::Model model;
  auto* variable = model.add_variables();
  variable->set_name("w");
  variable->set_dtype(static_cast<uint32_t>(DType::kF32));
  variable->add_shape(elements);
  variable->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
  model.mutable_rule()->set_kind(rule);
  model.mutable_rule()->set_learning_rate(1);
  model.mutable_rule()->set_momentum(0.5f);
  model.mutable_rule()->set_beta1(0.9f);
  model.mutable_rule()->set_beta2(0.999f);
  model.mutable_rule()->set_epsilon(1e-7f);
  return model;
}

inline wire::v1::Input* AddInput(wire::v1::Model& model, uint64_t items, uint64_t piece_items = 1,
                                 uint32_t epochs = 1) {
  auto* input = model.add_inputs();
  input->set_name("train");
  input->set_items(items);
  input->set_piece_items(piece_items);
  input->set_epochs(epochs);
  return input;
}

inline std::string Floats(std::vector<float> values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

// The same in 16 bits; `type` is kF16 or kBF16.
inline std::string Halves(DType type, const std::vector<float>& values) {
  std::string halves(values.size() * 2, '\0');
  Narrow(type, values.data(), values.size(), halves.data());
  return halves;
}

inline std::vector<float> ToFloats(absl::string_view bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

// An answer, read.
struct Heard {
  wire::PeerId peer = 0;
  wire::Parsed message;

  wire::Kind kind() const { return message.header.kind; }
  template <class Proto>
  Proto As() const {
    Proto proto;
    proto.ParseFromArray(message.body.data(), static_cast<int>(message.body.size()));
    return proto;
  }
  // OK unless it is an Error.
  absl::Status status() const {
    if (kind() != wire::Kind::kError) return absl::OkStatus();
    const auto refusal = As<wire::v1::Refusal>();
    return absl::Status(static_cast<absl::StatusCode>(refusal.code()), refusal.message());
  }
};

struct TestEntry {
  uint32_t shard = 0;
  uint16_t flags = 0;
  uint64_t sequence = 0;
  uint64_t version = 0;
  std::string payload;
  uint32_t rows = 0;
  DType dtype = DType::kF32;
};

class LaneHarness {
 public:
  static LaneCoreOptions DefaultOptions() {
    LaneCoreOptions options;
    options.ps_count = 1;
    options.ps_incarnation = kPsLife;
    options.run_id = "run";
    options.host = "here";
    return options;
  }
  explicit LaneHarness(LaneCoreOptions options = DefaultOptions()) : options_(options), core(std::move(options)) {}

  wire::v1::Hello HelloOf(wire::v1::Role role, uint32_t index, const std::string& client_id) const {
    wire::v1::Hello hello;
    hello.set_protocol_version(wire::kProtocolVersion);
    hello.set_run_id("run");
    hello.set_role(role);
    hello.set_index(index);
    hello.set_client_id(client_id);
    hello.set_host(absl::StrCat("host-of-", client_id));
    hello.set_pid(4711);
    hello.set_ps_ordinal(options_.ordinal.value());
    hello.set_ps_count(1);
    hello.set_lane(options_.lane.value());
    return hello;
  }
  // All answers, in order.
  std::vector<Heard> Give(wire::PeerId peer, wire::Message message) {
    return Read(core.OnMessage(peer, std::move(message), now));
  }
  std::vector<Heard> Tick() { return Read(core.OnTime(now)); }

  Heard SayHello(wire::PeerId peer, const wire::v1::Hello& hello) {
    wire::Header header;
    header.kind = wire::Kind::kHello;
    std::vector<Heard> heard = Give(peer, wire::MakeControl(header, hello.SerializeAsString()));
    if (heard.at(0).kind() == wire::Kind::kWelcome) {
      headers_[peer] = header;
      headers_[peer].run = wire::RunHash("run");
      headers_[peer].ps_incarnation = options_.ps_incarnation;
      headers_[peer].incarnation = Incarnation(heard[0].As<wire::v1::Welcome>().incarnation());
      headers_[peer].worker =
          wire::WorkerKey(hello.role(), hello.role() == wire::v1::ROLE_OBSERVER ? hello.index() : hello.index());
    }
    return std::move(heard[0]);
  }
  // A worker that has joined; worker 0 is the chief.
  Heard Join(wire::PeerId peer, uint32_t index, const std::string& client_id = "") {
    wire::v1::Hello hello =
        HelloOf(wire::v1::ROLE_WORKER, index, client_id.empty() ? absl::StrCat("c", index) : client_id);
    hello.set_is_chief(index == 0);
    return SayHello(peer, hello);
  }
  wire::Header& header(wire::PeerId peer) { return headers_[peer]; }

  template <class Proto>
  std::vector<Heard> Ask(wire::PeerId peer, wire::Kind kind, const Proto& body, uint64_t request = 1) {
    wire::Header header = headers_[peer];
    header.kind = kind;
    header.request = request;
    return Give(peer, wire::MakeControl(header, body.SerializeAsString()));
  }
  std::vector<Heard> Declare(wire::PeerId peer, const wire::v1::Model& model, uint64_t request = 1) {
    wire::v1::Declare declare;
    *declare.mutable_model() = model;
    return Ask(peer, wire::Kind::kDeclare, declare, request);
  }
  std::vector<Heard> Install(wire::PeerId peer, const wire::v1::Declared& declared) {
    wire::v1::Install install;
    install.set_spec(declared.spec());
    install.set_spec_hash(declared.spec_hash());
    install.add_lanes(options_.lanes);
    return Ask(peer, wire::Kind::kInstall, install);
  }
  // The chief declares and installs.
  void SetUpModel(wire::PeerId chief, const wire::v1::Model& model) {
    Install(chief, Declare(chief, model).at(0).As<wire::v1::Declared>());
  }

  wire::Message UpdateMessage(wire::PeerId peer, const std::vector<TestEntry>& entries, uint64_t request = 1) {
    wire::Header header = headers_[peer];
    header.kind = wire::Kind::kUpdate;
    header.request = request;
    wire::DataBuilder builder;
    for (const TestEntry& entry : entries) {
      wire::Entry out{.shard = ShardId(entry.shard), .dtype = static_cast<uint8_t>(entry.dtype), .flags = entry.flags};
      out.sequence = Sequence(entry.sequence);
      out.version = Version(entry.version);
      out.rows = entry.rows;
      builder.Add(out, wire::Frame::Copy(entry.payload));
    }
    return std::move(builder).Build(header);
  }
  Heard Update(wire::PeerId peer, const std::vector<TestEntry>& entries) {
    return std::move(Give(peer, UpdateMessage(peer, entries)).at(0));
  }
  // The one entry's code.
  absl::StatusCode Push(wire::PeerId peer, uint64_t sequence, std::vector<float> gradient) {
    const Heard heard =
        Update(peer, {{.flags = wire::kPush, .sequence = sequence, .payload = Floats(std::move(gradient))}});
    return static_cast<absl::StatusCode>(heard.message.entries.at(0).code);
  }
  std::vector<float> Pull(wire::PeerId peer, uint32_t shard = 0) {
    const Heard heard = Update(peer, {{.shard = shard, .flags = wire::kPull}});
    const absl::Span<const char> payload = heard.message.payloads.at(0);
    return ToFloats({payload.data(), payload.size()});
  }
  wire::v1::RunState Beat(wire::PeerId peer) {
    return Ask(peer, wire::Kind::kHeartbeat, wire::v1::Heartbeat()).at(0).As<wire::v1::RunState>();
  }
  std::vector<Heard> Step(wire::PeerId peer, uint64_t clock) {
    wire::v1::Step step;
    step.set_clock(clock);
    return Ask(peer, wire::Kind::kStep, step);
  }
  std::vector<Heard> NextInput(wire::PeerId peer, uint64_t number, uint64_t request = 1) {
    wire::v1::NextInput next;
    next.set_name("train");
    next.set_number(number);
    return Ask(peer, wire::Kind::kNextInput, next, request);
  }
  std::vector<Heard> InputDone(wire::PeerId peer, uint64_t piece) {
    wire::v1::InputDone done;
    done.set_name("train");
    done.set_piece(piece);
    return Ask(peer, wire::Kind::kInputDone, done);
  }
  std::vector<Heard> Barrier(wire::PeerId peer, uint64_t number, uint64_t request = 1) {
    wire::v1::Barrier barrier;
    barrier.set_name("b");
    barrier.set_number(number);
    return Ask(peer, wire::Kind::kBarrier, barrier, request);
  }

 private:
  static std::vector<Heard> Read(std::vector<Reply> replies) {
    std::vector<Heard> out;
    for (Reply& reply : replies) out.push_back({reply.peer, *wire::Parse(std::move(reply.message))});
    return out;
  }

  const LaneCoreOptions options_;
  std::map<wire::PeerId, wire::Header> headers_;

 public:
  LaneCore core;
  absl::Time now = absl::FromUnixSeconds(1000);
};

}  // namespace basin
