#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/device/cuda_architectures.h"
#include "common/device/device.h"
#include "common/device/device_list.h"
#include "common/device/device_of_rank.h"

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

TEST(DeviceListTest, ADeviceThatIsNotThereIsRefusedWithWhy) {
  const absl::Status refused = OpenDevice("cuda:99", 1).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ExitCodeFor(refused), kExitUsage);
  EXPECT_TRUE(absl::StrContains(refused.message(), "cuda:99") && absl::StrContains(refused.message(), "use cpu"))
      << refused;
  for (const DeviceInfo& device : ListDevices()) {
    if (!device.viable) {
      EXPECT_TRUE(absl::StrContains(refused.message(), device.reason)) << refused;
    }
  }
}

TEST(DeviceListTest, AutoIsTheFirstThatCanBeUsedBesideTheCpu) {
  std::string expected = "cpu";
  for (const DeviceInfo& device : ListDevices()) {
    if (device.viable && expected == "cpu") expected = device.name;
  }
  const auto device = OpenDevice("auto", 1);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->name(), expected);
}

TEST(DeviceOfRankTest, RanksOfANodeTakeItsDevicesInTurn) {
  const DeviceInfo cpu = {"cpu", "", true, ""};
  const std::vector<DeviceInfo> devices = {
      cpu, {"cuda:0", "", true, "", 0}, {"cuda:1", "", false, "too old", 1}, {"cuda:2", "", true, "", 2}};
  for (const char* name : {"cuda", "auto"}) {
    EXPECT_EQ(DeviceOfRank(name, 0, devices), "cuda:0");
    EXPECT_EQ(DeviceOfRank(name, 1, devices), "cuda:2");
    EXPECT_EQ(DeviceOfRank(name, 2, devices), "cuda:0");
    EXPECT_EQ(DeviceOfRank(name, std::nullopt, devices), name);
    EXPECT_EQ(DeviceOfRank(name, 1, {cpu}), name);  // OpenDevice says why there is none
  }
  EXPECT_EQ(DeviceOfRank("cpu", 1, devices), "cpu");
  EXPECT_EQ(DeviceOfRank("cuda:0", 1, devices), "cuda:0");
}

TEST(DeviceOfRankTest, TheLaunchersVariableHasTheLocalRank) {
  for (const char* variable : {"BASIN_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                               "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "PALS_LOCAL_RANKID"}) {
    const auto local_rank = [variable](const std::string& value) {
      return LocalRank([&](const char* name) { return variable == absl::string_view(name) ? value : std::string(); });
    };
    EXPECT_EQ(local_rank("3"), 3) << variable;
    EXPECT_EQ(local_rank(""), std::nullopt) << variable;
    EXPECT_EQ(local_rank("some"), std::nullopt) << variable;
    EXPECT_EQ(local_rank("-1"), std::nullopt) << variable;
  }
}

TEST(DeviceListTest, OpeningAnUnknownDeviceIsRefused) {
  for (const char* name : {"tpu", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda0", ""}) {
    const absl::Status refused = OpenDevice(name, 1).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_TRUE(absl::StrContains(refused.message(), absl::StrCat("\"", name, "\""))) << refused;
  }
}

TEST(CudaArchitecturesTest, MachineCodeRunsOnItsMajorNumberPtxOnAllLater) {
  EXPECT_TRUE(RunsOn("75-real, 80-real, 90", 7, 5));
  EXPECT_FALSE(RunsOn("75-real, 80-real, 90", 7, 0));
  EXPECT_TRUE(RunsOn("75-real, 80-real, 90", 8, 0));
  EXPECT_TRUE(RunsOn("75-real, 80-real, 90", 8, 9));
  EXPECT_TRUE(RunsOn("75-real, 80-real, 90", 9, 0));
  EXPECT_TRUE(RunsOn("75-real, 80-real, 90", 10, 0));
  EXPECT_TRUE(RunsOn("75-real, 80-real, 90", 12, 1));
  EXPECT_FALSE(RunsOn("80-real", 9, 0));
  EXPECT_TRUE(RunsOn("80-virtual", 9, 0));
  EXPECT_FALSE(RunsOn("80-virtual", 7, 5));
}

}  // namespace
}  // namespace basin
