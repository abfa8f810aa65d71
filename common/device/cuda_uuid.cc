#include "common/device/cuda_uuid.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"

namespace basin {

absl::StatusOr<std::string> CudaUuid(int number) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, number);
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  BASIN_RETURN_IF_ERROR(CudaStatus(error, absl::StrCat("cuda:", number), "ask for its UUID"));
  return std::string(properties.uuid.bytes, sizeof(properties.uuid.bytes));
}

}  // namespace basin
