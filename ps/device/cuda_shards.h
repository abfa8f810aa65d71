// A lane's part of a CUDA device: blocks for its shards, tables, a stream, and the batch of what a message begins.
//
// A batch is one copy of all gradients to the device, one kernel over all shards, and one wait. The kernel reads the
// blocks that hold values and writes fresh ones; where a gradient held a NaN or an infinity the fresh ones are given
// back, else the old ones. So nothing is read or written by the device between two batches, and blocks change hands
// without events. What it begins on tables (cuda_table_batch.h) is part of the batch, and of the same wait.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_memory.h"
#include "common/rules/cuda_apply.h"
#include "ps/block.h"
#include "ps/device/block_plan.h"
#include "ps/device/cuda_lane_table.h"
#include "ps/device/cuda_table_batch.h"
#include "ps/device/device_budget.h"
#include "ps/device/lent_blocks.h"
#include "ps/shard_device.h"

namespace basin {

class CudaValues;

// What fails here is told by the next call that waits, if the device is lost.
struct DestroyStream {
  void operator()(cudaStream_t stream) const { static_cast<void>(cudaStreamDestroy(stream)); }
};

struct CudaShardsOptions {
  std::string name;  // of the device
  std::string id;    // its UUID
  int number = 0;
  std::shared_ptr<DeviceBudget> budget;
  std::shared_ptr<BlockPool> replies;  // pinned
  std::shared_ptr<LentBlocks> lent;    // to clients
};

class CudaShards final : public ShardDevice {
 public:
  static absl::StatusOr<std::shared_ptr<ShardDevice>> Open(CudaShardsOptions options);
  ~CudaShards() override;

  const std::string& name() const override { return options_.name; }
  absl::Status CanHold(const StoredTableOptions& table) const override { return CudaTable::CanHold(table); }
  absl::Status Reserve(absl::Span<const ShardOptions> shards, absl::Span<const StoredTableOptions> tables) override;
  std::unique_ptr<ShardValues> Make(const ShardOptions& options) override;
  std::unique_ptr<DeviceTable> MakeTable(const std::string& name) override;
  void StartMessage() override { tables_.ForgetRows(); }
  absl::Status Run() override;
  const std::string& id() const override { return options_.id; }
  absl::StatusOr<std::shared_ptr<LentBlock>> Lend(uint64_t bytes, UniqueFd process) override {
    BASIN_RETURN_IF_ERROR(lost_);
    return options_.lent->Lend(bytes, std::move(process));
  }
  uint64_t lent_bytes() const override { return options_.lent == nullptr ? 0 : options_.lent->bytes(); }
  uint64_t bytes() const override { return taken_; }

  const absl::Status& lost() const { return lost_; }
  // Does something that waits, apart from the batch, with the device current. Where it fails the device is lost.
  absl::Status Do(absl::FunctionRef<absl::Status()> work);

  // ---- For CudaValues ----

  // Makes room in the batch for one more change that writes blocks of `changed` bytes, and for `uploaded` bytes of
  // uploads; what was begun is run where there is none. An error: the device is lost.
  absl::Status MakeRoom(size_t changed, size_t uploaded);
  // Where on the host to write what the batch copies to `to`, before its kernel. REQUIRES: room.
  float* Upload(float* to, size_t bytes);
  // Begins a push: `item` but for its gradient. Ended is called when the batch has run. A gradient on the device is
  // read where it lies. REQUIRES: room.
  void BeginApply(CudaValues* values, CudaApplyItem item, const GradientView& gradient);
  // Begins a change that only uploads. REQUIRES: room.
  void BeginAssign(CudaValues* values, size_t bytes);
  // A block on the host that holds these floats once the batch has run. RESOURCE_EXHAUSTED: no pinned memory.
  absl::StatusOr<BlockRef> Download(const float* from, size_t bytes);
  // Copies `bytes` within the device, behind the batch's kernel.
  void CopyOnDevice(char* to, const float* from, size_t bytes) { copies_.push_back({to, from, bytes}); }
  // `values` keep the copy that they have on the host; DropCopy is called on others in turn, so that those copies stay
  // few.
  void Keep(CudaValues* values);

  // REQUIRES: reserved, so there always is one.
  float* TakeBlock(size_t bytes);
  void GiveBack(float* block, size_t bytes);

 private:
  explicit CudaShards(CudaShardsOptions options) : options_(std::move(options)), tables_(options_.name) {}
  absl::Status OpenStream();
  void DropCopies();
  absl::Status CarryOut();
  void Lose(const absl::Status& why);
  absl::Status ReserveShards(absl::Span<const ShardOptions> shards);
  // `taken` is what they take of the budget, and stays taken where it fails.
  absl::Status MakeTables(absl::Span<const StoredTableOptions> tables, uint64_t* taken,
                          std::vector<std::unique_ptr<CudaLaneTable>>* made);
  absl::Status NoMemory(uint64_t wanted, absl::string_view why) const;

  struct Begun {
    CudaValues* values;
    bool has_item;
  };
  struct Piece {
    float* to;
    const float* from;
    size_t bytes;
  };
  struct Halves {
    DType type;
    const char* from;
    float* to;
    uint64_t elements;
  };
  struct Copy {
    char* to;
    const float* from;
    size_t bytes;
  };
  struct Wanted {
    BlockRef to;
    const float* from;
    size_t bytes;
  };

  const CudaShardsOptions options_;
  absl::Status lost_;
  std::unique_ptr<CUstream_st, DestroyStream> stream_;

  BlockPlan plan_;
  uint64_t taken_ = 0;
  std::vector<CudaMemory> arenas_;
  std::map<size_t, std::vector<float*>> free_;  // by BlockPlan::BlockBytes

  // The batch. Gradients lie one behind the other, then the items; both sides have the same layout.
  std::unique_ptr<void, FreePinned> staging_;
  CudaMemory there_;
  size_t staged_ = 0;   // bytes of gradients
  size_t widened_ = 0;  // bytes of floats that were 16 bits each
  size_t changed_ = 0;  // bytes of what was begun, as blocks
  size_t uploaded_ = 0;
  std::vector<CudaApplyItem> items_;
  std::vector<Begun> begun_;
  std::vector<Halves> halves_;
  std::vector<Piece> uploads_;
  std::vector<Wanted> downloads_;
  std::vector<Copy> copies_;
  CudaTableBatch tables_;
  std::map<std::string, std::unique_ptr<CudaLaneTable>> reserved_tables_;  // until they are asked for

  static constexpr size_t kMostKept = 64;
  std::array<CudaValues*, kMostKept> kept_ = {};
  size_t next_kept_ = 0;
};

}  // namespace basin
