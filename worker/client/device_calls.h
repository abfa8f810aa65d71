// The doer of calls with device pointers: brings the core's pieces out of the device, and its answers into it.
//
//   queued -> (staging is free) -> copied out -> sent by the core -> answered -> copied in
//
// Rows of tables are reduced on the device before, to different keys and the sums of their gradients; how many pieces
// those make is known only then:
//
//   reduced -> cut by the core -> as above, piece by piece -> all of a table's copied in -> spread to their places
//
// With a lane on the device itself, staging is a block of that lane's memory: the core sends where in it the bytes lie.
// (Keys of rows it sends themselves, out of staging.)
//
// Gradients that leave in 16 bits are looked at before, on the device: the copies follow at once, but nothing of the
// call is sent before all of them are known to be numbers that 16 bits hold.
//
// A piece's messages leave as soon as its own copy has ended, while later ones still copy. Pieces are queued in the
// order in which their calls were started, and what a call's stream was at is waited for in that order too; a call that
// a stream waits for was started before whatever is queued behind on that stream, so no two calls wait for each other.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/client/client_core.h"
#include "worker/client/device_copies.h"
#include "worker/client/device_rows.h"
#include "worker/client/staging.h"

namespace basin {

// What a call is to the device; `pieces` are filled by ClientCore::StartUpdate.
struct DeviceUpdate {
  int device = 0;
  DeviceCopies::Mark after;  // nullptr: nothing to wait for
  struct Item {
    const char* out = nullptr;  // device memory that is pushed or assigned; nullptr: none, or the host's
    char* in = nullptr;         // that is pulled into
    // A gradient that leaves in 16 bits: `elements` numbers of `from` at `out`, kF32 or the type itself.
    std::optional<DType> half;
    DType from = DType::kF32;
    VariableId variable;
    uint64_t elements = 0;
  };
  std::vector<Item> items;  // of the update, in its order
  // Of a call over rows, its items by_pieces in their order; `items` is empty then.
  struct Rows {
    std::unique_ptr<DeviceRows> there;
    std::string table;  // its name
    DType sent_as = DType::kF32;
    bool pulls = false;
  };
  std::vector<Rows> rows;
  std::vector<UpdatePiece> pieces;
  // Held until nothing of the call's device memory is read or written any more.
  std::shared_ptr<const void> lender;
};

// Not thread-safe: its session's mutex guards it.
class DeviceCalls final {
 public:
  // `wake` is called from threads of the copies when Pump has something to do. `slot_lender` makes what memory that
  // messages refer to is held with.
  DeviceCalls(std::shared_ptr<DeviceCopies> copies, std::shared_ptr<Staging> staging, std::function<void()> wake,
              std::function<std::shared_ptr<const void>()> slot_lender);
  ~DeviceCalls();

  void Start(CallId call, DeviceUpdate update);
  // Carries on what can be carried on without waiting. Returns whether that was anything.
  bool Pump(ClientCore& core, absl::Time now);
  bool idle() const { return calls_.empty(); }
  // From now on pieces of that device go through the block that the channel's lane has lent.
  void AddBlock(uint32_t channel, int device, std::shared_ptr<Staging> block);
  // Further pieces go through the host. REQUIRES: idle().
  std::vector<std::shared_ptr<Staging>> TakeBlocks();
  // Pieces wait for staging that messages hold; nobody tells when a transport lets go of it.
  bool starved() const { return starved_; }
  // Whose memory the call uses; nothing: it is done.
  std::optional<int> DeviceOf(CallId call) const;
  // What opens when the call is done: the gate, or the one that it has. nullptr: it is done.
  std::shared_ptr<StreamGate> Hold(CallId call, std::unique_ptr<StreamGate> gate);

