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
    bool apart = false;  // keys of the run before stand in it too
  };
  // Places for `n` keys and their gradients, good until the next call. REQUIRES: room.
  struct Staged {
    char* keys;
    char* gradients;
  };
  Staged AddPush(const Push& push, size_t n);
  // Sets aside room for rows of a message's answer; nullptr: there is none.
  char* TakeRows(const CudaLaneTable& table, size_t bytes);
  // Pulls of n keys, to rows that TakeRows gave. REQUIRES: room.
  void AddPull(CudaLaneTable* table, const char* keys, size_t n, char* rows);
  // Before all pushes.
  void AddEviction(CudaLaneTable* table, uint32_t before);

  // No rows are looked at any more.
  void ForgetRows() { rows_taken_ = 0; }
  // Puts all of it into the stream.
  absl::Status Start(cudaStream_t stream);
  // The stream has been waited for, or the device is lost.
  void Ended(bool ran);

 private:
  struct PushRun {
    Push push;
    size_t first_key, count;
    size_t gradients_at, widened_at;
  };
  struct PullRun {
    CudaLaneTable* table;
    size_t first_key, count;
    size_t rows_at;
  };
  struct Eviction {
    CudaLaneTable* table;
    uint32_t before;
  };
  void Touch(CudaLaneTable* table);
  // Where the next rows of the last run of pulls would stand.
  size_t EndOfRows() const;
  bool HasRoomFor(const CudaLaneTable& table) const;
  absl::Status StartPush(cudaStream_t stream, const PushRun& run, const uint64_t* keys);
  absl::Status Check(cudaError_t error, const char* what) const;

  const std::string device_;
  // Host: gradients, then keys; rows; counters of tables. Device: the same but for the counters, gradients of 16 bits
  // as floats, numbers of rows.
  std::unique_ptr<void, FreePinned> staging_;
  CudaMemory there_;
  std::vector<uint64_t> push_keys_, pull_keys_;
  size_t gradients_ = 0;   // bytes
  size_t widened_ = 0;     // bytes
  size_t rows_taken_ = 0;  // bytes, of the message
  std::vector<PushRun> pushes_;
  std::vector<PullRun> pulls_;
  std::vector<Eviction> evictions_;
  std::vector<CudaLaneTable*> tables_;  // that take part
};

}  // namespace basin
