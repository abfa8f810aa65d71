#include "absl/strings/str_cat.h"
#include "common/device/cuda_device.h"

namespace basin {

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int number) {
  return absl::FailedPreconditionError(absl::StrCat(
      "cuda:", number, ": Basin was built without CUDA; use cpu, or build it where nvcc is (BASIN_CUDA=ON)"));
}

}  // namespace basin
