#include "worker/client/device_rows_cuda.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/codec/cuda_half.h"
#include "common/device/cuda_memory.h"
#include "common/device/cuda_row_batch.h"
#include "common/device/cuda_status.h"
#include "worker/client/row_pieces.h"

namespace basin {
namespace {

// More keys than CUB sorts in one block, which are sorted by kernels of their own.
constexpr uint64_t kKeysOfManyBlocks = 16384;

std::string DeviceName(int device) { return absl::StrCat("cuda:", device); }

absl::Status CheckedRows(cudaError_t error, int device, absl::string_view what) {
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  return CudaStatus(error, DeviceName(device), what);
}

struct Found {
  UnfitSum sum;
  uint32_t not_finite;  // a key
};

}  // namespace

class DeviceRowsMemory::Room final {
 public:
  explicit Room(int device) : device(device), batch(DeviceName(device), nullptr) {}
  ~Room() {
    for (void* const memory : outgrown) static_cast<void>(cudaFreeHost(memory));
    if (host != nullptr) static_cast<void>(cudaFreeHost(host));
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  absl::Status Reserve(const DeviceRowsItem& item) {
    const std::string name = DeviceName(device);
    const bool bagged = !item.bags.offsets.empty();
    BASIN_RETURN_IF_ERROR(batch.Reserve(item.count, bagged, item.push != nullptr ? item.dim : 0));
    const size_t row_bytes = item.dim * sizeof(float);
    if (item.count > 0) BASIN_RETURN_IF_ERROR(rows.Resize(name, item.count * row_bytes));
    BASIN_RETURN_IF_ERROR(
        packed.Resize(name, std::min<size_t>(item.count * (sizeof(uint64_t) + row_bytes), kMaxRowsBytes)));
    BASIN_RETURN_IF_ERROR(found.Resize(name, sizeof(Found)));
    const size_t words = (item.keys_there ? 0 : item.count) + item.bags.offsets.size();
    BASIN_RETURN_IF_ERROR(given.Resize(name, words * sizeof(uint64_t)));
    // As many as there are entries: of each bucket that has keys a last one, and others that are full.
    const size_t most_spans =
        std::min<size_t>(item.count, size_t{1} << item.bucket_bits) + item.count / MostKeysOfEntry(item.dim);
    BASIN_RETURN_IF_ERROR(spans.Resize(name, most_spans * sizeof(RowsSpan)));
    spans_at = sizeof(Found) + words * sizeof(uint64_t);
    size_t bytes = spans_at + most_spans * sizeof(RowsSpan);
    if (bytes <= host_bytes) return absl::OkStatus();
    bytes = std::max(bytes, 2 * host_bytes);
    if (host != nullptr) outgrown.push_back(std::exchange(host, nullptr));
    host_bytes = 0;
    BASIN_RETURN_IF_ERROR(
        CheckedRows(cudaHostAlloc(&host, bytes, cudaHostAllocPortable), device, "pin memory for keys"));
    host_bytes = bytes;
    return absl::OkStatus();
  }
  size_t bytes() const { return batch.memory_bytes() + rows.bytes(); }
  Found* host_found() const { return static_cast<Found*>(host); }
  uint64_t* host_given() const { return reinterpret_cast<uint64_t*>(host_found() + 1); }
  RowsSpan* host_spans() const { return reinterpret_cast<RowsSpan*>(static_cast<char*>(host) + spans_at); }

  const int device;
  CudaRowBatch batch;
  CudaMemory given;  // keys and offsets that were the host's
  CudaMemory rows;   // sums, and then what is pulled, [key_count, dim]: a sum has left before its row comes
  CudaMemory packed, found, spans;
  void* host = nullptr;  // a Found, then keys and offsets, then spans
  size_t host_bytes = 0, spans_at = 0;
  std::vector<void*> outgrown;  // earlier ones, freed with the room: as CudaMemory's
};

class DeviceRowsMemory::Rows final : public DeviceRows {
 public:
  Rows(std::shared_ptr<DeviceRowsMemory> memory, std::unique_ptr<Room> room, const DeviceRowsItem& item)
      : memory_(std::move(memory)), room_(std::move(room)), item_(item), offsets_(item.bags.offsets.size()) {
    uint64_t* const to = room_->host_given();
    if (!item_.keys_there) {
      if (item_.count > 0) std::memcpy(to, item_.keys, item_.count * sizeof(uint64_t));
      given_ = item_.count;
      item_.keys = room_->given.as<uint64_t>();
    }
    if (offsets_ > 0) std::memcpy(to + given_, item_.bags.offsets.data(), offsets_ * sizeof(uint64_t));
    if (offsets_ > 0) bags_.offsets = room_->given.as<uint64_t>() + given_;
    if (offsets_ > 0) bags_.bags = offsets_ - 1;
    bags_.mean = item_.bags.mean;
    given_ += offsets_;
    item_.bags.offsets = {};
  }
  ~Rows() override { memory_->GiveRoom(std::move(room_)); }

