// The CUDA twin of the Device seam: one stream, cuBLAS for products, kernels of ours for the rest. cuda_device.cc where
// the build has CUDA, cuda_device_off.cc where it has not.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/device/device.h"

namespace basin {

// FAILED_PRECONDITION: no driver, no such device, one that this build has no code for, no cuBLAS, no CUDA in the build.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int number);

}  // namespace basin