 private:
  struct Piece {
    UpdatePiece of;
    std::shared_ptr<char> out, in;   // staging
    std::shared_ptr<Staging> block;  // in which they are; nullptr: the host's
    uint32_t landed = 0;             // shards
  };
  // A gradient of 16 bits that is looked at.
  struct Look {
    size_t item = 0;
    std::shared_ptr<char> found;  // staging: an Unfit
  };
  // Of a call over rows.
  struct RowsPart {
    size_t left = 0;  // pieces whose rows are not in the device yet
  };
  struct RowsOfPiece {
    RowsPiece of;
    std::shared_ptr<char> keys, out, in;  // staging; `keys` of a placed one, elsewhere they are part of `out`
    std::shared_ptr<Staging> block;       // in which `out` and `in` are; nullptr: the host's
    size_t landed = 0;                    // entries
    bool refused = false;                 // some of those
  };
  struct Call {
    DeviceUpdate update;  // (its pieces are in `pieces`)
    std::vector<Piece> pieces;
    std::vector<RowsPart> parts;  // as update.rows
    std::vector<RowsOfPiece> row_pieces;
    size_t unreduced = 0;  // parts
    std::vector<Look> looks;
    size_t unlooked = 0;  // those that have not ended
    bool refused = false;
    std::vector<uint32_t> unsent;  // pieces that could go, and wait for the looks
    bool passed = false;  // the stream has come to where the call was started: its device memory may be written
    bool lost = false;    // it never will
    size_t copying = 0;
    std::vector<uint32_t> parked;  // pieces that landed before it passed
    std::shared_ptr<StreamGate> gate;
  };
  // What the device does for a call; the number is a look's or a piece's.
  enum class Work {
    kWait,  // for the stream: of a call that only pulls
    kLook,
    kCopyOut,
    kCopyIn,
    // Of rows: a part's, the call's as soon as all its parts are reduced, and pieces'.
    kReduce,
    kCut,
    kRowsOut,
    kRowsIn,
    kSpread,
  };
  // Of what stands first in the queue.
  enum class Outcome {
    kStarted,
    kStarved,   // there is no staging for it now
    kNotReady,  // it waits for what the device does
  };
  struct Queued {
    CallId call = 0;
    Work work = Work::kCopyOut;
    uint32_t number = 0;
  };
  struct Ended {
    Queued what;
    absl::Status status;
  };
  struct Inbox;

  void OnEnded(ClientCore& core, const Ended& ended, absl::Time now);
  void OnPassed(CallId id, Call& call);
  void OnLooked(ClientCore& core, CallId id, Call& call, const Ended& ended, absl::Time now);
  void OnCopiedOut(ClientCore& core, CallId id, Call& call, const Ended& ended, absl::Time now);
  void OnLanded(CallId id, Call& call, const ClientCore::Landed& landed);
  // nullptr: there is none that the piece could go through.
  std::shared_ptr<Staging> BlockFor(const Call& call, const UpdatePiece& piece) const;
  std::shared_ptr<Staging> BlockOf(uint32_t channel, int device) const;
  void CopyIn(CallId id, Call& call, uint32_t piece);
  Outcome StartQueued(ClientCore& core, const Queued& queued, Call& call, absl::Time now);
  bool StartLook(const Queued& queued, Call& call);
  bool StartPiece(ClientCore& core, const Queued& queued, Call& call, absl::Time now);
  void Send(ClientCore& core, CallId id, Call& call, uint32_t piece, absl::Time now);
  // For messages.
  wire::Frame Lend(std::shared_ptr<char> staging, size_t bytes) const;
  // device_calls_rows.cc
  Outcome StartRowsWork(ClientCore& core, const Queued& queued, Call& call, absl::Time now);
  bool StartRowsPiece(const Queued& queued, Call& call);
  void CutRows(ClientCore& core, CallId id, Call& call, absl::Time now);
  void Spread(CallId id, Call& call, uint32_t part);
  void OnRowsWork(ClientCore& core, const Ended& ended, Call& call, absl::Time now);
  void OnReduced(ClientCore& core, const Ended& ended, Call& call, absl::Time now);
  void SendRows(ClientCore& core, CallId id, RowsOfPiece& piece, absl::Time now);
  void OnRowsLanded(CallId id, Call& call, const ClientCore::Landed& landed);
  void RefuseRows(ClientCore& core, CallId id, Call& call, const absl::Status& status, absl::Time now);
  // What tells the inbox when the work has ended.
  DeviceCopies::Done Begin(Call& call, const Queued& work) const;

  const std::shared_ptr<DeviceCopies> copies_;
  const std::shared_ptr<Staging> staging_;
  const std::function<std::shared_ptr<const void>()> slot_lender_;
  const std::shared_ptr<Inbox> inbox_;
  struct Block {
    int device = 0;
    std::shared_ptr<Staging> memory;
  };
  std::map<uint32_t, Block> blocks_;  // by channel
  std::map<CallId, Call> calls_;      // that are not done
  std::deque<Queued> queue_;
  bool starved_ = false;
};

}  // namespace basin
