// A device whose memory is the host's, and whose copies end when the test says so.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster_spec/table_placement.h"
#include "common/base/mutex.h"
#include "common/codec/half.h"
#include "worker/client/device_copies.h"
#include "worker/client/device_rows.h"
#include "worker/client/row_batch.h"

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

// Reduced and spread by the host's RowBatch, when the test lets it.
class FakeRows final : public DeviceRows {
 public:
  FakeRows(std::shared_ptr<FakeDevice> device, const DeviceRowsItem& item)
      : device_(std::move(device)), item_(item), offsets_(item.bags.offsets.begin(), item.bags.offsets.end()) {
    if (!item_.keys_there) keys_.assign(item.keys, item.keys + item.count);
  }
  void Reduce(const Mark&, Done done) override {
    device_->Add(/*outward=*/true, {nullptr, item_.push, 0, std::move(done), [this] { ReduceNow(); }});
  }
  absl::Span<const uint32_t> bucket_begin() const override { return begin_; }
  const Unsendable* unsendable() const override { return unsendable_ ? &*unsendable_ : nullptr; }
  void PackOut(uint32_t first, uint32_t n, void* to, Done done) override {
    const size_t bytes = n * (sizeof(uint64_t) + SumBytes());
    device_->Add(/*outward=*/true, {to, nullptr, bytes, std::move(done), [=, this] { Pack(first, n, to); }});
  }
  void RowsIn(uint32_t first, uint32_t n, const void* from, Done done) override {
    device_->Add(/*outward=*/false, {rows_.data() + size_t{first} * item_.dim, from, n * RowBytes(), std::move(done)});
  }
  void SetSpans(absl::Span<const RowsSpan> spans) override { spans_.assign(spans.begin(), spans.end()); }
  void PlaceOut(const Placed& piece, void* keys, void* sums, Done done) override {
    const size_t bytes = piece.keys * sizeof(uint64_t);  // the rest stays on the device
    device_->Add(/*outward=*/true, {keys, sums, bytes, std::move(done), [=, this] { Place(piece, keys, sums); }});
  }
  void PlacedIn(const Placed& piece, const void* from, Done done) override {
    const auto take = [=, this] {
      for (const RowsSpan& span : SpansOf(piece)) {
        const char* const rows = static_cast<const char*>(from) + span.row * RowBytes();
        std::memcpy(RowAt(span.first), rows, span.keys * RowBytes());
      }
    };
    device_->Add(/*outward=*/false, {rows_.data(), from, 0, std::move(done), take});
  }
  void Spread(Done done) override {
    device_->Add(/*outward=*/false, {item_.pull, rows_.data(), 0, std::move(done), [this] { SpreadNow(); }});
  }

 private:
  size_t RowBytes() const { return item_.dim * sizeof(float); }
  size_t SumBytes() const { return item_.push != nullptr ? item_.dim * SizeOf(item_.sent_as) : 0; }
  char* RowAt(size_t key) { return reinterpret_cast<char*>(rows_.data() + key * item_.dim); }

  void ReduceNow() {
    const TablePlacement placement = TablePlacement::Make(1);
    if (item_.keys_there) keys_.assign(item_.keys, item_.keys + item_.count);
    batch_.Fill(placement, item_.dim, keys_, {.offsets = offsets_, .mean = item_.bags.mean});
    begin_.assign(placement.buckets() + 1, static_cast<uint32_t>(batch_.keys().size()));
    for (auto at = batch_.buckets().rbegin(); at != batch_.buckets().rend(); ++at) begin_[at->bucket] = at->first_key;
    for (size_t bucket = placement.buckets(); bucket-- > 0;)
      begin_[bucket] = std::min(begin_[bucket], begin_[bucket + 1]);
    rows_.assign(batch_.keys().size() * item_.dim, NAN);
    if (item_.push == nullptr) return;
    for (const RowBatch::Bucket& bucket : batch_.buckets())
      batch_.WriteGradients(bucket, 0, bucket.keys, item_.push, RowAt(bucket.first_key));
    for (size_t i = 0; i < rows_.size() && !unsendable_; ++i) {
      if (std::abs(rows_[i]) < OverflowsFrom(item_.sent_as)) continue;
      unsendable_ = {
          .key = batch_.keys()[i / item_.dim], .column = static_cast<uint32_t>(i % item_.dim), .value = rows_[i]};
    }
  }
  void Pack(uint32_t first, uint32_t n, void* to) {
    char* out = static_cast<char*>(to);
    const uint32_t most = MostKeysOfEntry(item_.dim);
    for (const RowBatch::Bucket& bucket : batch_.buckets()) {
      for (uint32_t i = 0; i < bucket.keys; i += most) {
        const uint32_t at = bucket.first_key + i, keys = std::min(most, bucket.keys - i);
        if (at < first || at >= first + n) continue;
        batch_.WriteKeys(bucket, i, keys, out);
        out += keys * sizeof(uint64_t);
        if (item_.push == nullptr) continue;
        if (IsHalf(item_.sent_as)) {
          Narrow(item_.sent_as, rows_.data() + size_t{at} * item_.dim, keys * item_.dim, out);
        } else {
          std::memcpy(out, RowAt(at), keys * RowBytes());
        }
        out += keys * SumBytes();
      }
    }
  }
  absl::Span<const RowsSpan> SpansOf(const Placed& piece) const {
    return absl::MakeConstSpan(spans_).subspan(piece.first, piece.count);
  }
  void Place(const Placed& piece, void* keys, void* sums) {
    for (const RowsSpan& span : SpansOf(piece)) {
      std::memcpy(static_cast<uint64_t*>(keys) + span.row, batch_.keys().data() + span.first, 8 * span.keys);
      if (item_.push == nullptr) continue;
      char* const to = static_cast<char*>(sums) + span.row * SumBytes();
      if (IsHalf(item_.sent_as)) {
        Narrow(item_.sent_as, rows_.data() + size_t{span.first} * item_.dim, span.keys * item_.dim, to);
      } else {
        std::memcpy(to, RowAt(span.first), span.keys * RowBytes());
      }
    }
  }
  void SpreadNow() {
    std::vector<float> places(batch_.places() * item_.dim);
    float* const to = batch_.bagged() ? places.data() : item_.pull;
    for (const RowBatch::Bucket& bucket : batch_.buckets())
      batch_.Scatter(bucket, 0, bucket.keys, RowAt(bucket.first_key), to);
    if (batch_.bagged()) batch_.Pool(places.data(), item_.pull);
  }

  const std::shared_ptr<FakeDevice> device_;
  const DeviceRowsItem item_;
  const std::vector<uint64_t> offsets_;
  std::vector<uint64_t> keys_;
  RowBatch batch_;
  std::vector<uint32_t> begin_;
  std::vector<float> rows_;
  std::vector<RowsSpan> spans_;
  std::optional<Unsendable> unsendable_;
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
  absl::Status Prepare(int) override { return absl::OkStatus(); }
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
  absl::StatusOr<std::unique_ptr<DeviceRows>> PrepareRows(const DeviceRowsItem& item) override {
    return std::make_unique<FakeRows>(device_, item);
  }
  absl::StatusOr<std::unique_ptr<StreamGate>> NewGate(int) override { return std::make_unique<FakeGate>(device_); }

 private:
  const std::shared_ptr<FakeDevice> device_;
};

}  // namespace basin
