// The devices on which programs are tested: all that can be used on this machine.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/device/device.h"
#include "common/device/device_list.h"

namespace basin {

inline std::vector<std::string> DevicesHere() {
  std::vector<std::string> names;
  for (const DeviceInfo& device : ListDevices()) {
    if (device.viable) names.push_back(device.name);
  }
  return names;
}

inline std::unique_ptr<Device> OpenHere(const std::string& name) {
  auto device = OpenDevice(name, 1);
  BASIN_CHECK(device.ok());
  return *std::move(device);
}

// For the name of a test: "cuda:0" becomes "cuda_0".
inline std::string InTestName(std::string device) {
  for (char& c : device) c = c == ':' ? '_' : c;
  return device;
}

}  // namespace basin
