// What a client decides: which message goes to which lane, what an answer means, what is sent again after a cut. Pure:
// no thread, no socket, no clock of its own. It takes events and the time, and returns actions; ClientSession carries
// them out on a real transport, the simulation on a virtual one. The protocol: docs/wire.md.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster_spec/placement.h"
#include "cluster_spec/table_placement.h"
#include "common/base/dtype.h"
#include "common/base/ids.h"
#include "common/wire/control.pb.h"
#include "common/wire/device_places.h"
#include "common/wire/header.h"
#include "worker/client/row_batch.h"
#include "worker/client/update_items.h"

namespace basin {

using CallId = uint64_t;

struct ClientCoreOptions {
  wire::v1::Role role = wire::v1::ROLE_OBSERVER;
  uint32_t index = 0;
  bool is_chief = false;
  std::vector<std::string> ps_addresses;  // by ordinal
  std::string run_id;                     // empty: ps 0 tells
  std::string token;
  std::string host;
  uint64_t pid = 0;
  std::string client_id;  // random, one a client
  absl::Duration start_timeout = absl::Minutes(10);
  absl::Duration unreachable_timeout = absl::Seconds(60);
  absl::Duration claim_timeout = absl::Seconds(30);
  absl::Duration redial_first = absl::Milliseconds(50);
  absl::Duration redial_most = absl::Seconds(1);
  // What gradients of rows are sent as: kF32, or rounded to kF16 or kBF16. Those of variables have a type each.
  DType gradient_dtype = DType::kF32;
};

// What to do to a channel; carried out in order.
struct ClientAction {
  enum class Kind { kDial, kSend, kClose };
  Kind kind = Kind::kSend;
  uint32_t channel = 0;
  std::string address;    // kDial
  wire::Message message;  // kSend
};

struct LeasedPiece {
  bool end = false;
  uint64_t piece = 0;
  uint32_t epoch = 0;
  uint64_t begin = 0, end_item = 0;
};

class ClientCore {
 public:
  explicit ClientCore(ClientCoreOptions options);
  ~ClientCore();
  ClientCore(const ClientCore&) = delete;
  ClientCore& operator=(const ClientCore&) = delete;

  // ---- Events ----
  void OnMessage(uint32_t channel, wire::Message message, absl::Time now);
  // The channel is gone (`reason` from the transport). A cut of a channel that was closed or dialled again is ignored
  // by its user not reporting it.
  void OnCut(uint32_t channel, const absl::Status& reason, absl::Time now);
  void OnTime(absl::Time now);
  absl::Time next_wake() const { return next_wake_; }
  std::vector<ClientAction> TakeActions() { return std::exchange(actions_, {}); }

