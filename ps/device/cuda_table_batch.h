// What a message begins on the tables of a lane, as part of the lane's batch (cuda_shards.h): pushes and pulls of
// entries are put together into runs, one behind the other in pinned memory, so that a message with many buckets of a
// table costs one upload, a few kernels and one copy back.
//
// A run of pushes has different keys, so that no kernel sees a key twice. Runs are carried out in their order, pushes
// first.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/device/cuda_memory.h"
#include "ps/device/block_plan.h"
#include "ps/device/placed_gradients.h"
#include "ps/table/device/cuda_table.h"

namespace basin {

class CudaLaneTable;

struct FreePinned {
  // What fails here is told by the next call that waits, if the device is lost.
  void operator()(void* memory) const { static_cast<void>(cudaFreeHost(memory)); }
};

// For its lane's thread, with the device current in Allocate and Start.
class CudaTableBatch final {
 public:
  // Keys of pushes and keys of pulls in a batch, so many of each; and tables.
  static constexpr size_t kKeys = size_t{128} << 10;
  static constexpr size_t kTables = 256;
  static constexpr size_t kGradientBytes = kBatchBytes;
  // Of a message's rows, each run's aligned.
  static constexpr size_t kAlignment = 16;
  static constexpr size_t kRowsBytes = kMessageBytes + kAlignment * kMaxEntries;

  // Of the device's memory.
  static uint64_t DeviceBytes();

  explicit CudaTableBatch(std::string device) : device_(std::move(device)) {}
  absl::Status Allocate();
  bool allocated() const { return staging_ != nullptr; }
  bool empty() const { return tables_.empty(); }

  // ---- What is begun; CudaLaneTable's ----

  // How many keys of a push, or of a pull, there is room for. 0: run the batch.
  size_t PushRoom(const CudaLaneTable& table, size_t gradient_bytes) const;
  size_t PullRoom(const CudaLaneTable& table) const;
  struct Push {
    CudaLaneTable* table = nullptr;
    DType type = DType::kF32;
    float learning_rate = 0;
    uint32_t stamp = 0;
    bool apart = false;      // keys of the run before stand in it too
    bool is_placed = false;  // its gradients lie in a client's block
  };
  // Places for `n` keys and their gradients, good until the next call. REQUIRES: room.
  struct Staged {
    char* keys;
    char* gradients;
  };
  Staged AddPush(const Push& push, size_t n);
  // Whether there is room for a push of n keys whose gradients lie in a client's block; if not, run the batch.
  // REQUIRES: at most what DeviceTable::PushPlaced takes.
  bool HasRoomForPlaced(const CudaLaneTable& table, size_t n) const;
  // `gradients`: in that block. When the batch has run, *refused tells whether there was a number in them that is not
  // finite, which leaves the push undone. REQUIRES: room.
  void AddPlacedPush(const Push& push, const char* keys, size_t n, const char* gradients, absl::Status* refused);
  // Sets aside room for rows of a message's answer; nullptr: there is none.
  char* TakeRows(const CudaLaneTable& table, size_t bytes);
  // Pulls of n keys, to rows that TakeRows gave. REQUIRES: room.
  void AddPull(CudaLaneTable* table, const char* keys, size_t n, char* rows);
  // To `rows` in a client's block. REQUIRES: room.
  void AddPlacedPull(CudaLaneTable* table, const char* keys, size_t n, char* rows);
  // Before all pushes.
  void AddEviction(CudaLaneTable* table, uint32_t before);

  // No rows are looked at any more.
  void ForgetRows() { rows_taken_ = 0; }
  // Puts all of it into the stream. Once that has been waited for: whether some placed push is refused. Then no other
  // placed push was carried out either, and pulls saw none: StartAgain puts those into the stream.
  absl::Status Start(cudaStream_t stream);
  bool refuses() const;
  absl::Status StartAgain(cudaStream_t stream);
  // The stream has been waited for, or the device is lost.
  void Ended(bool ran);

 private:
  struct PushRun {
    Push push;
    size_t first_key, count;
    size_t gradients_at, widened_at;
    size_t first_placed;  // among placed_
  };
  struct PlacedPush {
    size_t first_key, count;
    absl::Status* refused;
  };
  struct PullRun {
    CudaLaneTable* table;
    size_t first_key, count;
    char* rows;  // on the device
  };
  struct Eviction {
    CudaLaneTable* table;
    uint32_t before;
  };
  void Touch(CudaLaneTable* table);
  // Bytes on the device, and on the host, of what is uploaded behind the gradients.
  size_t PushKeysAt() const;
  size_t PullKeysAt() const;
  size_t PlacedAt() const;
  // The run that a push continues or begins.
  PushRun& RunOf(const Push& push);
  // Where the next rows of the last run of pulls would stand.
  char* EndOfRows() const;
  bool HasRoomFor(const CudaLaneTable& table) const;
  absl::Status Upload(cudaStream_t stream);
  absl::Status TakePlaced(cudaStream_t stream);
  // Nothing of it happens where `bad` is not null and *bad says so (CudaTable).
  absl::Status StartPush(cudaStream_t stream, const PushRun& run, const uint32_t* bad);
  absl::Status StartPulls(cudaStream_t stream);
  const uint32_t* NotFinite() const;  // as StartTakeGradients has it, on the host
  absl::Status Check(cudaError_t error, const char* what) const;

  const std::string device_;
  // Host: gradients, then keys and entries of placed pushes; rows; counters of tables; what is not finite. Device: the
  // same but for the counters, gradients of 16 bits and placed ones as floats, numbers of rows.
  std::unique_ptr<void, FreePinned> staging_;
  CudaMemory there_;
  std::vector<uint64_t> push_keys_, pull_keys_;
  size_t gradients_ = 0;                           // bytes
  size_t placed_bytes_ = 0;                        // of placed gradients, as floats
  size_t widened_ = 0;                             // bytes
  size_t rows_taken_ = 0;                          // bytes, of the message
  size_t rows_begin_ = kRowsBytes, rows_end_ = 0;  // of those that this batch writes
  std::vector<PushRun> pushes_;
  std::vector<PlacedPush> placed_;
  std::vector<PlacedGradients> entries_;  // as placed_
  uint32_t chunks_ = 0;                   // of the entries
  std::vector<PullRun> pulls_;
  std::vector<Eviction> evictions_;
  std::vector<CudaLaneTable*> tables_;  // that take part
};

}  // namespace basin
