// Which devices this machine has for this build, and why one cannot be used.
#pragma once

#include <string>
#include <vector>

namespace basin {

struct DeviceInfo {
  std::string name;    // "cpu", "cuda:0"
  std::string detail;  // what it is
  bool viable = false;
  std::string reason;  // why not, when it is not viable
};

// The CPU first. No CUDA context is made by asking.
std::vector<DeviceInfo> ListDevices();

}  // namespace basin
