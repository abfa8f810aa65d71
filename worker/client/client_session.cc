#include "worker/client/client_session.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {
// Heartbeats and late answers are looked after this often while no call drives the channels.
constexpr absl::Duration kLookAfterEvery = absl::Milliseconds(100);
// And this often while small updates wait for others to share a message with.
constexpr absl::Duration kLookAfterGathering = absl::Milliseconds(1);
constexpr absl::Duration kGoodbyeWait = absl::Seconds(5);
// A call is answered, and a transport's thread is just about to let go of its buffers: looked at again this soon.
constexpr absl::Duration kLetGoWait = absl::Microseconds(100);
// Pieces of device memory wait for staging, which a transport's thread lets go of without a word.
constexpr absl::Duration kStarvedWait = absl::Milliseconds(1);
constexpr int kStartsPerPump = 32;
// Of one channel, before others have their turn.
constexpr int kReceivesPerPump = 64;
// Through which calls with device pointers go, pieces of up to 1 MiB: as much as is under way in a round trip of 5 ms
// at 10 GB/s, for gradients and for parameters. max_bytes_in_flight may ask for less.
constexpr uint64_t kLeastStagingBytes = uint64_t{4} << 20, kMostStagingBytes = uint64_t{128} << 20;
// Of a lane's block. A lane is one message behind, or a few; with pieces of 1 MiB both ways this is eight of them.
constexpr uint64_t kLeastBlockBytes = uint64_t{4} << 20, kMostBlockBytes = uint64_t{16} << 20;
// A lane that cannot be reached must not keep the first call for longer: its pieces go through the host.
constexpr absl::Duration kBlocksWait = absl::Seconds(5);
}  // namespace

// How many lenders are out: Close waits for them, since a transport's threads may still read.
struct ClientSession::Lendings {
  Mutex mutex;
  CondVar changed;
  int out ABSL_GUARDED_BY(mutex) = 0;
};

ClientSession::Lender ClientSession::NewLender() const {
  {
    MutexLock lock(lendings_->mutex);
    ++lendings_->out;
  }
  return Lender(static_cast<const void*>(lendings_.get()), [lendings = lendings_](const void*) {
    MutexLock lock(lendings->mutex);
    if (--lendings->out == 0) lendings->changed.NotifyAll();
  });
}

ClientSession::ClientSession(ClientSessionOptions options, std::unique_ptr<wire::Dialer> dialer)
    : options_(std::move(options)),
      dialer_(std::move(dialer)),
      core_(options_.core),
      lendings_(std::make_shared<Lendings>()) {}

absl::StatusOr<std::unique_ptr<ClientSession>> ClientSession::Connect(ClientSessionOptions options,
                                                                      std::unique_ptr<wire::Dialer> dialer) {
  std::unique_ptr<ClientSession> session(new ClientSession(std::move(options), std::move(dialer)));
  const CallId call = session->Run([](ClientCore& core, absl::Time now) { return core.Connect(now); });
  ClientCore::Result result;
  BASIN_RETURN_IF_ERROR(session->Wait(call, absl::InfiniteFuture(), &result));
  ClientSession* raw = session.get();
  session->look_after_ = std::thread([raw] { raw->LookAfter(); });
  return session;
}

ClientSession::~ClientSession() { Close(); }

void ClientSession::Close() {
  if (!look_after_.joinable()) return;
  const bool closed = CloseBlocks();
  const CallId call = Run([closed](ClientCore& core, absl::Time now) { return core.Goodbye(now, closed); });
  ClientCore::Result ignored;  // whoever does not hear the goodbye will miss our heartbeats
  Wait(call, absl::Now() + kGoodbyeWait, &ignored).IgnoreError();
  {
    MutexLock lock(mutex_);
    core_.Abandon(absl::CancelledError("the client was closed"));
    Kick();
    // Copies under way still use the callers' device memory, and streams wait for their calls.
    DriveUntil([this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return DeviceIdle(); }, absl::InfiniteFuture(), 0);
    ending_ = true;
    changed_.NotifyAll();
  }
  look_after_.join();
  MutexLock lock(lendings_->mutex);
  while (lendings_->out > 0) lendings_->changed.WaitFor(lendings_->mutex, absl::Seconds(1));
}

