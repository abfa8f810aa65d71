// The twin without CUDA in the build.
#include "worker/client/device_copies.h"

namespace basin {

absl::StatusOr<std::unique_ptr<DeviceCopies>> OpenDeviceCopies() {
  return absl::FailedPreconditionError(
      "this libbasin was built without CUDA; copy to host memory first, or build it where nvcc is found");
}

}  // namespace basin
