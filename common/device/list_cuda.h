// The CUDA part of ListDevices: list_cuda.cc where the build has CUDA, list_cuda_off.cc where it has not.
#pragma once

#include <vector>

#include "common/device/device_list.h"

namespace basin {

std::vector<DeviceInfo> ListCudaDevices(DeviceUse use);

}  // namespace basin