  // ---- Calls: each returns an id to ask about; the answer is taken once, with Take ----
  CallId Connect(absl::Time now);
  CallId Declare(const wire::v1::Model& model, absl::Time now);
  // Checks the whole update first: an error here means that nothing was sent. Messages refer to what is pushed and
  // assigned, and hold `lender` for as long as they do; that may be a little longer than until the call is done. A
  // small update may stay in an open message for a while: until the message is full, an answer comes, kGatherMost is
  // over, or Flush. `pieces` gets the pieces of the items that have them, which then wait for OnPiece, and with them
  // what is started later for the same shards. REQUIRES: not nullptr where an item has any.
  absl::StatusOr<CallId> StartUpdate(absl::Span<const UpdateItem> items, const std::shared_ptr<const void>& lender,
                                     absl::Time now, std::vector<UpdatePiece>* pieces = nullptr);
  // A piece may go. `written`: its bytes, where it is pushed or assigned by pieces. `pull_to`: where its parameters go,
  // where it is pulled by pieces. A float32 that is not finite is not sent, and the call's error; whoever gives 16 bits
  // has looked at all of them before. Pieces of calls that are done are ignored.
  void OnPiece(CallId call, const UpdatePiece& piece, const wire::Frame& written, char* pull_to, absl::Time now);
  // As OnPiece, with all of its bytes in the block that the piece's lane has lent, at these places. `number`: the
  // piece's place in `pieces`. TakeLanded tells when the places are free. What is not finite the ps refuses. REQUIRES:
  // `whole`, and one shard.
  void OnPlacedPiece(CallId call, const UpdatePiece& piece, uint32_t number, const wire::DevicePlaces& places,
                     absl::Time now);
  // Instead of OnPiece: the piece cannot be had, which is the call's error.
  void OnPieceFailed(CallId call, const UpdatePiece& piece, const absl::Status& status, absl::Time now);
  // Shards whose parameters lie where OnPiece said, since this was asked last, by the piece's place in `pieces`; and
  // entries of rows, by the piece's number; and those of placed pieces that are answered, however they are.
  struct Landed {
    CallId call = 0;
    uint32_t piece = 0;
    bool pulled = true;  // the parameters are there
  };
  std::vector<Landed> TakeLanded() { return std::exchange(landed_, {}); }
  // An error of a call that is not taken yet, beside those of its answers.
  void AddError(CallId call, const absl::Status& status);
  // Asks each lane whose shards lie on the device of that id (DeviceCopies::Id) for a block of its memory.
  CallId AskDeviceBlocks(const std::string& device_id, uint64_t bytes, absl::Time now);
  // The channel's block has been opened: items get a piece for each of its shards.
  void UseDeviceBlock(uint32_t channel);
  // Names of tables that lanes with such blocks have on the host, so that their rows go through the host too.
  std::vector<std::string> TablesBesideBlocks() const;
  // As StartUpdate, over rows of tables.
  absl::StatusOr<CallId> StartRows(absl::Span<const RowsItem> items, absl::Time now);
  // Items by_pieces wait for this, and what is started later for their tables waits behind them; the call's other items
  // wait too, since it is not known before whether the call is sent at all. `begins` is of each such item, in their
  // order: its different keys [begins[b], begins[b + 1]) are of bucket b. `has_block`: whether the call's rows may go
  // through the block of that channel's lane; they do where their table is on its device.
  RowsCut CutRows(CallId call, absl::Span<const absl::Span<const uint32_t>> begins,
                  absl::FunctionRef<bool(uint32_t channel)> has_block, absl::Time now);
  // A piece may go: pieces of one item in their order. `written`: entry by entry its keys, and its sums as they are
  // sent. Where rows are pulled they go to `pull_to`, [keys, dim], entry by entry, each told by TakeLanded. Whoever
  // gives sums has looked at them before.
  void OnRowsPiece(CallId call, const RowsPiece& piece, const wire::Frame& written, char* pull_to, absl::Time now);
  // Of a placed piece: `keys` alone, 8 bytes each, with sums and pulled rows at these places of the block, key by key.
  // TakeLanded tells of each entry that is answered, however it is.
  void OnPlacedRows(CallId call, const RowsPiece& piece, const wire::Frame& keys, const wire::DevicePlaces& places,
                    absl::Time now);
  // Instead: what was not sent yet of the call's rows is not, which is its error.
  void OnRowsFailed(CallId call, const absl::Status& status, absl::Time now);
  // What a table's rows are cut by; nothing: it does not exist.
  struct TableShape {
    std::string name;
    uint32_t dim = 0, bucket_bits = 0;
  };
  std::optional<TableShape> ShapeOf(uint32_t table) const;
  // Asks all lanes which rows of the table they have evicted since they were asked last; the keys wait for TakeEvicted.
  absl::StatusOr<CallId> AskEvicted(uint32_t table, absl::Time now);
  struct EvictedRows {
    size_t count = 0;     // of keys written
    size_t waiting = 0;   // further keys that wait
    bool more = false;    // a lane has more to tell
    bool missed = false;  // the lanes had forgotten some
  };
  // Writes at most `capacity` keys. REQUIRES: the table exists.
  EvictedRows TakeEvicted(uint32_t table, uint64_t* keys, size_t capacity);
  // Lets all open messages go: somebody waits.
  void Flush(absl::Time now);
  CallId NextInput(const std::string& name, absl::Time now);
  CallId InputDone(const std::string& name, uint64_t piece, absl::Time now);
  CallId Barrier(const std::string& name, absl::Time now);
  CallId Finish(const std::string& failure, absl::Time now);
  CallId Stats(absl::Time now);
  // `blocks_closed`: nothing of the blocks that lanes have lent is open in this process any more.
  CallId Goodbye(absl::Time now, bool blocks_closed = false);
  // Of messages from now on, see wire::Channel.
  void SetInlineBelow(uint32_t channel, size_t bytes);
  // Of pushes from now on, instead of their rule's; NaN: the rule's. REQUIRES: finite and not negative, or NaN.
  void SetLearningRate(float learning_rate) { learning_rate_ = learning_rate; }
  // Whether an open message waits for more.
  bool gathering() const;
  bool has_actions() const { return !actions_.empty(); }
  // Ends the client: its calls are done with `status`, its channels closed.
  void Abandon(const absl::Status& status) { Fail(status); }
  // Counts the clock up and tells the coordinator; nothing to wait for.
  void Step(const std::vector<std::pair<std::string, double>>& metrics, absl::Time now);

