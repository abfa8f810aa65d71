#include "ps/device/ps_device.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_memory.h"
#include "common/device/cuda_status.h"
#include "common/device/cuda_uuid.h"
#include "common/device/device_list.h"
#include "ps/block.h"
#include "ps/device/cuda_shards.h"
#include "ps/device/device_budget.h"
#include "ps/device/lent_blocks.h"

namespace basin {
namespace {

// What clients may have of a ps's limit: shards come first.
constexpr uint64_t kLentPartOfLimit = 8;

// Where that is not possible copies are slower, nothing else.
std::shared_ptr<void> Pin(int device, void* memory, size_t bytes) {
  if (cudaSetDevice(device) != cudaSuccess ||
      cudaHostRegister(memory, bytes, cudaHostRegisterPortable) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  // By whichever thread drops the last reply.
  return std::shared_ptr<void>(memory, [device](void* pinned) {
    static_cast<void>(cudaSetDevice(device));
    static_cast<void>(cudaHostUnregister(pinned));
  });
}

std::shared_ptr<LentBlocks> MakeLentBlocks(const DeviceInfo& info, const std::shared_ptr<DeviceBudget>& budget) {
  LentBlocksOptions options;
  options.budget = budget;
  options.most_bytes = budget->limit() / kLentPartOfLimit;
  options.allocate = [info](uint64_t bytes) -> absl::StatusOr<LentBlocksOptions::Memory> {
    BASIN_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(info.cuda), info.name, "use"));
    BASIN_ASSIGN_OR_RETURN(void* const data, AllocateCuda(info.name, bytes));
    cudaIpcMemHandle_t handle;
    if (const cudaError_t error = cudaIpcGetMemHandle(&handle, data); error != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      static_cast<void>(cudaFree(data));
      return CudaStatus(error, info.name, "share memory with a client");
    }
    return LentBlocksOptions::Memory{data, std::string(reinterpret_cast<const char*>(&handle), sizeof(handle))};
  };
  options.free = [device = info.cuda](void* data) {
    static_cast<void>(cudaSetDevice(device));
    static_cast<void>(cudaFree(data));
  };
  return std::make_shared<LentBlocks>(std::move(options));
}

class CudaPsDevice final : public PsDevice {
 public:
  CudaPsDevice(const DeviceInfo& info, std::string id, const std::shared_ptr<DeviceBudget>& budget, size_t reply_limit)
      : lane_{.name = info.name,
              .id = std::move(id),
              .number = info.cuda,
              .budget = budget,
              .replies = BlockPool::Make(
                  reply_limit, [device = info.cuda](void* memory, size_t bytes) { return Pin(device, memory, bytes); }),
              .lent = MakeLentBlocks(info, budget)},
        detail_(info.detail) {}

  const std::string& name() const override { return lane_.name; }
  const std::string& detail() const override { return detail_; }
  uint64_t memory_limit_bytes() const override { return lane_.budget->limit(); }
  uint64_t lent_bytes() const override { return lane_.lent->bytes(); }
  absl::StatusOr<std::shared_ptr<ShardDevice>> MakeLane() override { return CudaShards::Open(lane_); }

 private:
  const CudaShardsOptions lane_;
  const std::string detail_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<PsDevice>> OpenPsDevice(const PsDeviceOptions& options) {
  BASIN_ASSIGN_OR_RETURN(const DeviceInfo info, FindDevice(options.name, DeviceUse::kKernels));
  if (info.cuda < 0) return nullptr;
  BASIN_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(info.cuda), info.name, "use"));
  size_t free = 0, total = 0;
  BASIN_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), info.name, "open"));
  const uint64_t limit = options.memory_limit_bytes != 0 ? options.memory_limit_bytes : free - free / 16;
  BASIN_ASSIGN_OR_RETURN(std::string id, CudaUuid(info.cuda));
  return std::make_shared<CudaPsDevice>(info, std::move(id), std::make_shared<DeviceBudget>(limit),
                                        options.reply_limit_bytes);
}

}  // namespace basin
