// A lane of ps 0 that has let a worker in, and then gets whatever the input says: no message may crash it, make it
// answer more than one message to one, or keep a well-behaved worker from its next push.
#include <cstdint>
#include <cstring>
#include <string>

#include "cluster_spec/table_placement.h"
#include "common/base/dtype.h"
#include "common/base/status_macros.h"
#include "common/wire/header.h"
#include "ps/lane_core.h"

namespace {

using namespace basin;  // NOLINT: a program of one file

constexpr wire::PeerId kHonest = 1, kHostile = 2;
constexpr size_t kElements = 64;
constexpr uint32_t kDim = 2;

// A key of the bucket.
uint64_t KeyOf(uint32_t bucket) {
  static const TablePlacement placement = TablePlacement::Make(1);
  uint64_t key = 0;
  while (placement.BucketOf(key) != bucket) ++key;
  return key;
}

// A worker that does as the protocol says.
class Honest {
 public:
  Honest(LaneCore& lane, wire::PeerId peer, uint32_t index, absl::Time now)
      : lane_(lane), peer_(peer), index_(index), now_(now) {}

  void Join() {
    wire::v1::Hello hello;
    hello.set_protocol_version(wire::kProtocolVersion);
    hello.set_role(wire::v1::ROLE_WORKER);
    hello.set_index(index_);
    hello.set_client_id(std::to_string(index_));
    hello.set_ps_count(1);
    hello.set_is_chief(index_ == 0);
    const auto welcome = Ask<wire::v1::Welcome>(wire::Kind::kHello, hello);
    header_.run = wire::RunHash(welcome.run_id());
    header_.ps_incarnation = welcome.ps_incarnation();
    header_.incarnation = Incarnation(welcome.incarnation());
    header_.worker = wire::WorkerKey(wire::v1::ROLE_WORKER, index_);
  }
  void Declare() {
    wire::v1::Declare declare;
    declare.set_is_chief(true);
    auto* variable = declare.mutable_model()->add_variables();
    variable->set_name("w");
    variable->set_dtype(static_cast<uint32_t>(DType::kF32));
    variable->add_shape(kElements);
    variable->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
    declare.mutable_model()->mutable_rule()->set_kind(wire::v1::RULE_KIND_SGD);
    declare.mutable_model()->mutable_rule()->set_learning_rate(1);
    declare.mutable_model()->set_consistency(wire::v1::CONSISTENCY_ASYNC);
    auto* table = declare.mutable_model()->add_tables();
    table->set_name("t");
    table->set_dim(kDim);
    table->set_storage(static_cast<uint32_t>(DType::kF32));
    table->mutable_initializer()->set_kind(wire::v1::INIT_KIND_ZEROS);
    table->set_admit_after(1);
    table->set_admit_probability(1);
    table->set_evict_unused_ms(20);
    auto* input = declare.mutable_model()->add_inputs();
    input->set_name("in");
    input->set_items(10);
    input->set_piece_items(1);
    input->set_epochs(2);
    const auto declared = Ask<wire::v1::Declared>(wire::Kind::kDeclare, declare);
    wire::v1::Install install;
    install.set_spec(declared.spec());
    install.set_spec_hash(declared.spec_hash());
    install.add_lanes(1);
    Ask<wire::v1::Installed>(wire::Kind::kInstall, install);
  }
  void Push(uint64_t sequence) {
    wire::DataBuilder builder;
    wire::Entry entry;
    entry.shard = ShardId(0);
    entry.dtype = static_cast<uint8_t>(DType::kF32);
    entry.flags = wire::kPush;
    entry.sequence = Sequence(sequence);
    builder.Add(entry, wire::Frame::Copy(std::string(kElements * sizeof(float), '\0')));
    header_.kind = wire::Kind::kUpdate;
    ++header_.request;
    const auto answer = Exchange(std::move(builder).Build(header_));
    BASIN_CHECK(answer.entries.size() == 1 && answer.entries[0].code == 0);
  }
  const wire::Header& header() const { return header_; }

