#include "common/device/cuda_status.h"

#include "absl/strings/str_cat.h"

namespace basin {

absl::Status CudaStatus(cudaError_t error, absl::string_view device, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat(device, ": ", what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(text);
    case cudaErrorInsufficientDriver:
      return absl::FailedPreconditionError(absl::StrCat(text, "; install a newer NVIDIA driver, or use --device=cpu"));
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorDevicesUnavailable:
      return absl::FailedPreconditionError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace basin
