#include "worker/client/device_calls.h"

#include "common/base/mutex.h"

namespace basin {

// Where threads of the copies leave what has ended. It may outlive the session.
struct DeviceCalls::Inbox {
  Mutex mutex;
  std::function<void()> wake ABSL_GUARDED_BY(mutex);
  std::vector<Ended> ended ABSL_GUARDED_BY(mutex);
};

DeviceCalls::DeviceCalls(std::shared_ptr<DeviceCopies> copies, std::shared_ptr<Staging> staging,
                         std::function<void()> wake, std::function<std::shared_ptr<const void>()> slot_lender)
    : copies_(std::move(copies)),
      staging_(std::move(staging)),
      slot_lender_(std::move(slot_lender)),
      inbox_(std::make_shared<Inbox>()) {
  MutexLock lock(inbox_->mutex);
  inbox_->wake = std::move(wake);
}

DeviceCalls::~DeviceCalls() {
  MutexLock lock(inbox_->mutex);
  inbox_->wake = [] {};
}

void DeviceCalls::Start(CallId id, DeviceUpdate update) {
  Call& call = calls_[id];
  call.update = std::move(update);
  call.passed = call.update.after == nullptr;
  bool pulls = false;
  for (const DeviceUpdate::Item& item : call.update.items) pulls = pulls || item.in != nullptr;
  if (pulls && !call.passed) queue_.emplace_back(id, kNoPiece);
  for (const UpdatePiece& piece : std::exchange(call.update.pieces, {})) {
    queue_.emplace_back(id, static_cast<uint32_t>(call.pieces.size()));
    call.pieces.push_back({.of = piece});
  }
}

std::optional<int> DeviceCalls::DeviceOf(CallId id) const {
  const auto at = calls_.find(id);
  return at == calls_.end() ? std::nullopt : std::optional<int>(at->second.update.device);
}

std::shared_ptr<StreamGate> DeviceCalls::Hold(CallId id, std::unique_ptr<StreamGate> gate) {
  const auto at = calls_.find(id);
  if (at == calls_.end()) return nullptr;
  if (at->second.gate == nullptr) at->second.gate = std::move(gate);
  return at->second.gate;
}

bool DeviceCalls::Pump(ClientCore& core, absl::Time now) {
  bool progress = false;
  std::vector<Ended> ended;
  {
    MutexLock lock(inbox_->mutex);
    ended.swap(inbox_->ended);
  }
  for (const Ended& one : ended) {
    progress = true;
    Call& call = calls_.at(one.call);  // it stays while anything of it copies
    --call.copying;
    if (one.out) {
      OnCopiedOut(core, one, now);
      continue;
    }
    call.pieces[one.piece].in.reset();
    if (!one.status.ok()) core.AddError(one.call, one.status);
  }
  for (const ClientCore::Landed& landed : core.TakeLanded()) {
    progress = true;
    OnLanded(landed.call, calls_.at(landed.call), landed.piece);  // it stays until all that landed was copied in
  }
  starved_ = false;
  while (!queue_.empty() && !starved_) {
    const auto [id, piece] = queue_.front();
    const auto at = calls_.find(id);
    if (at != calls_.end() && !core.done(id)) starved_ = !StartPiece(core, id, at->second, piece, now);
    if (starved_) break;
    progress = true;
    queue_.pop_front();
  }
  for (auto at = calls_.begin(); at != calls_.end();) {
    Call& call = at->second;
    // After the client's own failure nothing lands any more.
    const bool done = core.done(at->first) && call.copying == 0 && (call.parked.empty() || !core.failure().ok());
    if (!done) {
      ++at;
      continue;
    }
    progress = true;
    if (call.gate != nullptr) call.gate->Open();
    at = calls_.erase(at);
  }
  return progress;
}

// False: there is no staging for it now.
bool DeviceCalls::StartPiece(ClientCore& core, CallId id, Call& call, uint32_t number, absl::Time now) {
  if (number == kNoPiece) {
    CopyOut(id, call, number, nullptr, 0);
    return true;
  }
  Piece& piece = call.pieces[number];
  const DeviceUpdate::Item& item = call.update.items[piece.of.item];
  // Both or none: with one of them held, two pieces could wait for each other's.
  std::shared_ptr<char> out, in;
  if (item.out != nullptr && (out = staging_->Take(piece.of.bytes)) == nullptr) return false;
  if (item.in != nullptr && (in = staging_->Take(piece.of.bytes)) == nullptr) return false;
  piece.out = std::move(out);
  piece.in = std::move(in);
  if (item.out != nullptr) {
    CopyOut(id, call, number, item.out + piece.of.offset, piece.of.bytes);
  } else {
    Give(core, id, call, number, now);
  }
  return true;
}

void DeviceCalls::CopyOut(CallId id, Call& call, uint32_t piece, const void* from, size_t bytes) {
  ++call.copying;
  char* const to = piece == kNoPiece ? nullptr : call.pieces[piece].out.get();
  copies_->CopyOut(call.update.device, call.update.after, to, from, bytes, WhenEnded(id, piece, /*out=*/true));
}

void DeviceCalls::OnCopiedOut(ClientCore& core, const Ended& ended, absl::Time now) {
  Call& call = calls_.at(ended.call);
  if (ended.status.ok()) {
    call.passed = true;
    for (const uint32_t piece : std::exchange(call.parked, {})) CopyIn(ended.call, call, piece);
    if (ended.piece != kNoPiece) Give(core, ended.call, call, ended.piece, now);
    return;
  }
  if (ended.piece == kNoPiece) {
    call.lost = true;
    call.parked.clear();
    core.AddError(ended.call, ended.status);
    return;
  }
  Piece& piece = call.pieces[ended.piece];
  piece.out.reset();
  piece.in.reset();
  core.OnPieceFailed(ended.call, piece.of, ended.status, now);
}

// The piece's messages may leave.
void DeviceCalls::Give(ClientCore& core, CallId id, Call& call, uint32_t number, absl::Time now) {
  Piece& piece = call.pieces[number];
  wire::Frame written;
  if (piece.out != nullptr) {
    // The session ends after the last message that refers to its memory.
    struct Slot {
      std::shared_ptr<char> memory;
      std::shared_ptr<const void> lender;
    };
    const char* const data = piece.out.get();
    written = wire::Frame(data, piece.of.bytes, std::make_shared<Slot>(Slot{std::move(piece.out), slot_lender_()}));
  }
  core.OnPiece(id, piece.of, written, piece.in.get(), now);
}

void DeviceCalls::OnLanded(CallId id, Call& call, uint32_t number) {
  Piece& piece = call.pieces[number];
  if (++piece.landed < piece.of.shards() || call.lost) return;
  if (call.passed) {
    CopyIn(id, call, number);
  } else {
    call.parked.push_back(number);
  }
}

void DeviceCalls::CopyIn(CallId id, Call& call, uint32_t number) {
  ++call.copying;
  const UpdatePiece& of = call.pieces[number].of;
  copies_->CopyIn(call.update.device, call.update.items[of.item].in + of.offset, call.pieces[number].in.get(), of.bytes,
                  WhenEnded(id, number, /*out=*/false));
}

DeviceCopies::Done DeviceCalls::WhenEnded(CallId id, uint32_t piece, bool out) const {
  return [inbox = inbox_, id, piece, out](const absl::Status& status) {
    MutexLock lock(inbox->mutex);
    inbox->ended.push_back({id, piece, out, status});
    inbox->wake();
  };
}

}  // namespace basin