void ClientSession::CarryOut(ClientAction action) {
  switch (action.kind) {
    case ClientAction::Kind::kDial:
      channels_[action.channel] = dialer_->Dial(action.address);
      return;
    case ClientAction::Kind::kClose:
      channels_.erase(action.channel);
      return;
    case ClientAction::Kind::kSend: {
      const auto at = channels_.find(action.channel);
      if (at == channels_.end()) return;  // cut meanwhile: the core sends it again
      const absl::Status sent = at->second->Send(std::move(action.message));
      if (sent.ok()) return;
      channels_.erase(at);
      core_.OnCut(action.channel, sent, absl::Now());
    }
  }
}

// With the task's name in front: the library does not share the program's log prefix.
void ClientSession::Tell(const std::string& line) const {
  const absl::string_view role = options_.core.role == wire::v1::ROLE_CHIEF       ? "chief"
                                 : options_.core.role == wire::v1::ROLE_WORKER    ? "worker"
                                 : options_.core.role == wire::v1::ROLE_EVALUATOR ? "evaluator"
                                                                                  : "observer";
  Info(absl::StrCat(role, " ", options_.core.index, ": ", line));
}

bool ClientSession::Pump() {
  bool progress = false;
  starts_since_pump_ = 0;
  absl::Time now = absl::Now();
  for (auto at = channels_.begin(); at != channels_.end();) {
    const uint32_t id = at->first;
    absl::Status cut;
    for (int i = 0; i < kReceivesPerPump; ++i) {
      absl::StatusOr<std::unique_ptr<wire::Message>> got = at->second->Receive();
      cut = got.status();
      if (!got.ok() || *got == nullptr) break;
      core_.OnMessage(id, std::move(**got), now);
      progress = true;
    }
    if (cut.ok()) {
      core_.SetInlineBelow(id, at->second->inline_below());
      ++at;
    } else {
      at = channels_.erase(at);
      core_.OnCut(id, cut, now);
      progress = true;
    }
  }
  if (device_calls_ != nullptr) progress = device_calls_->Pump(core_, now) || progress;
  if (core_.next_wake() <= now) core_.OnTime(now);
  for (std::vector<ClientAction> actions = core_.TakeActions(); !actions.empty(); actions = core_.TakeActions()) {
    for (ClientAction& action : actions) CarryOut(std::move(action));
    progress = true;
  }
  for (const std::string& note : core_.TakeNotes()) {
    if (options_.log) Tell(note);
  }
  if (progress) changed_.NotifyAll();
  return progress;
}

void ClientSession::KickIfNeeded() {
  if (core_.has_actions() || ++starts_since_pump_ >= kStartsPerPump) Kick();
  if (look_after_idles_ && core_.gathering()) {
    look_after_idles_ = false;
    changed_.NotifyAll();
  }
  // The session's thread may be the driver, asleep for longer than small updates shall wait.
  if (driving_ && core_.gathering() && !DeviceIdle()) dialer_->Wake();
}

void ClientSession::Kick() {
  if (driving_) {
    dialer_->Wake();
    return;
  }
  driving_ = true;
  while (Pump()) {
  }
  driving_ = false;
}

// Its answers are here, and nobody tells when a transport lets go of its memory; of a device's copies we are told.
bool ClientSession::IsLetGo(CallId call) const {
  return call != 0 && core_.done(call) && (device_calls_ == nullptr || !device_calls_->DeviceOf(call));
}

std::string ClientSession::WaitingFor(CallId call, absl::Time now) const {
  if (!core_.done(call)) return core_.WaitingFor(call, now);
  return IsLetGo(call) ? "update: answered; waiting for a transport to let go of its memory"
                       : "update: answered; waiting for the stream to come to the call, or for copies into the device";
}

