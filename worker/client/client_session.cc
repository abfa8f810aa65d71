#include "worker/client/client_session.h"

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {
// Heartbeats and late answers are looked after this often while no call drives the channels.
constexpr absl::Duration kLookAfterEvery = absl::Milliseconds(100);
constexpr absl::Duration kGoodbyeWait = absl::Seconds(5);
}  // namespace

ClientSession::ClientSession(ClientSessionOptions options, std::unique_ptr<wire::Dialer> dialer)
    : options_(std::move(options)), dialer_(std::move(dialer)), core_(options_.core) {}

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
  const CallId call = Run([](ClientCore& core, absl::Time now) { return core.Goodbye(now); });
  ClientCore::Result ignored;  // whoever does not hear the goodbye will miss our heartbeats
  Wait(call, absl::Now() + kGoodbyeWait, &ignored).IgnoreError();
  {
    MutexLock lock(mutex_);
    core_.Abandon(absl::CancelledError("the client was closed"));
    Kick();
    ending_ = true;
    changed_.NotifyAll();
  }
  look_after_.join();
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
  absl::Time now = absl::Now();
  for (auto at = channels_.begin(); at != channels_.end();) {
    const uint32_t id = at->first;
    absl::StatusOr<std::unique_ptr<wire::Message>> got = at->second->Receive();
    if (!got.ok()) {
      at = channels_.erase(at);
      core_.OnCut(id, got.status(), now);
      progress = true;
      continue;
    }
    if (*got == nullptr) {
      ++at;
      continue;
    }
    core_.OnMessage(id, std::move(**got), now);
    progress = true;
  }
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

bool ClientSession::DriveUntil(const std::function<bool()>& ready, absl::Time deadline, CallId waiting_for) {
  const bool tells = options_.log && waiting_for != 0;
  absl::Time tell_at = absl::Now() + options_.tell_every;
  while (!ready()) {
    const absl::Time now = absl::Now();
    if (now >= deadline) return false;
    if (tells && now >= tell_at) {
      Tell(core_.WaitingFor(waiting_for, now));
      tell_at = now + options_.tell_every;
    }
    if (driving_) {
      changed_.WaitFor(mutex_, std::min(deadline - now, absl::Seconds(1)));
      continue;
    }
    driving_ = true;
    if (!Pump() && !ready()) {
      const absl::Time until = std::min({deadline, core_.next_wake(), tells ? tell_at : absl::InfiniteFuture()});
      mutex_.Unlock();
      dialer_->Wait(until);
      mutex_.Lock();
    }
    driving_ = false;
    changed_.NotifyAll();
  }
  return true;
}

absl::Status ClientSession::WaitDone(CallId call, absl::Time deadline) {
  MutexLock lock(mutex_);
  if (DriveUntil([this, call]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return core_.done(call); }, deadline, call)) {
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError(absl::StrCat("in doubt: ", core_.WaitingFor(call, absl::Now())));
}

absl::Status ClientSession::Wait(CallId call, absl::Time deadline, ClientCore::Result* result) {
  BASIN_RETURN_IF_ERROR(WaitDone(call, deadline));
  *result = Take(call);
  return result->status;
}

ClientCore::Result ClientSession::Take(CallId call) {
  MutexLock lock(mutex_);
  return core_.Take(call);
}

bool ClientSession::Done(CallId call) {
  MutexLock lock(mutex_);
  if (!core_.done(call)) Kick();
  return core_.done(call);
}

absl::Status ClientSession::WaitForRoom() {
  MutexLock lock(mutex_);
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

void ClientSession::LookAfter() {
  MutexLock lock(mutex_);
  while (!ending_) {
    if (!driving_) Kick();
    changed_.WaitFor(mutex_, kLookAfterEvery);
  }
}

}  // namespace basin