  void Reduce(const Mark& after, Done done) override {
    const auto sorted = [this](Done then) {
      return [this, then = std::move(then)](const absl::Status& ended) {
        if (!ended.ok()) return then(Told(ended));
        if (room_->batch.FinishFill()) return Sum(then);
        Out(
            nullptr, [this](cudaStream_t stream) { return Sort(stream, /*whole_hashes=*/true); },
            [this, then](const absl::Status& again) {
              if (!again.ok()) return then(Told(again));
              room_->batch.FinishFill();
              Sum(then);
            });
      };
    };
    const auto start = [this](cudaStream_t stream) {
      if (given_ > 0) {
        const cudaError_t error = cudaMemcpyAsync(room_->given.data(), room_->host_given(), given_ * sizeof(uint64_t),
                                                  cudaMemcpyHostToDevice, stream);
        if (error != cudaSuccess) return error;
      }
      return Sort(stream, /*whole_hashes=*/false);
    };
    Out(after, start, sorted(std::move(done)));
  }

  absl::Span<const uint32_t> bucket_begin() const override {
    return {room_->batch.bucket_begin(), (size_t{1} << item_.bucket_bits) + 1};
  }
  const Unsendable* unsendable() const override { return unsendable_ ? &*unsendable_ : nullptr; }

  void PackOut(uint32_t first, uint32_t n, void* to, Done done) override {
    const auto start = [this, first, n, to](cudaStream_t stream) {
      const CudaRowBatch& batch = room_->batch;
      const RowPieceThere piece{.keys = batch.keys(),
                                .bucket_begin = batch.bucket_begin_there(),
                                .bucket_bits = item_.bucket_bits,
                                .most = MostKeysOfEntry(item_.dim),
                                .first = first,
                                .count = n};
      const bool pushes = item_.push != nullptr;
      const size_t bytes = n * (sizeof(uint64_t) + (pushes ? item_.dim * SizeOf(item_.sent_as) : 0));
      if (bytes > room_->packed.bytes()) return cudaErrorInvalidValue;
      const cudaError_t error = StartPackRows(stream, piece, pushes ? room_->rows.as<float>() : nullptr, item_.dim,
                                              item_.sent_as, room_->packed.as<char>());
      return error != cudaSuccess ? error
                                  : cudaMemcpyAsync(to, room_->packed.data(), bytes, cudaMemcpyDeviceToHost, stream);
    };
    Out(nullptr, start, std::move(done));
  }
  void RowsIn(uint32_t first, uint32_t n, const void* from, Done done) override {
    const auto start = [this, first, n, from](cudaStream_t stream) {
      return cudaMemcpyAsync(room_->rows.as<float>() + size_t{first} * item_.dim, from,
                             size_t{n} * item_.dim * sizeof(float), cudaMemcpyHostToDevice, stream);
    };
    memory_->in_(item_.device, nullptr, start, std::move(done));
  }
  void SetSpans(absl::Span<const RowsSpan> spans) override {
    std::copy(spans.begin(), spans.end(), room_->host_spans());
    spans_to_upload_ = spans.size();
  }
  void PlaceOut(const Placed& piece, void* keys, void* sums, Done done) override {
    const auto start = [this, piece, keys, sums](cudaStream_t stream) {
      // With the first piece, of which the others are behind.
      const size_t bytes = std::exchange(spans_to_upload_, 0) * sizeof(RowsSpan);
      cudaError_t error = cudaSuccess;
      if (bytes > 0) {
        error = cudaMemcpyAsync(room_->spans.data(), room_->host_spans(), bytes, cudaMemcpyHostToDevice, stream);
      }
      auto* const keys_there = room_->packed.as<uint64_t>();
      if (error == cudaSuccess) {
        error = StartPlaceRows(stream, SpansOf(piece), room_->batch.keys(),
                               item_.push != nullptr ? room_->rows.as<float>() : nullptr, item_.dim, item_.sent_as,
                               keys_there, sums);
      }
      if (error != cudaSuccess) return error;
      return cudaMemcpyAsync(keys, keys_there, piece.keys * sizeof(uint64_t), cudaMemcpyDeviceToHost, stream);
    };
    Out(nullptr, start, std::move(done));
  }
  void PlacedIn(const Placed& piece, const void* from, Done done) override {
    const auto start = [this, piece, from](cudaStream_t stream) {
      return StartTakeRows(stream, SpansOf(piece), static_cast<const float*>(from), item_.dim, room_->rows.as<float>());
    };
    memory_->in_(item_.device, nullptr, start, std::move(done));
  }
  void Spread(Done done) override {
    const auto start = [this](cudaStream_t stream) {
      room_->batch.UseStream(stream);
      const float* const rows = room_->rows.as<float>();
      return Kept(bags_.offsets != nullptr ? room_->batch.Pool(rows, item_.dim, item_.pull)
                                           : room_->batch.Scatter(rows, item_.dim, item_.pull));
    };
    memory_->in_(item_.device, nullptr, start,
                 [this, done = std::move(done)](const absl::Status& ended) { done(Told(ended)); });
  }

