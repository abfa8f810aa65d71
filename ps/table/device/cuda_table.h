// An embedding table in the memory of a CUDA device: the twin of HostTable (ps/table/host_table.h). Open addressing:
// keys in buckets of 16, which 16 threads look at in one access, and rows apart from them, each at its key's number.
//
// Its memory is taken once, and never grows. A key lies in one of the kWindow buckets from its own on; where all of
// them are full a new key is refused, counted, and nothing else happens: evict (MakeRoom), or drop its gradient. Keys
// are spread by a hash, so refusals begin when somewhat more than six tenths of the numbers are taken (100 million
// rows; later in small tables).
//
// Numbers: rows are called by them from FindOrInsert to Apply; they hold until the next EvictBefore, or MakeRoom of
// another batch. Invariants, which let many threads insert at once, the same key too:
//   1. While a kernel inserts, a number that is free becomes taken, once, and nothing becomes free.
//   2. A key takes the first free number of its window, and only when it is nowhere in the window before the first
//      bucket with a number that never was taken. So of two threads with one key, the second fails to take that number,
//      or sees the key there.
//   3. A bucket that was full at some time has no number that "never was taken": eviction marks those as gone, over
//      which searches go on.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/cuda_memory.h"
#include "common/rules/cuda_row_layout.h"
#include "common/rules/rows.h"
#include "ps/table/device/cuda_table_kernels.h"
#include "ps/table/host_table.h"

namespace basin {

struct CudaTableCounters {
  uint64_t rows = 0;     // now
  uint64_t refused = 0;  // gradients of keys that found no room, ever
  uint64_t evicted = 0;  // rows, ever
};

// Work is ordered by the stream, and all pointers are to device memory, unless said otherwise. For one thread at a
// time, with the device current. Errors are CUDA's; after most the device is lost for this process.
class CudaTable final {
 public:
  static constexpr uint32_t kWindow = CudaKeyIndex::kWindow;

  // Whether a device's table does what the options ask for. UNIMPLEMENTED: it does not; INVALID_ARGUMENT: max_bytes has
  // no room for a bucket.
  static absl::Status CanHold(const StoredTableOptions& options);

  // All of options.max_bytes is taken, in the device's memory. Errors as CanHold's, and RESOURCE_EXHAUSTED: no memory.
  // REQUIRES: as for Table. The stream must outlive the table. `device`: for messages.
  static absl::StatusOr<std::unique_ptr<CudaTable>> Make(std::string device, StoredTableOptions options,
                                                         cudaStream_t stream);
  CudaTable(const CudaTable&) = delete;
  CudaTable& operator=(const CudaTable&) = delete;

  // How many rows the table can hold at most.
  uint32_t numbers() const { return index_.numbers + CudaKeyIndex::kReserved; }
  uint64_t bytes() const;

  // Writes `count` rows, [count, dim], those of keys without one as they would be made. Aligned to 16 bytes where dim
  // is a multiple of 4.
  absl::Status Pull(const uint64_t* keys, uint64_t count, float* rows) const;
  // number_of[i] becomes the number of the row of keys[i], which is made where there was none, or kNoCudaRow where
  // there is no room. Keys may repeat. `stamp` is the time, in the caller's unit, of the row's last push. Nothing
  // happens where bad_key is not null and *bad_key is not kNoBadKey (CudaRowBatch::SumGradients).
  absl::Status FindOrInsert(const uint64_t* keys, uint64_t count, uint32_t stamp, const uint32_t* bad_key,
                            uint32_t* number_of);
  // For keys that FindOrInsert, with this stamp, has found no room for: each evicts the row pushed longest ago of those
  // in its way, if that was before `stamp`, and has its number. Numbers of other keys stay. REQUIRES: no key repeats.
  absl::Status MakeRoom(const uint64_t* keys, uint64_t count, uint32_t stamp, uint32_t* number_of);
  // Applies gradients, [count, dim], to those rows. REQUIRES: no key repeats (CudaRowBatch merges them); see
  // StartApplyRows. learning_rate is finite and at least 0.
  absl::Status Apply(const uint64_t* keys, const uint32_t* number_of, uint64_t count, const float* gradients,
                     float learning_rate, const uint32_t* bad_key);
  // Evicts the rows that were last pushed before `stamp`.
  absl::Status EvictBefore(uint32_t stamp);

  // How many of the last evicted keys are remembered: as many as there are numbers, HostTable::kRemembered at most.
  // Their memory is not part of max_bytes.
  uint64_t remembered() const { return log_.size; }
  // Appends the evicted keys of numbers [first, end), of all that the counters know; waits for the stream. REQUIRES:
  // they are among the last `remembered`, and no single call before evicted more than that since.
  absl::Status CopyEvicted(uint64_t first, uint64_t end, std::vector<uint64_t>* keys) const;

  // Copies the counters to pinned host memory, where CountersOf reads them once the stream has come there.
  absl::Status CopyTally(CudaTableTally* to) const;
  static CudaTableCounters CountersOf(const CudaTableTally& tally);

  // These wait for the stream. The counters, and the rows of numbers [first, end), as the host's RowRule has them, each
  // of row_bytes(), appended to what is there, in host memory. REQUIRES: end <= numbers().
  absl::StatusOr<CudaTableCounters> Counters() const;
  absl::Status Export(uint32_t first, uint32_t end, std::vector<uint64_t>* keys, std::vector<char>* rows) const;
  size_t row_bytes() const { return rule_.row_bytes(); }

 private:
  CudaTable(std::string device, StoredTableOptions options, cudaStream_t stream);
  absl::Status Allocate();
  absl::Status Check(cudaError_t error, const char* what) const;

  const std::string device_;
  const StoredTableOptions options_;
  const cudaStream_t stream_;
  const RowRule rule_;
  const CudaRowLayout layout_;
  CudaMemory keys_, stamps_, reserved_, rows_, tally_, corrections_, evicted_;
  CudaKeyIndex index_;
  CudaRowStart start_;
  CudaEvictedLog log_;
  RowNumbers numbers_of_rule_;
};

}  // namespace basin
