#include "common/base/status_macros.h"
#include "common/device/cpu_device.h"
#include "common/device/cuda_device.h"
#include "common/device/device.h"
#include "common/device/device_list.h"

namespace basin {

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(absl::string_view name, int threads) {
  BASIN_ASSIGN_OR_RETURN(const DeviceInfo device, FindDevice(name, DeviceUse::kMatrices));
  if (device.cuda < 0) return MakeCpuDevice(threads);
  return OpenCudaDevice(device.cuda);
}

}  // namespace basin
