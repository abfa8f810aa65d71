// The inner structs of ClientCore, shared by its files.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/dtype.h"
#include "worker/client/client_core.h"

namespace basin {

// The code of a peer's refusal: one that is none, OK above all, must not pass for success.
inline absl::StatusCode RefusalCode(int32_t code) {
  return code >= 1 && code <= 16 ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kInternal;
}

inline std::string SecondsText(absl::Duration duration) { return absl::StrCat(absl::ToInt64Seconds(duration), " s"); }

// One shard of an update, as long as it is not answered.
struct ClientCore::UpdateEntry {
  ShardId shard;
  uint32_t rows = 0;  // as wire::Entry's
  uint8_t dtype = 0;
  uint16_t flags = 0;  // kPush, kPull, kAssign, kPlaced
  uint32_t epoch = 0;  // of the shard's numbering when the sequence was given
  Sequence sequence;   // 0: only pulls
  Version pulled;      // the version pulled before
  CallId call = 0;
  char* pull = nullptr;  // where the shard's parameters go; of a bucket: its call's RowsCall knows
  uint64_t pull_bytes = 0;
  uint32_t first_key = 0;  // of a bucket: its different keys [first_key, first_key + rows) in the call
  uint32_t piece = 0;      // pulled by pieces, or placed: 1 + the piece's place; 0: not
  uint64_t pulled_at = 0;  // placed: where the parameters go in the lane's block

  bool is_placed() const { return (flags & wire::kPlaced) != 0; }
  bool writes() const { return (flags & (wire::kPush | wire::kAssign)) != 0; }
};

// A request that is not answered yet: kept whole, to be sent again after a cut.
struct ClientCore::Pending {
  uint64_t request = 0;
  wire::Kind kind = wire::Kind::kError;
  CallId call = 0;                   // of a control kind; 0: nobody waits for it
  std::string body;                  // control kinds
  std::vector<UpdateEntry> entries;  // kUpdate; those of one call stand together
  wire::Message message;             // kUpdate
  StepClock clock;
  uint64_t bytes = 0;  // of pushed payload
};

// An update message that still takes entries.
struct ClientCore::Open {
  wire::DataBuilder builder;
  std::vector<UpdateEntry> entries;
  size_t answer_bytes = 0, answer_frames = 0;
  size_t placed_bytes = 0;  // that lanes read elsewhere, and count as if they were in it
  StepClock clock;
  float learning_rate = wire::Header::kRuleOwn;
  absl::Time since;

  void Begin(size_t inline_below, size_t count) {
    builder = wire::DataBuilder(inline_below);
    entries.reserve(count);
    builder.Reserve(count);
  }
};

struct ClientCore::Channel {
  enum class State {
    kIdle,      // not dialled: waits for ps 0's first Welcome
    kGreeting,  // dialled, Hello sent
    kReady,
    kDown,    // waits for redial_at
    kClosed,  // after Goodbye
  };
  uint32_t id = 0;
  PsOrdinal ps;
  LaneIndex lane;
  std::string address;
  State state = State::kIdle;
  uint64_t ps_incarnation = 0;
  std::string spec_hash;
  std::string device_id;                // of its shards' device; empty: none
  std::set<uint32_t> tables_on_device;  // as the lane has told
  bool uses_block = false;              // of that device
  uint64_t next_request = 1;
  std::map<uint64_t, Pending> pending;  // by request: ordered, as they must be sent again
  Open open;
  size_t inline_below = kInlinePayloadBytes;
  uint32_t updates_pending = 0;
  uint64_t touched_by = 0;  // the number of the update that put entries in last
  size_t entries_last = 0;  // of the last update message: a guess for the next
  absl::Time down_since;    // since when it is not ready
  absl::Time redial_at;
  absl::Duration redial_delay;
  absl::Time last_heard;
  absl::Time heartbeat_at;
  uint64_t heartbeat_request = 0;  // outstanding; 0: none
  absl::Status last_reason;
  bool welcomed_once = false;
  absl::Time claim_since = absl::InfiniteFuture();
};

// An entry that is not sent yet: for want of its piece, or behind one that is not.
struct ClientCore::Waiting {
  UpdateEntry entry;
  wire::Frame payload;
  bool ready = false;
};

// Some of a bucket's different keys: [first, first + keys) of the part's.
struct ClientCore::RowsEntry {
  uint32_t bucket = 0, first = 0, keys = 0;
};

// A piece of rows that may go.
struct ClientCore::GivenRows {
  RowsPiece piece;
  wire::Frame written;
  char* pull_to = nullptr;
  wire::DevicePlaces places;
};

// Of one table.
struct ClientCore::RowsPart {
  uint32_t table = 0;
  std::unique_ptr<RowBatch> batch;  // nullptr: by pieces
  const float* push = nullptr;      // read while it waits; of memory that is not the host's: not at all
  float* pull = nullptr;
  std::unique_ptr<float[]> places;  // of bags: their rows, until all are there to be pooled
  // By pieces.
  std::vector<RowsEntry> entries;
  std::deque<GivenRows> given;
  size_t pieces_left = 0;  // not sent yet
};

// Rows of a call that are not sent yet, and where those go that it pulls.
struct ClientCore::RowsCall {
  std::vector<RowsPart> parts;  // as the call's items
  bool held = false;            // until its items by pieces are cut
};

struct ClientCore::Call {
  CallId id = 0;
  std::string what;
  absl::Time since;
  StepClock clock;  // of its start, as the rate: what waits for its pieces is sent later
  float learning_rate = wire::Header::kRuleOwn;
  int parts = 0;  // requests that must be answered
  bool done = false;
  bool in_use = false;
  bool is_update = false;
  bool installs = false;                  // a Declare that has gone on to the lanes
  std::map<uint32_t, std::string> stats;  // by ps
  std::unique_ptr<RowsCall> rows;         // of a call that pulls rows, or has some that wait
  double staleness_sum = 0;
  uint64_t staleness_count = 0;
  Result result;
};

struct ClientCore::ShardState {
  uint64_t begin = 0, end = 0;  // elements of the variable
  uint32_t channel = 0;
  Sequence last;          // given out
  Sequence acknowledged;  // the largest answered with OK
  Version pulled;
  uint32_t epoch = 0;  // counts up when a refusal moved `last` back: later answers of the old numbering are stale
};

struct ClientCore::LaterPull {
  absl::Time at;
  uint32_t channel = 0;
  CallId call = 0;
  std::vector<UpdateEntry> entries;
};

// What the checks of an update need of a variable.
struct ClientCore::VariableState {
  DType dtype = DType::kF32;
  uint64_t bytes = 0;
  ShardId first_shard, end_shard;
  uint64_t named_by = 0;  // the number of the update that named it last: finds those that stand twice
};

struct ClientCore::TableState {
  uint32_t dim = 0;
  std::vector<ShardState> buckets;  // from the first call on
  uint64_t named_by = 0;            // as VariableState's
  // Calls and their parts that are not sent yet, in their order: the first for want of its pieces.
  std::deque<std::pair<CallId, size_t>> waiting;
  // Of evicted keys: by channel, the number that is asked for next; kFromNow before it was told one.
  static constexpr uint64_t kFromNow = ~uint64_t{0};
  std::vector<uint64_t> evicted_next;
  std::vector<bool> evicted_more;  // by channel
  std::vector<uint64_t> evicted;   // told by lanes and not taken yet, from evicted_taken on
  size_t evicted_taken = 0;
  bool missed = false;
};

}  // namespace basin
