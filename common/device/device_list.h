// Which devices this machine has for this build, and why one cannot be used.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

// What a device is wanted for: products of matrices need cuBLAS, kernels of ours do not.
enum class DeviceUse { kMatrices, kKernels };

struct DeviceInfo {
  std::string name;    // "cpu", "cuda:0"
  std::string detail;  // what it is
  bool viable = false;
  std::string reason;  // why not, when it is not viable
  int cuda = -1;       // its number as CUDA counts; -1: none
};

// The CPU first. No CUDA context is made by asking.
std::vector<DeviceInfo> ListDevices(DeviceUse use = DeviceUse::kMatrices);

// The viable device of that name, as OpenDevice takes it ("auto" included). INVALID_ARGUMENT: no such name;
// FAILED_PRECONDITION: it cannot be used, with why.
absl::StatusOr<DeviceInfo> FindDevice(absl::string_view name, DeviceUse use);

}  // namespace basin
