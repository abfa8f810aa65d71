// Which CUDA device it is, for processes that number devices each in their own way (CUDA_VISIBLE_DEVICES).
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace basin {

// The bytes of the UUID of this process's device `number`. Errors as CudaStatus.
absl::StatusOr<std::string> CudaUuid(int number);

}  // namespace basin
