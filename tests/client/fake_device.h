// A device whose memory is the host's, and whose copies end when the test says so.
#pragma once

#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/codec/half.h"
#include "worker/client/device_copies.h"

namespace basin {

// What the test sees of the copies.
struct FakeDevice {
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;  // that come into the host's memory, or go out of it; 0: a wait, or a look
    DeviceCopies::Done done;
    std::function<void()> work = nullptr;  // where it is no plain copy
  };
  Mutex mutex;
  CondVar changed;
  bool holds_out ABSL_GUARDED_BY(mutex) = false, holds_in ABSL_GUARDED_BY(mutex) = false;
  std::deque<Copy> out ABSL_GUARDED_BY(mutex), in ABSL_GUARDED_BY(mutex);
  int gates_opened ABSL_GUARDED_BY(mutex) = 0;
  int opened = 0;
  std::string id = "the fake device";  // of the lanes too, where they have one
  bool opens_no_blocks = false;
  std::atomic<int> blocks_open{0};

  void Add(bool outward, Copy copy) ABSL_LOCKS_EXCLUDED(mutex) {
    {
      MutexLock lock(mutex);
      if (outward ? holds_out : holds_in) {
        (outward ? out : in).push_back(std::move(copy));
        changed.NotifyAll();
        return;
      }
    }
    End(copy, absl::OkStatus());
  }
  static void End(const Copy& copy, const absl::Status& status) {
    if (status.ok() && copy.work) copy.work();
    if (status.ok() && !copy.work && copy.bytes > 0) std::memcpy(copy.to, copy.from, copy.bytes);
    copy.done(status);
  }
  // The oldest copy that is held, waiting until there is one.
  Copy NextOut() ABSL_LOCKS_EXCLUDED(mutex) {
    MutexLock lock(mutex);
    while (out.empty()) changed.Wait(mutex);
    Copy copy = std::move(out.front());
    out.pop_front();
    return copy;
  }
  Copy NextIn() ABSL_LOCKS_EXCLUDED(mutex) {
    MutexLock lock(mutex);
    while (in.empty()) changed.Wait(mutex);
    Copy copy = std::move(in.front());
    in.pop_front();
    return copy;
  }
  void Hold(bool outs, bool ins) ABSL_LOCKS_EXCLUDED(mutex) {
    MutexLock lock(mutex);
    holds_out = outs;
    holds_in = ins;
  }
  // What is held, and what comes later.
  void LetGo(const absl::Status& status = absl::OkStatus()) ABSL_LOCKS_EXCLUDED(mutex) {
    std::deque<Copy> held;
    {
      MutexLock lock(mutex);
      holds_out = holds_in = false;
      held.swap(out);
      for (Copy& copy : in) held.push_back(std::move(copy));
      in.clear();
    }
    for (const Copy& copy : held) End(copy, status);
  }
  void WaitForGates(int count) ABSL_LOCKS_EXCLUDED(mutex) {
    MutexLock lock(mutex);
    while (gates_opened < count) changed.Wait(mutex);
  }
};

class FakeGate final : public StreamGate {
 public:
  explicit FakeGate(std::shared_ptr<FakeDevice> device) : device_(std::move(device)) {}
  ~FakeGate() override { Open(); }
  absl::Status HoldBack(const DeviceStream&) override { return absl::OkStatus(); }
  void Open() override {
    if (std::exchange(open_, true)) return;
    MutexLock lock(device_->mutex);
    ++device_->gates_opened;
    device_->changed.NotifyAll();
  }

 private:
  const std::shared_ptr<FakeDevice> device_;
  bool open_ = false;
};

class FakeCopies final : public DeviceCopies {
 public:
  explicit FakeCopies(std::shared_ptr<FakeDevice> device) : device_(std::move(device)) {}
  absl::Status Check(int, const void*, size_t) override { return absl::OkStatus(); }
  absl::StatusOr<Mark> MarkNow(int, const DeviceStream&) override { return std::make_shared<const int>(0); }
  absl::StatusOr<std::string> Id(int) override { return device_->id; }
  // As FakeShardDevice lends it.
  absl::StatusOr<std::shared_ptr<char>> OpenBlock(int, const std::string& handle) override {
    if (device_->opens_no_blocks) return absl::InternalError("fake: no such memory");
    char* block = nullptr;
    std::memcpy(&block, handle.data(), sizeof(block));
    device_->blocks_open.fetch_add(1);
    return std::shared_ptr<char>(block, [device = device_](char*) { device->blocks_open.fetch_sub(1); });
  }
  std::shared_ptr<const void> Pin(int, void*, size_t) override { return nullptr; }
  void CopyOut(int, const Mark&, void* to, const void* from, size_t bytes, Done done) override {
    device_->Add(/*outward=*/true, {to, from, bytes, std::move(done)});
  }
  absl::Status PrepareHalves(int) override { return absl::OkStatus(); }
  void NarrowOut(int, const Mark&, DType type, void* to, const void* from, uint64_t n, Done done) override {
    const auto narrow = [=] { Narrow(type, static_cast<const float*>(from), n, static_cast<char*>(to)); };
    device_->Add(/*outward=*/true, {to, from, n * SizeOf(type), std::move(done), narrow});
  }
  void FindUnfit(int, const Mark&, DType from, DType type, const void* values, uint64_t n, Unfit* unfit,
                 Done done) override {
    const auto find = [=] { *unfit = basin::FindUnfit(from, type, static_cast<const char*>(values), n); };
    device_->Add(/*outward=*/true, {unfit, values, 0, std::move(done), find});
  }
  void CopyIn(int, void* to, const void* from, size_t bytes, Done done) override {
    device_->Add(/*outward=*/false, {to, from, bytes, std::move(done)});
  }
  absl::StatusOr<std::unique_ptr<StreamGate>> NewGate(int) override { return std::make_unique<FakeGate>(device_); }

 private:
  const std::shared_ptr<FakeDevice> device_;
};

}  // namespace basin
