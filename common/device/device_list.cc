#include "common/device/device_list.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/device/cpu_device.h"
#include "common/device/device.h"
#include "common/device/list_cuda.h"

namespace basin {

std::vector<DeviceInfo> ListDevices() {
  std::vector<DeviceInfo> devices = {{"cpu", "OpenBLAS and oneTBB", true, ""}};
  for (DeviceInfo& device : ListCudaDevices()) devices.push_back(std::move(device));
  return devices;
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(absl::string_view name, int threads) {
  if (name == "cpu") return MakeCpuDevice(threads);
  if (absl::StartsWith(name, "cuda") || absl::StartsWith(name, "gpu")) {
    return absl::UnimplementedError(
        absl::StrCat("device ", name, ": this version computes gradients on the CPU; use cpu"));
  }
  return absl::InvalidArgumentError(absl::StrCat("device \"", name, "\" is unknown; use cpu"));
}

}  // namespace basin