 private:
  RowSpansThere SpansOf(const Placed& piece) const {
    return {.spans = room_->spans.as<RowsSpan>() + piece.first,
            .count = static_cast<uint32_t>(piece.count),
            .rows = piece.keys};
  }
  void Out(const Mark& after, Start start, Done done) {
    memory_->out_(item_.device, after, std::move(start), std::move(done));
  }
  cudaError_t Sort(cudaStream_t stream, bool whole_hashes) {
    room_->batch.UseStream(stream);
    return Kept(room_->batch.StartFill(item_.keys, item_.count, item_.bucket_bits, bags_, whole_hashes));
  }
  void Sum(const Done& done) {
    if (item_.push == nullptr || room_->batch.key_count() == 0) return done(absl::OkStatus());
    Out(
        nullptr, [this](cudaStream_t stream) { return StartSum(stream); },
        [this, done](const absl::Status& ended) {
          if (ended.ok()) TakeFound();
          done(Told(ended));
        });
  }
  cudaError_t StartSum(cudaStream_t stream) {
    CudaRowBatch& batch = room_->batch;
    Found* const found = room_->found.as<Found>();
    float* const sums = room_->rows.as<float>();
    const bool narrows = IsHalf(item_.sent_as);
    cudaError_t error = Kept(batch.SumGradients(item_.push, item_.dim, sums, &found->not_finite));
    if (error == cudaSuccess && narrows) {
      const uint64_t n = uint64_t{batch.key_count()} * item_.dim;
      error = StartFindUnfit(stream, DType::kF32, item_.sent_as, sums, n, &found->sum.unfit);
    }
    if (error == cudaSuccess) {
      error = StartNameUnfit(stream, batch.keys(), sums, item_.dim, narrows ? nullptr : &found->not_finite,
                             CudaRowBatch::kNoKey, &found->sum);
    }
    if (error != cudaSuccess) return error;
    return cudaMemcpyAsync(room_->host_found(), found, sizeof(UnfitSum), cudaMemcpyDeviceToHost, stream);
  }
  void TakeFound() {
    const UnfitSum& sum = room_->host_found()->sum;
    if (sum.unfit.element == Unfit::kNone) return;
    unsendable_ = Unsendable{
        .key = sum.key, .column = static_cast<uint32_t>(sum.unfit.element % item_.dim), .value = sum.unfit.value};
  }
  // What the batch could not start is an error of this, rather than of the line.
  cudaError_t Kept(const absl::Status& status) {
    if (status.ok()) return cudaSuccess;
    kept_ = status;
    return cudaErrorUnknown;
  }
  absl::Status Told(const absl::Status& ended) const { return ended.ok() || kept_.ok() ? ended : kept_; }

