#include "common/device/list_cuda.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"

namespace basin {

std::vector<DeviceInfo> ListCudaDevices() {
  int count = 0;
  // With the static runtime this starts without a driver, and says so here (error 35).
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess)
    return {{"cuda", "", false,
             absl::StrCat(cudaGetErrorString(error), " (cudaGetDeviceCount returned ", static_cast<int>(error), ")")}};
  if (count == 0) return {{"cuda", "", false, "no CUDA device"}};
  std::vector<DeviceInfo> devices;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    DeviceInfo device{absl::StrCat("cuda:", i), "", false, "this version computes gradients on the CPU"};
    if (cudaGetDeviceProperties(&properties, i) == cudaSuccess)
      device.detail = absl::StrCat(properties.name, ", ", properties.totalGlobalMem >> 20, " MiB");
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace basin
