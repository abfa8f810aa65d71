#include "common/device/list_cuda.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "common/device/cublas.h"
#include "common/device/cuda_architectures.h"

namespace basin {

std::vector<DeviceInfo> ListCudaDevices(DeviceUse use) {
  int count = 0;
  // With the static runtime this starts without a driver, and says so here (error 35).
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess)
    return {{"cuda", "", false,
             absl::StrCat(cudaGetErrorString(error), " (cudaGetDeviceCount returned ", static_cast<int>(error), ")")}};
  if (count == 0) return {{"cuda", "", false, "no CUDA device"}};
  const absl::Status cublas = use == DeviceUse::kMatrices ? LoadCublas().status() : absl::OkStatus();
  std::vector<DeviceInfo> devices;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    DeviceInfo device{absl::StrCat("cuda:", i), "", false, "", i};
    if (const cudaError_t unknown = cudaGetDeviceProperties(&properties, i); unknown != cudaSuccess) {
      device.reason = cudaGetErrorString(unknown);
    } else {
      device.detail = absl::StrCat(properties.name, ", ", properties.totalGlobalMem >> 20, " MiB, compute capability ",
                                   properties.major, ".", properties.minor);
      if (!RunsOn(BASIN_CUDA_ARCHITECTURES, properties.major, properties.minor)) {
        device.reason = absl::StrCat("this build has code for ", BASIN_CUDA_ARCHITECTURES,
                                     " alone (CMAKE_CUDA_ARCHITECTURES), not for compute capability ", properties.major,
                                     ".", properties.minor);
      } else if (!cublas.ok()) {
        device.reason = std::string(cublas.message());
      }
    }
    device.viable = device.reason.empty();
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace basin
