#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "common/base/exit_code.h"
#include "common/device/device.h"
#include "common/device/device_list.h"

namespace basin {
namespace {

TEST(DeviceListTest, TheCpuIsFirstAndViable) {
  const std::vector<DeviceInfo> devices = ListDevices();
  ASSERT_GE(devices.size(), 1u);
  EXPECT_EQ(devices[0].name, "cpu");
  EXPECT_TRUE(devices[0].viable);
  const auto cpu = OpenDevice("cpu", 1);
  ASSERT_TRUE(cpu.ok());
  EXPECT_EQ((*cpu)->name(), "cpu");
}

// With a GPU, with CUDA but no driver, and built without CUDA alike.
TEST(DeviceListTest, WhatIsNotViableSaysWhyAndTheRestOpens) {
  for (const DeviceInfo& device : ListDevices()) {
    EXPECT_EQ(device.viable, device.reason.empty()) << device.name << ": " << device.reason;
    EXPECT_EQ(device.viable, OpenDevice(device.name, 1).ok()) << device.name;
  }
}

TEST(DeviceListTest, OpeningAGpuIsRefusedWithWhatToUseInstead) {
  for (const char* name : {"cuda", "cuda:0", "gpu"}) {
    const absl::Status refused = OpenDevice(name, 1).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kUnimplemented);
    EXPECT_EQ(ExitCodeFor(refused), kExitUsage);
    EXPECT_TRUE(absl::StrContains(refused.message(), "use cpu")) << refused;
  }
}

TEST(DeviceListTest, OpeningAnUnknownDeviceIsRefused) {
  const absl::Status refused = OpenDevice("tpu", 1).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(refused.message(), "\"tpu\"")) << refused;
}

}  // namespace
}  // namespace basin