  struct LentBlock {
    uint32_t channel = 0;
    std::string handle;
    uint64_t bytes = 0;
  };
  struct Result {
    absl::Status status;
    std::vector<LentBlock> blocks;   // AskDeviceBlocks: of the lanes that have lent one; `status`: of one that has not
    LeasedPiece piece;               // NextInput
    std::vector<std::string> stats;  // Stats: JSON of ps 0, then of the others
    double staleness_mean = 0;       // updates with pushes
    uint64_t staleness_max = 0;
  };
  bool done(CallId call) const;
  // Calls that are not taken yet.
  size_t calls() const;
  // REQUIRES: done(call).
  Result Take(CallId call);
  // "ps 1 at host:port, 12 s: connection refused": whom the call waits for and why.
  std::string WaitingFor(CallId call, absl::Time now) const;

  // ---- State ----
  const absl::Status& failure() const { return failure_; }  // not OK: the client is broken for good
  uint64_t bytes_in_flight() const { return bytes_in_flight_; }
  const wire::v1::RunState& run_state() const { return run_state_; }
  const std::optional<wire::v1::RunSpec>& spec() const { return spec_; }
  // Whether it is a variable, in float32, and trained by a rule: what is pushed to it is a gradient.
  bool TrainsFloats(VariableId variable) const;
  bool Has(VariableId variable) const;
  // REQUIRES: Has(variable).
  const std::string& NameOf(VariableId variable) const {
    return spec_->model().variables(static_cast<int>(variable.value())).name();
  }
  const std::string& run_id() const { return options_.run_id; }
  Incarnation incarnation() const { return incarnation_; }
  StepClock clock() const { return clock_; }
  // Lines for a person ("reconnected to ps 1 after 3 s"), oldest first.
  std::vector<std::string> TakeNotes() { return std::exchange(notes_, {}); }

 private:
  struct Channel;
  struct Call;
  struct Pending;
  struct Open;
  struct UpdateEntry;
  struct LaterPull;
  struct ShardState;
  struct VariableState;
  struct TableState;
  struct RowsCall;
  struct RowsEntry;
  struct RowsPart;
  struct GivenRows;
  struct Waiting;