bool ClientSession::DriveUntil(absl::FunctionRef<bool()> ready, absl::Time deadline, CallId waiting_for) {
  const bool tells = options_.log && waiting_for != 0;
  absl::Time tell_at = absl::InfiniteFuture();
  while (!ready()) {
    const absl::Time now = absl::Now();
    if (tells && tell_at == absl::InfiniteFuture()) tell_at = now + options_.tell_every;
    if (now >= deadline) return false;
    if (tells && now >= tell_at) {
      Tell(WaitingFor(waiting_for, now));
      tell_at = now + options_.tell_every;
    }
    core_.Flush(now);
    if (driving_) {
      if (core_.has_actions()) dialer_->Wake();
      changed_.WaitFor(mutex_, std::min(deadline - now, IsLetGo(waiting_for) ? kLetGoWait : absl::Seconds(1)));
      continue;
    }
    driving_ = true;
    if (!Pump() && !ready()) {
      const absl::Time until = std::min(
          {deadline, core_.next_wake(), tells ? tell_at : absl::InfiniteFuture(),
           IsLetGo(waiting_for) ? now + kLetGoWait : absl::InfiniteFuture(),
           device_calls_ != nullptr && device_calls_->starved() ? now + kStarvedWait : absl::InfiniteFuture()});
      mutex_.Unlock();
      dialer_->Wait(until);
      mutex_.Lock();
    }
    driving_ = false;
    changed_.NotifyAll();
  }
  return true;
}

absl::Status ClientSession::WaitDone(CallId call, const Lent& lent, absl::Time deadline) {
  MutexLock lock(mutex_);
  const auto done = [this, call, &lent]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return core_.done(call) && lent.expired(); };
  if (DriveUntil(done, deadline, call)) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("in doubt: ", WaitingFor(call, absl::Now())));
}

absl::Status ClientSession::Wait(CallId call, absl::Time deadline, ClientCore::Result* result) {
  BASIN_RETURN_IF_ERROR(WaitDone(call, Lent(), deadline));
  *result = Take(call);
  return result->status;
}

ClientCore::Result ClientSession::Take(CallId call) {
  MutexLock lock(mutex_);
  return core_.Take(call);
}

bool ClientSession::Done(CallId call, const Lent& lent) {
  MutexLock lock(mutex_);
  if (!core_.done(call)) {
    core_.Flush(absl::Now());
    Kick();
  }
  return core_.done(call) && lent.expired();
}

absl::Status ClientSession::WaitForRoom() {
  if (core_.failure().ok() && core_.bytes_in_flight() <= options_.max_bytes_in_flight) return absl::OkStatus();
  DriveUntil(
      [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
        return !core_.failure().ok() || core_.bytes_in_flight() <= options_.max_bytes_in_flight;
      },
      absl::InfiniteFuture(), 0);
  return core_.failure();
}

absl::Status ClientSession::WaitFinished(absl::Time deadline) {
  MutexLock lock(mutex_);
  const bool ready = DriveUntil(
      [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !core_.failure().ok() || core_.run_state().finished(); },
      deadline, 0);
  if (!core_.failure().ok()) return core_.failure();
  return ready ? absl::OkStatus() : absl::DeadlineExceededError("the run goes on");
}

absl::StatusOr<DeviceCopies*> ClientSession::device_copies() {
  MutexLock opening(opening_mutex_);
  if (copies_ == nullptr) {
    BASIN_ASSIGN_OR_RETURN(std::unique_ptr<DeviceCopies> copies, options_.open_device_copies());
    copies_ = std::move(copies);
  }
  return copies_.get();
}

absl::Status ClientSession::PrepareDevice(int device) {
  MutexLock opening(opening_mutex_);
  if (prepared_.contains(device)) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(copies_->Prepare(device));
  BASIN_RETURN_IF_ERROR(MakeStaging(device));
  OpenBlocks(device);
  prepared_.insert(device);
  return absl::OkStatus();
}

absl::Status ClientSession::MakeStaging(int device) {
  {
    MutexLock lock(mutex_);
    if (device_calls_ != nullptr) return absl::OkStatus();
  }
  // Pinning takes a while, and other calls go on meanwhile.
  BASIN_ASSIGN_OR_RETURN(
      std::shared_ptr<Staging> staging,
      Staging::Make(std::clamp(options_.max_bytes_in_flight, kLeastStagingBytes, kMostStagingBytes), *copies_, device));
  MutexLock lock(mutex_);
  device_calls_ = std::make_unique<DeviceCalls>(
      copies_, std::move(staging), [this] { dialer_->Wake(); }, [this] { return NewLender(); });
  return absl::OkStatus();
}

