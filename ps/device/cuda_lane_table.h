// A lane's part of a table in a CUDA device's memory: CudaTable behind the seam, with what the host decides about it:
// what is refused, the time, when something is evicted.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ps/device/cuda_table_batch.h"
#include "ps/device/key_turns.h"
#include "ps/device_table.h"
#include "ps/table/device/cuda_table.h"
#include "ps/table/stamp_clock.h"

namespace basin {

class CudaShards;

class CudaLaneTable final : public DeviceTable {
 public:
  // `rows` was made with the options and the lane's stream. The lane and its batch outlive it.
  CudaLaneTable(StoredTableOptions options, std::unique_ptr<CudaTable> rows, CudaShards& lane, CudaTableBatch& batch);

  absl::Status Push(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now,
                    DType type) override;
  absl::Status PushPlaced(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now,
                          DType type, absl::Status* refused) override;
  absl::StatusOr<const char*> Pull(const char* keys, size_t n) override;
  absl::Status PullPlaced(const char* keys, size_t n, char* rows) override;
  absl::Status EvictUnused(absl::Time now) override;
  absl::StatusOr<uint64_t> Evicted(uint64_t since, size_t most, std::vector<uint64_t>* keys) override;
  TableCounters counters() const override;

  // ---- For CudaTableBatch ----
  const StoredTableOptions& options() const { return options_; }
  CudaTable& rows() { return *rows_; }
  bool in_batch() const { return in_batch_; }
  void set_in_batch(bool in_batch) { in_batch_ = in_batch; }
  // Whether keys of the batch may find no room. Half of the numbers are far from where that begins.
  bool may_be_full() const { return counters_.rows + begun_keys_ > rows_->numbers() / 2; }
  // The batch has run.
  void Ran(const CudaTableCounters& counters);

 private:
  CudaTableBatch::Push PushOf(float learning_rate, absl::Time now, DType type);
  absl::Status StageAll(CudaTableBatch::Push push, const char* keys, size_t n, const char* gradients);
  absl::Status StageTurns(CudaTableBatch::Push push, const char* keys, const char* gradients);
  // Room for at least one more key; how much there is.
  absl::StatusOr<size_t> RoomForPush(DType type);

  const StoredTableOptions options_;
  const std::unique_ptr<CudaTable> rows_;
  CudaShards& lane_;
  CudaTableBatch& batch_;
  KeyTurns turns_;
  StampClock clock_;
  absl::Time next_round_ = absl::InfinitePast();
  CudaTableCounters counters_;
  uint64_t log_begin_ = 0;  // the first evicted key whose place in the log is known
  uint64_t begun_keys_ = 0;
  bool in_batch_ = false;
};

}  // namespace basin