  const std::shared_ptr<DeviceRowsMemory> memory_;
  std::unique_ptr<Room> room_;
  DeviceRowsItem item_;
  const size_t offsets_;
  size_t given_ = 0;            // keys and offsets that come from the host
  size_t spans_to_upload_ = 0;  // the line's, from the first piece on
  CudaRowBags bags_;
  absl::Status kept_;
  std::optional<Unsendable> unsendable_;
};

DeviceRowsMemory::DeviceRowsMemory(AddToLine out, AddToLine in) : out_(std::move(out)), in_(std::move(in)) {}
DeviceRowsMemory::~DeviceRowsMemory() = default;

absl::StatusOr<std::unique_ptr<DeviceRows>> DeviceRowsMemory::Prepare(const DeviceRowsItem& item) {
  std::unique_ptr<Room> room = TakeRoom(item.device, item.count * item.dim * sizeof(float));
  if (absl::Status reserved = room->Reserve(item); !reserved.ok()) {
    GiveRoom(std::move(room));
    return reserved;
  }
  return std::make_unique<Rows>(shared_from_this(), std::move(room), item);
}

// The smallest that has so many bytes, else the largest, which then grows.
std::unique_ptr<DeviceRowsMemory::Room> DeviceRowsMemory::TakeRoom(int device, size_t bytes) {
  MutexLock lock(mutex_);
  auto best = free_.end();
  for (auto at = free_.begin(); at != free_.end(); ++at) {
    if ((*at)->device != device) continue;
    const size_t has = (*at)->bytes(), best_has = best == free_.end() ? 0 : (*best)->bytes();
    const bool better = best_has < bytes ? has > best_has : has >= bytes && has < best_has;
    if (best == free_.end() || better) best = at;
  }
  if (best == free_.end()) {
    free_.reserve(++rooms_);  // so that giving back needs no memory
    return std::make_unique<Room>(device);
  }
  std::unique_ptr<Room> room = std::move(*best);
  free_.erase(best);
  return room;
}

void DeviceRowsMemory::GiveRoom(std::unique_ptr<Room> room) {
  MutexLock lock(mutex_);
  free_.push_back(std::move(room));
}

absl::Status DeviceRowsMemory::LoadKernels(int device) {
  const auto check = [&](cudaError_t error) { return CheckedRows(error, device, "load kernels for rows"); };
  cudaStream_t stream = nullptr;
  BASIN_RETURN_IF_ERROR(check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)));
  const absl::Cleanup destroy = [stream] { static_cast<void>(cudaStreamDestroy(stream)); };
  Room room(device);
  CudaRowBatch& batch = room.batch;
  batch.UseStream(stream);
  const std::vector<uint64_t> offsets = {0, kKeysOfManyBlocks};
  DeviceRowsItem item{.device = device, .count = kKeysOfManyBlocks, .bags = {.offsets = offsets}, .dim = 4};
  item.bucket_bits = 8;
  BASIN_RETURN_IF_ERROR(room.Reserve(item));
  // As gradients and as places.
  CudaMemory places;
  BASIN_RETURN_IF_ERROR(places.Resize(DeviceName(device), kKeysOfManyBlocks * item.dim * sizeof(float)));
  BASIN_RETURN_IF_ERROR(check(cudaMemsetAsync(places.data(), 0, places.bytes(), stream)));
  BASIN_RETURN_IF_ERROR(check(cudaMemsetAsync(room.given.data(), 0, room.given.bytes(), stream)));
  Found* const found = room.found.as<Found>();
  float* const rows = room.rows.as<float>();
  // Keys that all are 0: one key in many pieces.
  for (const uint64_t count : {uint64_t{1}, kKeysOfManyBlocks}) {
    const uint64_t words[] = {0, count};
    uint64_t* const offsets_there = room.given.as<uint64_t>() + kKeysOfManyBlocks;
    BASIN_RETURN_IF_ERROR(check(cudaMemcpyAsync(offsets_there, words, sizeof(words), cudaMemcpyHostToDevice, stream)));
    BASIN_RETURN_IF_ERROR(batch.Fill(room.given.as<uint64_t>(), count, item.bucket_bits, {offsets_there, 1, false}));
    for (const uint32_t dim : {1, 4}) {
      BASIN_RETURN_IF_ERROR(batch.SumGradients(places.as<float>(), dim, rows, &found->not_finite));
      BASIN_RETURN_IF_ERROR(batch.Pool(rows, dim, places.as<float>()));
      BASIN_RETURN_IF_ERROR(batch.Scatter(rows, dim, places.as<float>()));
    }
  }
  const RowPieceThere piece{.keys = batch.keys(),
                            .bucket_begin = batch.bucket_begin_there(),
                            .bucket_bits = item.bucket_bits,
                            .most = 1,
                            .first = 0,
                            .count = 1};
  const RowsSpan one = {.first = 0, .keys = 1, .row = 0};
  BASIN_RETURN_IF_ERROR(check(cudaMemcpyAsync(room.spans.data(), &one, sizeof(one), cudaMemcpyHostToDevice, stream)));
  const RowSpansThere spans{.spans = room.spans.as<RowsSpan>(), .count = 1, .rows = 1};
  BASIN_RETURN_IF_ERROR(check(StartTakeRows(stream, spans, places.as<float>(), item.dim, rows)));
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    BASIN_RETURN_IF_ERROR(check(StartPackRows(stream, piece, rows, item.dim, type, room.packed.as<char>())));
    BASIN_RETURN_IF_ERROR(check(StartPlaceRows(stream, spans, batch.keys(), rows, item.dim, type,
                                               room.packed.as<uint64_t>(), places.as<float>())));
    if (!IsHalf(type)) continue;
    BASIN_RETURN_IF_ERROR(check(StartFindUnfit(stream, DType::kF32, type, rows, item.dim, &found->sum.unfit)));
  }
  BASIN_RETURN_IF_ERROR(check(
      StartNameUnfit(stream, batch.keys(), rows, item.dim, &found->not_finite, CudaRowBatch::kNoKey, &found->sum)));
  return check(cudaStreamSynchronize(stream));
}

}  // namespace basin