void ClientSession::OpenBlocks(int device) {
  const auto tell = [&](absl::string_view how) {
    if (options_.log) Tell(absl::StrCat("memory of cuda:", device, " goes ", how));
  };
  constexpr absl::string_view kHost = "through pinned memory of the host";
  const absl::StatusOr<std::string> id = copies_->Id(device);
  if (!id.ok()) return tell(absl::StrCat(kHost, ": ", id.status().message()));
  const CallId call = Run([&](ClientCore& core, absl::Time now) {
    return core.AskDeviceBlocks(*id, std::clamp(options_.max_bytes_in_flight, kLeastBlockBytes, kMostBlockBytes), now);
  });
  absl::Status failed = WaitDone(call, Lent(), absl::Now() + kBlocksWait);
  ClientCore::Result result;
  if (failed.ok()) {
    result = Take(call);
    failed = result.status;
  }
  size_t opened = 0;
  for (const ClientCore::LentBlock& lent : result.blocks) {
    absl::StatusOr<std::shared_ptr<char>> block = copies_->OpenBlock(device, lent.handle);
    if (!block.ok()) {
      failed.Update(block.status());
      continue;
    }
    ++opened;
    std::shared_ptr<Staging> memory = Staging::In(*std::move(block), lent.bytes);
    MutexLock lock(mutex_);
    device_calls_->AddBlock(lent.channel, device, std::move(memory));
    core_.UseDeviceBlock(lent.channel);
  }
  std::string ipc = absl::StrCat("through CUDA IPC to ", opened, opened == 1 ? " lane" : " lanes");
  const std::vector<std::string> beside = Run([](ClientCore& core, absl::Time) { return core.TablesBesideBlocks(); });
  if (!beside.empty()) {
    absl::StrAppend(&ipc, ", but rows of \"", absl::StrJoin(beside, "\", \""), "\" ", kHost,
                    ", where their lanes have them");
  }
  if (opened == 0 && failed.ok()) return tell(absl::StrCat(kHost, ": no ps has its shards there"));
  if (opened == 0) return tell(absl::StrCat(kHost, ": ", failed.message()));
  tell(failed.ok() ? ipc : absl::StrCat(ipc, ", to others ", kHost, ": ", failed.message()));
}

bool ClientSession::CloseBlocks() {
  std::vector<std::shared_ptr<Staging>> blocks;
  {
    MutexLock lock(mutex_);
    // With calls under way they stay open, and lanes wait for the process's end.
    if (device_calls_ == nullptr || !device_calls_->idle()) return false;
    blocks = device_calls_->TakeBlocks();
  }
  return std::all_of(blocks.begin(), blocks.end(), [](const auto& block) { return block.use_count() == 1; });
}

void ClientSession::StartOnDevice(CallId call, DeviceUpdate update) {
  try {
    device_calls_->Start(call, std::move(update));
  } catch (const std::bad_alloc&) {
    core_.Abandon(absl::ResourceExhaustedError("memory ended within a call; this client is given up, connect anew"));
  }
  Kick();
  changed_.NotifyAll();  // the session's own thread drives it from here, whether anybody waits or not
}

absl::Status ClientSession::OrderBefore(CallId call, const DeviceStream& stream) {
  BASIN_ASSIGN_OR_RETURN(DeviceCopies* const copies, device_copies());
  std::optional<int> device;
  {
    MutexLock lock(mutex_);
    device = device_calls_->DeviceOf(call);
  }
  if (!device) return absl::OkStatus();
  // Without the mutex: what opens gates needs it, and the device may keep us waiting.
  BASIN_ASSIGN_OR_RETURN(std::unique_ptr<StreamGate> made, copies->NewGate(*device));
  std::shared_ptr<StreamGate> gate;
  {
    MutexLock lock(mutex_);
    gate = device_calls_->Hold(call, std::move(made));
  }
  return gate == nullptr ? absl::OkStatus() : gate->HoldBack(stream);
}

void ClientSession::LookAfter() {
  MutexLock lock(mutex_);
  while (!ending_) {
    // A stream may wait for a call although no thread does.
    if (!DeviceIdle()) {
      DriveUntil([this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return ending_ || DeviceIdle(); }, absl::InfiniteFuture(),
                 0);
      continue;
    }
    if (!driving_) Kick();
    const bool gathering = core_.gathering();
    look_after_idles_ = !gathering;
    changed_.WaitFor(mutex_, gathering ? kLookAfterGathering : kLookAfterEvery);
  }
}

}  // namespace basin