  Channel& AddChannel(PsOrdinal ps, LaneIndex lane, std::string address);
  void Dial(Channel& channel, absl::Time now);
  void SendHello(Channel& channel);
  void OnHelloAnswer(Channel& channel, const wire::Parsed& parsed, absl::Time now);
  void OnWelcome(Channel& channel, const wire::v1::Welcome& welcome, absl::Time now);
  void OnHelloRefused(Channel& channel, const absl::Status& status, absl::Time now);
  void CheckConnected(absl::Time now);
  wire::Header HeaderFor(const Channel& channel, wire::Kind kind, uint64_t request) const;
  // Returns the request's number; 0 where it was refused.
  uint64_t SendControl(Channel& channel, wire::Kind kind, const std::string& body, CallId call, absl::Time now);
  void SendPending(Channel& channel, Pending& pending);
  void OnAnswer(Channel& channel, Pending pending, const wire::Parsed& parsed, absl::Time now);
  void OnUpdated(Channel& channel, Pending& pending, const wire::Parsed& parsed, absl::Time now);
  // One shard's answer; what is to be pulled again goes to `later`.
  absl::Status OnEntry(Channel& channel, Call& call, UpdateEntry& asked, const wire::Entry& answer,
                       absl::Span<const char> payload, LaterPull& later);
  // Each call that has entries here, once, where those of one call stand together.
  static std::vector<CallId> CallsOf(const std::vector<UpdateEntry>& entries);
  void OnDeclared(Call& call, absl::string_view body, absl::Time now);
  absl::Status TakeSpec(absl::string_view spec);
  void SendInstall(Channel& channel, CallId call, absl::Time now);
  void OnRunState(absl::string_view body);
  // After a cut: whether the lane has all that it acknowledged; DATA_LOSS or INTERNAL where it has not, or has more
  // than was sent.
  absl::Status CheckApplied(const Channel& channel, const wire::v1::Welcome& welcome) const;
  void SendAgain(Channel& channel);
  void OnRefused(const Pending& pending, const absl::Status& status);
  void NumberOnFrom(const UpdateEntry& refused);
  void PullAgain(absl::Time now);
  // The shard in words.
  std::string Describe(ShardId shard) const;
  const std::string& VariableOf(ShardId shard) const;
  DType DTypeOf(ShardId shard) const;  // of its variable

  // client_core_rows.cc
  void TakeTables();
  absl::Status CheckRows(absl::Span<const RowsItem> items);
  // Of an item in host memory. `late`: after other calls' rows have gone.
  void AddRows(CallId call, const RowsCall& rows, size_t item, bool late, absl::Time now);
  // A message has a call's entries in one place: lets the open one go where the call has some before another's.
  void KeepTogether(Channel& channel, CallId call);
  std::unique_ptr<RowBatch> NewBatch();
  void KeepBatch(std::unique_ptr<RowBatch> batch);
  absl::Status OnRows(const Channel& channel, Call& call, const UpdateEntry& asked, absl::Span<const char> payload);
  void RowsDone(Call& call);
  void SendEvicted(Channel& channel, uint32_t table, CallId call, absl::Time now);
  absl::Status OnEvictedKeys(const Channel& channel, const Pending& pending, absl::string_view body);

  // client_core_row_pieces.cc: rows that come by pieces
  void SendRows(uint32_t table, absl::Time now);
  // `of`: which of the items by_pieces it is, with that `begin` of its buckets.
  void CutPart(RowsPart& part, size_t item, size_t of, absl::Span<const uint32_t> begin,
               absl::FunctionRef<bool(uint32_t channel)> has_block, RowsCut& cut);
  void GiveRows(CallId call, GivenRows given, absl::Time now);
  void AddRowsPiece(Call& call, const RowsPart& part, const GivenRows& given, absl::Time now);

  // client_core_pieces.cc: what comes by pieces
  void ForWaiting(CallId call, const UpdatePiece& piece, absl::FunctionRef<void(Waiting&)> with, absl::Time now);
  void SendWaiting(ShardId shard, absl::Time now);
  // The entry's places are free, if it has any.
  void FreePlaces(const UpdateEntry& entry, bool pulled = false);
  uint64_t PlacedBytes(const UpdateEntry& entry) const;  // that it writes
  bool IsWaitedFor(ShardId shard) const { return !waiting_.empty() && waiting_.contains(shard.value()); }

