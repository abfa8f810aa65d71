#include "worker/client/device_calls.h"

#include <cstring>
#include <utility>

#include "common/base/mutex.h"
#include "worker/client/half_overflow.h"

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
  for (size_t i = 0; i < call.update.items.size(); ++i) {
    pulls = pulls || call.update.items[i].in != nullptr;
    if (call.update.items[i].half) call.looks.push_back({.item = i});
  }
  call.unlooked = call.looks.size();
  // A look tells that the stream has come there, too.
  if (pulls && !call.passed && call.looks.empty()) queue_.push_back({id, Work::kWait});
  for (uint32_t i = 0; i < call.looks.size(); ++i) queue_.push_back({id, Work::kLook, i});
  call.parts.resize(call.update.rows.size());
  call.unreduced = call.parts.size();
  for (uint32_t i = 0; i < call.parts.size(); ++i) queue_.push_back({id, Work::kReduce, i});
  if (!call.parts.empty()) queue_.push_back({id, Work::kCut});
  for (const UpdatePiece& piece : std::exchange(call.update.pieces, {})) {
    queue_.push_back({id, Work::kCopyOut, static_cast<uint32_t>(call.pieces.size())});
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
    OnEnded(core, one, now);
  }
  for (const ClientCore::Landed& landed : core.TakeLanded()) {
    progress = true;
    OnLanded(landed.call, calls_.at(landed.call), landed);  // it stays until all that landed was copied in
  }
  starved_ = false;
  while (!queue_.empty()) {
    const Queued queued = queue_.front();
    const auto at = calls_.find(queued.call);
    if (at != calls_.end() && !core.done(queued.call)) {
      const Outcome outcome = StartQueued(core, queued, at->second, now);
      starved_ = outcome == Outcome::kStarved;
      if (outcome != Outcome::kStarted) break;
    }
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

// ---- From the queue. False: there is no staging for it now ----

DeviceCalls::Outcome DeviceCalls::StartQueued(ClientCore& core, const Queued& queued, Call& call, absl::Time now) {
  if (queued.work == Work::kWait) {
    copies_->CopyOut(call.update.device, call.update.after, nullptr, nullptr, 0, Begin(call, queued));
    return Outcome::kStarted;
  }
  if (!call.parts.empty()) return StartRowsWork(core, queued, call, now);
  const bool started = queued.work == Work::kLook ? StartLook(queued, call) : StartPiece(core, queued, call, now);
  return started ? Outcome::kStarted : Outcome::kStarved;
}

bool DeviceCalls::StartLook(const Queued& queued, Call& call) {
  Look& look = call.looks[queued.number];
  const DeviceUpdate::Item& item = call.update.items[look.item];
  if ((look.found = staging_->Take(sizeof(Unfit))) == nullptr) return false;
  auto* const found = reinterpret_cast<Unfit*>(look.found.get());
  copies_->FindUnfit(call.update.device, call.update.after, item.from, *item.half, item.out, item.elements, found,
                     Begin(call, queued));
  return true;
}

bool DeviceCalls::StartPiece(ClientCore& core, const Queued& queued, Call& call, absl::Time now) {
  Piece& piece = call.pieces[queued.number];
  const UpdatePiece& of = piece.of;
  const DeviceUpdate::Item& item = call.update.items[of.item];
  // Both or none: with one of them held, two pieces could wait for each other's.
  std::shared_ptr<Staging> block = BlockFor(call, of);
  Staging& staging = block != nullptr ? *block : *staging_;
  std::shared_ptr<char> out, in;
  if (item.out != nullptr && (out = staging.Take(of.written_bytes())) == nullptr) return false;
  if (item.in != nullptr && (in = staging.Take(of.pulled_bytes())) == nullptr) return false;
  piece.block = std::move(block);
  piece.out = std::move(out);
  piece.in = std::move(in);
  if (item.out == nullptr) {
    Send(core, queued.call, call, queued.number, now);
  } else if (item.half && item.from != *item.half) {
    copies_->NarrowOut(call.update.device, call.update.after, *item.half, piece.out.get(),
                       item.out + of.begin * SizeOf(item.from), of.elements, Begin(call, queued));
  } else {
    copies_->CopyOut(call.update.device, call.update.after, piece.out.get(), item.out + of.begin * of.written_size,
                     of.written_bytes(), Begin(call, queued));
  }
  return true;
}

// ---- What has ended ----

void DeviceCalls::OnEnded(ClientCore& core, const Ended& ended, absl::Time now) {
  const CallId id = ended.what.call;
  Call& call = calls_.at(id);  // it stays while anything of it copies
  --call.copying;
  switch (ended.what.work) {
    case Work::kWait:
      if (ended.status.ok()) return OnPassed(id, call);
      call.lost = true;
      call.parked.clear();
      return core.AddError(id, ended.status);
    case Work::kLook:
      return OnLooked(core, id, call, ended, now);
    case Work::kCopyOut:
      return OnCopiedOut(core, id, call, ended, now);
    case Work::kCopyIn:
      call.pieces[ended.what.number].in.reset();
      if (!ended.status.ok()) core.AddError(id, ended.status);
      return;
    case Work::kReduce:
    case Work::kCut:
    case Work::kRowsOut:
    case Work::kRowsIn:
    case Work::kSpread:
      return OnRowsWork(core, ended, call, now);
  }
}

void DeviceCalls::OnPassed(CallId id, Call& call) {
  call.passed = true;
  for (const uint32_t piece : std::exchange(call.parked, {})) CopyIn(id, call, piece);
}

void DeviceCalls::OnLooked(ClientCore& core, CallId id, Call& call, const Ended& ended, absl::Time now) {
  Look& look = call.looks[ended.what.number];
  absl::Status status = ended.status;
  if (status.ok()) {
    OnPassed(id, call);
    const DeviceUpdate::Item& item = call.update.items[look.item];
    Unfit found;
    std::memcpy(&found, look.found.get(), sizeof(found));
    if (found.element != Unfit::kNone) status = CannotHold(*item.half, core.NameOf(item.variable), found);
  }
  look.found.reset();
  --call.unlooked;
  if (!status.ok() && !call.refused) {
    call.refused = true;
    for (const uint32_t piece : std::exchange(call.unsent, {}))
      call.pieces[piece].out = call.pieces[piece].in = nullptr;
    for (const Piece& piece : call.pieces) core.OnPieceFailed(id, piece.of, status, now);
  }
  if (call.unlooked > 0) return;
  for (const uint32_t piece : std::exchange(call.unsent, {})) Send(core, id, call, piece, now);
}

void DeviceCalls::OnCopiedOut(ClientCore& core, CallId id, Call& call, const Ended& ended, absl::Time now) {
  if (ended.status.ok() && !call.refused) {
    OnPassed(id, call);
    return Send(core, id, call, ended.what.number, now);
  }
  Piece& piece = call.pieces[ended.what.number];
  piece.out.reset();
  piece.in.reset();
  if (!call.refused) core.OnPieceFailed(id, piece.of, ended.status, now);
}

// The piece's messages may leave, once all is looked at.
void DeviceCalls::Send(ClientCore& core, CallId id, Call& call, uint32_t number, absl::Time now) {
  if (call.unlooked > 0) return call.unsent.push_back(number);
  Piece& piece = call.pieces[number];
  if (piece.block != nullptr) {
    const wire::DevicePlaces places{.written = piece.block->OffsetOf(piece.out.get()),
                                    .pulled = piece.block->OffsetOf(piece.in.get())};
    return core.OnPlacedPiece(id, piece.of, number, places, now);
  }
  wire::Frame written;
  if (piece.out != nullptr) written = Lend(std::move(piece.out), piece.of.written_bytes());
  core.OnPiece(id, piece.of, written, piece.in.get(), now);
}

wire::Frame DeviceCalls::Lend(std::shared_ptr<char> staging, size_t bytes) const {
  // The session ends after the last message that refers to its memory.
  struct Slot {
    std::shared_ptr<char> memory;
    std::shared_ptr<const void> lender;
  };
  const char* const data = staging.get();
  return {data, bytes, std::make_shared<Slot>(Slot{std::move(staging), slot_lender_()})};
}

void DeviceCalls::AddBlock(uint32_t channel, int device, std::shared_ptr<Staging> block) {
  blocks_[channel] = {device, std::move(block)};
}

std::vector<std::shared_ptr<Staging>> DeviceCalls::TakeBlocks() {
  std::vector<std::shared_ptr<Staging>> blocks;
  for (auto& [channel, block] : blocks_) blocks.push_back(std::move(block.memory));
  blocks_.clear();
  return blocks;
}

std::shared_ptr<Staging> DeviceCalls::BlockFor(const Call& call, const UpdatePiece& piece) const {
  return piece.whole && piece.shards() == 1 ? BlockOf(piece.channel, call.update.device) : nullptr;
}

std::shared_ptr<Staging> DeviceCalls::BlockOf(uint32_t channel, int device) const {
  const auto at = blocks_.find(channel);
  return at != blocks_.end() && at->second.device == device ? at->second.memory : nullptr;
}

void DeviceCalls::OnLanded(CallId id, Call& call, const ClientCore::Landed& landed) {
  const uint32_t number = landed.piece;
  if (!call.parts.empty()) return OnRowsLanded(id, call, landed);
  Piece& piece = call.pieces[number];
  piece.out.reset();  // a lane's; the host's are held by messages
  if (!landed.pulled) piece.in.reset();
  if (++piece.landed < piece.of.shards() || call.lost || !landed.pulled) return;
  if (call.passed) {
    CopyIn(id, call, number);
  } else {
    call.parked.push_back(number);
  }
}

void DeviceCalls::CopyIn(CallId id, Call& call, uint32_t number) {
  const UpdatePiece& of = call.pieces[number].of;
  copies_->CopyIn(call.update.device, call.update.items[of.item].in + of.begin * of.pulled_size,
                  call.pieces[number].in.get(), of.pulled_bytes(), Begin(call, {id, Work::kCopyIn, number}));
}

DeviceCopies::Done DeviceCalls::Begin(Call& call, const Queued& work) const {
  ++call.copying;
  return [inbox = inbox_, work](const absl::Status& status) {
    MutexLock lock(inbox->mutex);
    inbox->ended.push_back({work, status});
    inbox->wake();
  };
}

}  // namespace basin
