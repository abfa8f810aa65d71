// The doer of calls with device pointers: brings the core's pieces out of the device, and its answers into it.
//
//   queued -> (staging is free) -> copied out -> sent by the core -> answered -> copied in
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
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/client/client_core.h"
#include "worker/client/device_copies.h"
#include "worker/client/staging.h"

namespace basin {

// What a call is to the device; `pieces` are filled by ClientCore::StartUpdate.
struct DeviceUpdate {
  int device = 0;
  DeviceCopies::Mark after;  // nullptr: nothing to wait for
  struct Item {
    const char* out = nullptr;  // device memory that is pushed or assigned; nullptr: none, or the host's
    char* in = nullptr;         // that is pulled into
  };
  std::vector<Item> items;  // of the update, in its order
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
  // Pieces wait for staging that messages hold; nobody tells when a transport lets go of it.
  bool starved() const { return starved_; }
  // Whose memory the call uses; nothing: it is done.
  std::optional<int> DeviceOf(CallId call) const;
  // What opens when the call is done: the gate, or the one that it has. nullptr: it is done.
  std::shared_ptr<StreamGate> Hold(CallId call, std::unique_ptr<StreamGate> gate);

 private:
  struct Piece {
    UpdatePiece of;
    std::shared_ptr<char> out, in;  // staging
    uint32_t landed = 0;            // shards
  };
  struct Call {
    DeviceUpdate update;  // (its pieces are in `pieces`)
    std::vector<Piece> pieces;
    bool passed = false;  // the stream has come to where the call was started: its device memory may be written
    bool lost = false;    // it never will
    size_t copying = 0;
    std::vector<uint32_t> parked;  // pieces that landed before it passed
    std::shared_ptr<StreamGate> gate;
  };
  // A piece's number for the wait of a call that only pulls for its stream.
  static constexpr uint32_t kNoPiece = ~uint32_t{0};
  struct Ended {
    CallId call = 0;
    uint32_t piece = kNoPiece;
    bool out = false;
    absl::Status status;
  };
  struct Inbox;

  void OnCopiedOut(ClientCore& core, const Ended& ended, absl::Time now);
  void OnLanded(CallId id, Call& call, uint32_t piece);
  void CopyIn(CallId id, Call& call, uint32_t piece);
  bool StartPiece(ClientCore& core, CallId id, Call& call, uint32_t piece, absl::Time now);
  void Give(ClientCore& core, CallId id, Call& call, uint32_t piece, absl::Time now);
  void CopyOut(CallId id, Call& call, uint32_t piece, const void* from, size_t bytes);
  DeviceCopies::Done WhenEnded(CallId id, uint32_t piece, bool out) const;

  const std::shared_ptr<DeviceCopies> copies_;
  const std::shared_ptr<Staging> staging_;
  const std::function<std::shared_ptr<const void>()> slot_lender_;
  const std::shared_ptr<Inbox> inbox_;
  std::map<CallId, Call> calls_;  // that are not done
  std::deque<std::pair<CallId, uint32_t>> queue_;
  bool starved_ = false;
};

}  // namespace basin