 private:
  template <class Answer, class Body>
  Answer Ask(wire::Kind kind, const Body& body) {
    header_.kind = kind;
    if (kind != wire::Kind::kHello) ++header_.request;
    const wire::Parsed parsed = Exchange(wire::MakeControl(header_, body.SerializeAsString()));
    Answer answer;
    BASIN_CHECK(parsed.header.kind != wire::Kind::kError);
    BASIN_CHECK(answer.ParseFromArray(parsed.body.data(), static_cast<int>(parsed.body.size())));
    return answer;
  }
  wire::Parsed Exchange(wire::Message message) {
    for (Reply& reply : lane_.OnMessage(peer_, std::move(message), now_)) {
      if (reply.peer != peer_) continue;
      absl::StatusOr<wire::Parsed> parsed = wire::Parse(std::move(reply.message));
      BASIN_CHECK(parsed.ok());
      return *std::move(parsed);
    }
    BASIN_CHECK(!"an answer");
    return {};
  }

  LaneCore& lane_;
  const wire::PeerId peer_;
  const uint32_t index_;
  const absl::Time now_;
  wire::Header header_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::Time now = absl::FromUnixSeconds(1000);
  LaneCoreOptions options;
  options.ps_count = 1;
  options.run_id = "fuzz";
  options.memory_limit_bytes = size_t{16} << 20;
  LaneCore lane(std::move(options));
  Honest chief(lane, kHonest, 0, now);
  chief.Join();
  chief.Declare();
  Honest hostile(lane, kHostile, 1, now);
  hostile.Join();

  // The input is a row of messages: kind, length of the rest, and the bytes behind the header. The hostile peer knows
  // the run and its own incarnation, so that what it says gets past the header's checks; one in eight is sent as it is.
  while (size >= 3) {
    const uint8_t kind = data[0];
    const size_t length = std::min<size_t>(data[1] | size_t{data[2]} << 8, size - 3);
    const std::string bytes(reinterpret_cast<const char*>(data + 3), length);
    data += 3 + length;
    size -= 3 + length;
    wire::Message message;
    if (kind % 8 == 7) {
      message.frames.push_back(wire::Frame::Copy(bytes));
    } else if (kind / 8 % 4 == 0) {
      // A data message whose entries and payload come from the input.
      wire::Header header = hostile.header();
      header.kind = wire::Kind::kUpdate;
      wire::DataBuilder builder;
      for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
        wire::Entry entry;
        entry.shard = ShardId(static_cast<uint8_t>(bytes[at]) % 3);
        entry.dtype = static_cast<uint8_t>(bytes[at + 1]);
        entry.flags = static_cast<uint8_t>(bytes[at + 2]) & ~wire::kInline;
        entry.sequence = Sequence(static_cast<uint8_t>(bytes[at + 3]));
        entry.version = Version(static_cast<uint8_t>(bytes[at + 4]));
        const size_t payload =
            static_cast<uint8_t>(bytes[at + 5]) & 1 ? kElements * sizeof(float) : bytes[at + 6] & 0x7f;
        if (bytes[at] & 0x80) {
          // Rows of a table: the input says how many, and whether key, size and flags are right.
          entry.shard = BucketShard(bytes[at] & 0x40 ? 1 : 0, static_cast<uint8_t>(bytes[at + 7]));
          entry.rows = bytes[at + 6] & 7;
          std::string rows;
          for (uint32_t i = 0; i < entry.rows; ++i) {
            const uint64_t key = KeyOf(static_cast<uint8_t>(bytes[at + 7]) ^ (bytes[at] & 1));
            rows.append(reinterpret_cast<const char*>(&key), sizeof(key));
          }
          if (entry.flags & wire::kPush) rows.append(entry.rows * kDim * sizeof(float), bytes[at + 5]);
          if (bytes[at] & 2) rows.push_back(0);
          builder.Add(entry, rows.empty() ? wire::Frame() : wire::Frame::Copy(rows));
          continue;
        }
        builder.Add(entry, payload == 0 ? wire::Frame() : wire::Frame::Copy(std::string(payload, bytes[at + 7])));
      }
      message = std::move(builder).Build(header);
    } else {
      wire::Header header = hostile.header();
      header.kind = static_cast<wire::Kind>(1 + kind / 32 * 8 + kind % 8);
      header.request = length;
      message = wire::MakeControl(header, bytes);
    }
    lane.OnMessage(kHostile, std::move(message), now);
    now += absl::Milliseconds(1);
    lane.OnTime(now);
  }
  chief.Push(1);
  return 0;
}
