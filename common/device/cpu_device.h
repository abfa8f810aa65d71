// The CPU twin of the Device seam, on OpenBLAS; oneTBB splits the element-wise loops of large matrices where there is
// more than one thread.
#pragma once

#include <memory>

#include "common/device/device.h"

namespace basin {

std::unique_ptr<Device> MakeCpuDevice(int threads);

}  // namespace basin
