#include "ps/device/ps_device.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/device/device_list.h"
#include "ps/block.h"
#include "ps/device/cuda_shards.h"
#include "ps/device/device_budget.h"

namespace basin {
namespace {

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

class CudaPsDevice final : public PsDevice {
 public:
  CudaPsDevice(const DeviceInfo& info, uint64_t memory_limit, size_t reply_limit)
      : lane_{.name = info.name,
              .number = info.cuda,
              .budget = std::make_shared<DeviceBudget>(memory_limit),
              .replies = BlockPool::Make(
                  reply_limit,
                  [device = info.cuda](void* memory, size_t bytes) { return Pin(device, memory, bytes); })},
        detail_(info.detail) {}

  const std::string& name() const override { return lane_.name; }
  const std::string& detail() const override { return detail_; }
  uint64_t memory_limit_bytes() const override { return lane_.budget->limit(); }
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
  return std::make_shared<CudaPsDevice>(info, limit, options.reply_limit_bytes);
}

}  // namespace basin
