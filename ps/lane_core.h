// What a lane decides: whom it lets in, what a push does to its shards, what is answered. Pure: no thread, no socket,
// no clock of its own, no iteration over a hash map. It takes messages and the time, and returns messages; LaneThread
// carries them on a real transport, the simulation on a virtual one. The protocol: docs/wire.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster_spec/cluster_spec.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/wire/control.pb.h"
#include "common/wire/header.h"
#include "common/wire/transport.h"
#include "ps/lane_blocks.h"
#include "ps/lane_counters.h"
#include "ps/session_table.h"

namespace basin {

class BlockPool;
class Coordinator;
class Presence;
class LaneRows;
class RunModel;
class Shard;
class ShardDevice;
struct Answer;

struct LaneCoreOptions {
  PsOrdinal ordinal;            // of this ps
  LaneIndex lane;               // ps 0, lane 0 is the coordinator
  uint32_t lanes = 1;           // of this ps
  uint32_t ps_count = 0;        // 0: not known, the first Hello tells
  uint64_t ps_incarnation = 1;  // of this life of the ps; random, not 0, the same on all its lanes
  // ps 0 needs one (made up where none was given); others take it with the first Hello where it is empty.
  std::string run_id;
  std::string token;  // empty: none is asked for
  std::string host;   // of this process, for messages
  uint64_t pid = 0;
  // Of all lanes of this ps, as peers dial them; [0] is "". Empty: lane 0 is the only one.
  std::vector<std::string> lane_addresses;
  std::string address;  // of lane 0, as TF_CONFIG names it, for messages and Stats
  // The tasks that train, where TF_CONFIG names them (else any may come), and which of them is the chief.
  std::vector<TaskId> trainers;
  std::optional<TaskId> chief;
  absl::Duration heartbeat = absl::Seconds(1);
  absl::Duration dead_after = absl::Seconds(10);
  absl::Duration finish_grace = absl::Seconds(60);
  // Of shards' blocks over all lanes, when `pool` is not given. 0: no limit.
  size_t memory_limit_bytes = 0;
  // Shards of fewer bytes are copied into answers to that peer, others referred to. None: kInlinePayloadBytes.
  std::function<size_t(wire::PeerId)> inline_below;
  // As wire::Listener::PeerProcess. None: no device's memory is lent.
  LaneBlocks::PeerProcess peer_process;
  std::shared_ptr<BlockPool> pool;      // shared by the lanes of a ps; none: the lane makes its own
  std::shared_ptr<ShardDevice> device;  // where the lane's shards, and tables that it can hold, lie; none: on the host
  std::shared_ptr<LaneCounters> counters;                      // none: the lane makes its own
  std::vector<std::shared_ptr<const LaneCounters>> all_lanes;  // of this ps, for Stats; may be empty
  absl::Time started = absl::UnixEpoch();                      // for "uptime_s"
  std::function<void(uint64_t)> on_staleness;                  // of each push applied, for a histogram; may be empty
};

struct Reply {
  wire::PeerId peer = 0;
  wire::Message message;
};

// Not thread-safe: one thread, its lane's.
class LaneCore {
 public:
  explicit LaneCore(LaneCoreOptions options);
  ~LaneCore();
  LaneCore(const LaneCore&) = delete;
  LaneCore& operator=(const LaneCore&) = delete;

  // ---- Events; the replies leave in this order ----
  std::vector<Reply> OnMessage(wire::PeerId peer, wire::Message message, absl::Time now);
  std::vector<Reply> OnTime(absl::Time now);
  // When OnTime has something to do, as far as is known now.
  absl::Time next_wake() const;

  // Lane 0: the run is over and every client is gone or dead, or finish_grace has passed. Other lanes: no session is
  // left (they hear no heartbeats: lane 0 decides, and gives them a moment to come to this).
  bool finished(absl::Time now) const;
  bool run_over() const { return run_over_at_ != absl::InfiniteFuture(); }
  // Why this ps cannot go on: its device is lost. Nothing that was acknowledged is, but no more can be.
  const absl::Status& failure() const { return failure_; }
  // "worker 1, evaluator 0": named trainers that have never said Hello. Lane 0.
  std::vector<TaskId> missing() const;

  const LaneCounters& counters() const { return *counters_; }
  const std::string& run_id() const { return run_id_; }
  // nullptr unless this is ps 0, lane 0.
  const Coordinator* coordinator() const { return coordinator_.get(); }
  // nullptr unless this is lane 0.
  const Presence* presence() const { return presence_.get(); }
  const RunModel* model() const { return model_.get(); }
  // nullptr: not of this lane.
  const Shard* shard(ShardId id) const;
  const LaneRows& rows() const { return *rows_; }
  // Lines for a person, oldest first.
  std::vector<std::string> TakeNotes() { return std::exchange(notes_, {}); }
  // The JSON of docs/wire.md.
  std::string StatsJson(absl::Time now) const;

 private:
  struct Claimant {  // who has bound this ps to its run
    std::string host;
    uint64_t pid = 0;
    absl::Time at;
  };
  struct Fence {
    Incarnation incarnation;
    std::string host;
    uint64_t pid = 0;
  };

