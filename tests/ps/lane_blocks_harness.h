// A lane whose device is host memory, which it lends to its clients.
#pragma once

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/ps/fake_shard_device.h"
#include "tests/ps/lane_harness.h"

namespace basin {

inline constexpr uint16_t kPlacedPush = wire::kPush | wire::kPlaced, kPlacedPull = wire::kPull | wire::kPlaced;
inline constexpr uint64_t kBlockBytes = kLentUnitBytes;

inline LaneCoreOptions Lending(std::shared_ptr<ShardDevice> device) {
  LaneCoreOptions options = LaneHarness::DefaultOptions();
  options.device = std::move(device);
  options.peer_process = [](wire::PeerId) -> absl::StatusOr<UniqueFd> {
    return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  };
  return options;
}

inline std::string PlacesOf(std::vector<uint64_t> places) {
  return std::string(reinterpret_cast<const char*>(places.data()), places.size() * sizeof(uint64_t));
}

class LaneBlocksTest : public ::testing::Test {
 protected:
  LaneBlocksTest() {
    lane_.Join(1, 0);
    lane_.Join(2, 1);
    lane_.SetUpModel(1, TwoVariables());
  }
  static wire::v1::Model TwoVariables() {
    wire::v1::Model model = OneVariable(4);
    *model.add_variables() = model.variables(0);
    model.mutable_variables(1)->set_name("v");
    return model;
  }
  Heard Ask(wire::PeerId peer, const std::string& device_id = "the fake device") {
    wire::v1::DeviceBlock asked;
    asked.set_device_id(device_id);
    asked.set_bytes(kBlockBytes);
    return std::move(lane_.Ask(peer, wire::Kind::kDeviceBlock, asked).at(0));
  }
  // As a client maps it.
  char* Open(wire::PeerId peer) {
    const Heard heard = Ask(peer);
    EXPECT_EQ(heard.kind(), wire::Kind::kDeviceBlockLent) << heard.status();
    const auto lent = heard.As<wire::v1::DeviceBlockLent>();
    EXPECT_EQ(lent.bytes(), kBlockBytes);
    char* block = nullptr;
    std::memcpy(&block, lent.handle().data(), sizeof(block));
    return block;
  }
  absl::StatusCode CodeOf(wire::PeerId peer, const TestEntry& entry) {
    return static_cast<absl::StatusCode>(lane_.Update(peer, {entry}).message.entries.at(0).code);
  }
  static void Put(char* block, uint64_t at, const std::vector<float>& values) {
    std::memcpy(block + at, values.data(), values.size() * sizeof(float));
  }
  static std::vector<float> Get(const char* block, uint64_t at, size_t count = 4) {
    return ToFloats({block + at, count * sizeof(float)});
  }

  const std::shared_ptr<FakeShardDevice> device_ = std::make_shared<FakeShardDevice>();
  LaneHarness lane_{Lending(device_)};
};

}  // namespace basin
