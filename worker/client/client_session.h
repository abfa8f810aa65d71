// The doer around ClientCore: carries its actions out on a Dialer. The calling thread drives the channels itself while
// it waits; a thread of the session looks after heartbeats when nobody does.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "common/base/mutex.h"
#include "common/wire/transport.h"
#include "worker/client/client_core.h"
#include "worker/client/device_calls.h"
#include "worker/client/device_copies.h"

namespace basin {

struct ClientSessionOptions {
  ClientCoreOptions core;
  uint64_t max_bytes_in_flight = uint64_t{256} << 20;
  bool log = false;
  absl::Duration tell_every = absl::Seconds(10);  // with `log`, a waiting call says whom it waits for this often
  // For calls with device pointers: called for the first one.
  std::function<absl::StatusOr<std::unique_ptr<DeviceCopies>>()> open_device_copies = &OpenDeviceCopies;
};

// Thread-safe. Sockets are touched by one thread at a time, the driver's; the role moves with `mutex_` between.
class ClientSession final {
 public:
  // Waits until every lane has welcomed the client.
  static absl::StatusOr<std::unique_ptr<ClientSession>> Connect(ClientSessionOptions options,
                                                                std::unique_ptr<wire::Dialer> dialer);
  // Close, where that was not done before.
  ~ClientSession();
  // Says goodbye, at most for 5 s. Calls that are not done end as CANCELLED: nothing is written into their buffers any
  // more. Not from two threads.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

  // Runs `start` on the core under the lock, and lets what it queued leave.
  template <class Start>
  auto Run(Start start) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    auto result = start(core_, absl::Now());
    KickIfNeeded();
    return result;
  }
  // As Run, for an update: waits first until there is room for it. `on_device`: its device memory, or nullptr; `start`
  // fills in its pieces. REQUIRES: then PrepareDevice was called.
  template <class Start>
  absl::StatusOr<CallId> RunUpdate(Start start, DeviceUpdate* on_device = nullptr) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    if (absl::Status status = WaitForRoom(); !status.ok()) return status;
    absl::StatusOr<CallId> result = start(core_, absl::Now());
    if (result.ok() && on_device != nullptr) StartOnDevice(*result, std::move(*on_device));
    KickIfNeeded();
    return result;
  }
  // Opened by the first call; FAILED_PRECONDITION: why there are none.
  absl::StatusOr<DeviceCopies*> device_copies() ABSL_LOCKS_EXCLUDED(opening_mutex_);
  // Makes what calls with device pointers need, the memory through which they go included, where it is not there yet.
  // REQUIRES: device_copies() has opened, and knows the device.
  absl::Status PrepareDevice(int device) ABSL_LOCKS_EXCLUDED(opening_mutex_, mutex_);
  // What is queued on the stream afterwards runs when the call is done, however it ends. REQUIRES: a call with device
  // memory.
  absl::Status OrderBefore(CallId call, const DeviceStream& stream) ABSL_LOCKS_EXCLUDED(mutex_);
  // For the buffers of one call that messages refer to: held by whoever may still read them. The call is done for its
  // caller once that is nobody, see `lent` below.
  using Lender = std::shared_ptr<const void>;
  using Lent = std::weak_ptr<const void>;
  Lender NewLender() const;

  // Waits for the call and takes its answer. DEADLINE_EXCEEDED: in doubt, the call goes on.
  absl::Status Wait(CallId call, absl::Time deadline, ClientCore::Result* result) ABSL_LOCKS_EXCLUDED(mutex_);
  // The first half of Wait: the answer stays, so several threads may wait for one call. Also waits until `lent` is let
  // go.
  absl::Status WaitDone(CallId call, const Lent& lent, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // The second half. REQUIRES: the call is done.
  ClientCore::Result Take(CallId call) ABSL_LOCKS_EXCLUDED(mutex_);
  bool Done(CallId call, const Lent& lent) ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until the run has ended. DEADLINE_EXCEEDED: it goes on.
  absl::Status WaitFinished(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  ClientSession(ClientSessionOptions options, std::unique_ptr<wire::Dialer> dialer);
  // Drives, or waits for the thread that does, until `ready` or the deadline. Returns whether it is ready.
  bool DriveUntil(absl::FunctionRef<bool()> ready, absl::Time deadline, CallId waiting_for)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsLetGo(CallId call) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string WaitingFor(CallId call, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Where lanes keep their shards on that device, the bytes go through memory of theirs.
  void OpenBlocks(int device) ABSL_EXCLUSIVE_LOCKS_REQUIRED(opening_mutex_) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status MakeStaging(int device) ABSL_EXCLUSIVE_LOCKS_REQUIRED(opening_mutex_) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether nothing of it is open any more.
  bool CloseBlocks() ABSL_LOCKS_EXCLUDED(mutex_);
  void StartOnDevice(CallId call, DeviceUpdate update) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool DeviceIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return device_calls_ == nullptr || device_calls_->idle();
  }
  absl::Status WaitForRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // After the core was given something: a pump costs more than a small push, so it is not made for each.
  void KickIfNeeded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Pumps, or wakes the driver to do it.
  void Kick() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One round without waiting: takes what came, lets time pass, carries actions out. REQUIRES: this thread drives.
  bool Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CarryOut(ClientAction action) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LookAfter();
  void Tell(const std::string& line) const;

  const ClientSessionOptions options_;
  const std::unique_ptr<wire::Dialer> dialer_;  // Wake is thread-safe, the rest is the driver's
  Mutex opening_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::shared_ptr<DeviceCopies> copies_ ABSL_GUARDED_BY(opening_mutex_);  // nullptr before the first device pointer
  std::set<int> prepared_ ABSL_GUARDED_BY(opening_mutex_);                // devices
  Mutex mutex_;
  CondVar changed_;
  ClientCore core_ ABSL_GUARDED_BY(mutex_);
  std::map<uint32_t, std::unique_ptr<wire::Channel>> channels_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<DeviceCalls> device_calls_ ABSL_GUARDED_BY(mutex_);  // nullptr before the first device pointer
  bool driving_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  int starts_since_pump_ ABSL_GUARDED_BY(mutex_) = 0;
  bool look_after_idles_ ABSL_GUARDED_BY(mutex_) = false;  // it waits for long, and must be woken to watch the time
  struct Lendings;
  const std::shared_ptr<Lendings> lendings_;  // outlives the session in the buffers' lenders
  std::thread look_after_;
};

}  // namespace basin