  // lane_hello.cc
  void OnHello(wire::PeerId peer, const wire::Parsed& parsed, absl::Time now);
  absl::Status CheckHello(const wire::v1::Hello& hello) const;
  absl::Status CheckRun(const wire::v1::Hello& hello) const;
  absl::Status CheckLife(const wire::v1::Hello& hello) const;
  absl::Status CheckRole(const wire::v1::Hello& hello) const;
  absl::Status CheckFence(const wire::v1::Hello& hello) const;
  void Bind(const wire::v1::Hello& hello, absl::Time now);
  void SendWelcome(const Session& session);

  // lane_install.cc
  absl::Status Install(const wire::v1::Install& install);
  absl::Status MakeShards(const RunModel& model);

  // lane_update.cc
  void OnUpdate(const Session& session, const wire::Parsed& parsed, absl::Time now);
  size_t InlineBelow(wire::PeerId peer) const;
  absl::Status CheckUpdate(wire::PeerId peer, const wire::Parsed& parsed);
  Shard* FindShard(ShardId id);
  // What has become of an entry.
  struct Carried {
    absl::Status status;
    wire::Entry answer;
    wire::Frame pulled;
    bool begun = false;          // a write on a device that has not ended
    const char* rows = nullptr;  // pulled from a table on a device
  };
  // Of a variable's shard. On a device this begins a write, and EndWrite ends it; on the host this is all.
  absl::Status Carry(const Session& session, const wire::Header& header, const wire::Entry& entry,
                     absl::Span<const char> payload, Carried& carried);
  // Where the written bytes of an entry with kPlaced lie, and where its parameters go.
  struct Placed {
    absl::Span<const char> written;
    char* pulled = nullptr;
  };
  // FAILED_PRECONDITION unless the message's client may name places.
  absl::Status CheckBlock() const;
  absl::StatusOr<Placed> FindPlaces(const wire::Entry& entry, absl::Span<const char> payload, const Shard& shard) const;
  absl::Status EndWrite(const wire::Entry& entry, Shard& shard, Carried& carried);
  // All entries of variables' shards, and of buckets of tables on the device, in one batch; an element an entry.
  std::vector<Carried> CarryOnDevice(const Session& session, const wire::Parsed& parsed, absl::Time now);
  // Of buckets on the host: rows that are pulled are written straight into the answer.
  absl::Status CarryRows(const Session& session, const wire::Header& header, const wire::Entry& entry,
                         absl::Span<const char> payload, absl::Time now, wire::Entry& answer);
  // Of buckets on the device: begins a push and a pull. EndRows ends the push, once the device has run, with what the
  // device has found in it.
  absl::Status BeginRows(const Session& session, const wire::Header& header, const wire::Entry& entry,
                         absl::Span<const char> payload, absl::Time now, Carried& carried);
  absl::Status EndRows(const Session& session, const wire::Header& header, const wire::Entry& entry, absl::Time now,
                       Carried& carried);
  // Counts what became of a push to a bucket.
  void CountWrite(bool repeat, bool applied, uint64_t staleness, wire::Entry& answer);

  // lane_core.cc
  absl::Status CheckHeader(const Session& session, const wire::Header& header) const;
  void OnControl(Session& session, const wire::Parsed& parsed, absl::Time now);
  void Heard(const Session& session, absl::Time now);
  void OnGoodbye(const Session& session, const wire::Header& header, bool run_finished, absl::Time now);
  absl::Status Replaced(const Fence& fence) const;
  void RunOver(absl::Time now);
  void Refuse(wire::PeerId peer, uint64_t request, const absl::Status& status);
  void Send(wire::PeerId peer, uint64_t request, wire::Kind kind, absl::string_view body);
  void SendMessage(wire::PeerId peer, wire::Message message);
  void Forward();  // what the coordinator has to say
  void Note(std::string line);
  void UpdateGauges();
  wire::v1::RunState State() const;
  wire::Header HeaderFor(wire::PeerId peer, wire::Kind kind, uint64_t request);
  std::string Me() const;

  LaneCoreOptions options_;
  std::shared_ptr<BlockPool> pool_;
  std::shared_ptr<LaneCounters> counters_;
  std::string run_id_;
  uint64_t run_hash_ = 0;
  uint32_t ps_count_;
  std::optional<Claimant> claimant_;
  std::optional<uint32_t> chief_;  // worker key
  SessionTable sessions_;
  std::map<uint32_t, Fence> fences_;  // by worker key
  std::set<uint32_t> seen_;           // worker keys that have said Hello
  std::unique_ptr<Presence> presence_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<RunModel> model_;
  std::vector<std::unique_ptr<Shard>> shards_;  // by shard id; null where another lane owns it
  std::unique_ptr<LaneRows> rows_;
  LaneBlocks blocks_;
  std::shared_ptr<LentBlock> block_;  // of the client whose update is at hand; nullptr: it has none, or names none
  absl::Status failure_;
  int refusals_noted_ = 0;
  static constexpr int kMaxRefusalsNoted = 20;
  absl::Time run_over_at_ = absl::InfiniteFuture();
  std::vector<Reply> replies_;
  std::vector<std::string> notes_;
};

}  // namespace basin
