// CUDA's errors as statuses.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace basin {

// OK where `error` is cudaSuccess. RESOURCE_EXHAUSTED: no memory; FAILED_PRECONDITION: no driver, one that is too old,
// no such device, or none that this build has code for; INTERNAL: the rest, after most of which the device is lost for
// this process. `what` was tried, on `device`: "cuda:0: copy to the device: ...".
absl::Status CudaStatus(cudaError_t error, absl::string_view device, absl::string_view what);

}  // namespace basin