  absl::Status CheckUpdate(absl::Span<const UpdateItem> items);
  absl::Status CheckCalls() const;
  // The channel's open message with room for the entry and its payload; sends the one before where there is none. The
  // entry is in it on return, its payload is the caller's to add.
  wire::DataBuilder& MakeRoom(Channel& channel, const UpdateEntry& entry, size_t payload_bytes, absl::Time now);
  wire::Entry WireEntry(const UpdateEntry& entry) const;
  void AddEntry(Channel& channel, const UpdateEntry& entry, wire::Frame payload, absl::Time now);
  void FlushChannel(Channel& channel);
  // Lets the open message go where there is no reason to wait for more.
  void FlushIfDue(Channel& channel, absl::Time now);
  void UpdateDone(CallId call);
  void ReleaseDeferred(absl::Time now);
  Call& NewCall(std::string what, absl::Time now);
  // Of the calls that are not done and began before that; 0: none.
  CallId OldestWaiting(absl::Time since_before) const;
  Call* FindCall(CallId call);
  const Call* FindCall(CallId call) const { return const_cast<ClientCore*>(this)->FindCall(call); }
  void PartDone(CallId call, const absl::Status& status);
  void Fail(const absl::Status& status);
  void Wake(absl::Time at) { next_wake_ = std::min(next_wake_, at); }
  std::string PsName(const Channel& channel) const;

  ClientCoreOptions options_;
  std::vector<std::unique_ptr<Channel>> channels_;
  std::vector<uint32_t> lanes_of_ps_;                             // by ordinal; 0: not welcomed yet
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> channel_of_;  // (ps, lane) -> channel
  // By slot, which is in the call's id (client_core_calls.cc).
  std::deque<Call> calls_;
  std::vector<uint32_t> free_calls_;
  uint64_t next_serial_ = 1;
  std::optional<CallId> connect_call_;
  absl::Status failure_;
  Incarnation incarnation_;
  StepClock clock_;
  float learning_rate_ = wire::Header::kRuleOwn;
  absl::Time last_now_;
  absl::Time next_wake_ = absl::InfiniteFuture();
  absl::Duration heartbeat_ = absl::Seconds(1);
  absl::Duration dead_after_ = absl::Seconds(10);
  wire::v1::RunState run_state_;
  std::optional<wire::v1::RunSpec> spec_;
  std::string spec_bytes_, spec_hash_;
  std::optional<Placement> placement_;
  ShardState& StateOf(ShardId shard);
  std::vector<uint32_t> touched_;  // channels with entries of the update that is being started
  std::vector<VariableState> variables_;
  std::vector<ShardState> shards_;
  std::vector<std::unique_ptr<TableState>> tables_;
  std::vector<std::unique_ptr<RowBatch>> spare_batches_;
  std::vector<float> summed_rows_;  // of one entry, before they are rounded to 16 bits
  uint64_t update_number_ = 0;
  uint64_t bytes_in_flight_ = 0;
  uint64_t unfinished_updates_ = 0;
  // InputDone and Finish wait for the updates that were started before them.
  struct Deferred {
    CallId call;
    uint64_t updates_before;  // not answered yet
    wire::Kind kind;
    std::string body;
  };
  std::deque<Deferred> deferred_;
  // Entries whose shard waits for its first values, to be pulled again.
  std::deque<LaterPull> later_pulls_;
  // By shard: entries that wait for their pieces, and those started after them, in their order.
  std::map<uint32_t, std::deque<Waiting>> waiting_;
  std::vector<Landed> landed_;
  std::map<std::string, uint64_t> input_number_, barrier_number_;
  double staleness_sum_ = 0;
  uint64_t staleness_count_ = 0, staleness_max_ = 0;
  std::vector<ClientAction> actions_;
  std::vector<std::string> notes_;
};

}  // namespace basin
