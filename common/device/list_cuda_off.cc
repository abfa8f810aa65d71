#include "common/device/list_cuda.h"

namespace basin {

std::vector<DeviceInfo> ListCudaDevices(DeviceUse) {
  return {{"cuda", "", false, "this build is without CUDA (no nvcc was found when it was configured)"}};
}

}  // namespace basin
