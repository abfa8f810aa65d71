// Calls with device pointers to lanes on the same device: their bytes go through blocks that the lanes have lent. The
// device is host memory here, for client and lanes.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/codec/half.h"
#include "tests/client/device_blocks_harness.h"
#include "worker/client/narrowed_push.h"

namespace basin {
namespace {

class DeviceBlocksTest : public DeviceCallsTest {
 protected:
  explicit DeviceBlocksTest(uint64_t most_lent = uint64_t{1} << 30)
      : memory_(std::make_shared<FakePsDevice>(most_lent)) {}
  std::shared_ptr<PsDevice> PsMemory() override { return memory_; }

  uint64_t Stat(const std::string& name) { return PsStat(*session_, name); }
  // Gradients and parameters of `calls` calls over a large variable, both ways.
  void ExpectThroughBlocks(uint64_t calls_in, uint64_t calls_out) {
    EXPECT_EQ(Stat("ipc_bytes_in"), calls_in * kManyPieces * sizeof(float));
    EXPECT_EQ(Stat("ipc_bytes_out"), calls_out * kManyPieces * sizeof(float));
  }
  // What was done to "w" gives what the same through host memory gives "other".
  void PushAndPullGiveWhatTheHostGives() {
    const Values values = Counting(1), gradient = Counting(7);
    Values on_device(kManyPieces), on_host(kManyPieces);
    ASSERT_EQ(Wait(Start(&values, nullptr, kAssign)), absl::OkStatus());
    ASSERT_EQ(Wait(Start(&gradient, nullptr)), absl::OkStatus());
    ASSERT_EQ(Wait(Start(&gradient, &on_device)), absl::OkStatus());
    ASSERT_EQ(Wait(Start(&values, nullptr, kAssign, /*on_device=*/false, kOther)), absl::OkStatus());
    ASSERT_EQ(Wait(Start(&gradient, nullptr, kPush, /*on_device=*/false, kOther)), absl::OkStatus());
    ASSERT_EQ(Wait(Start(&gradient, &on_host, kPush, /*on_device=*/false, kOther)), absl::OkStatus());
    EXPECT_EQ(on_device, on_host);
    Values again(kManyPieces);
    ASSERT_EQ(Wait(Start(nullptr, &again)), absl::OkStatus());
    EXPECT_EQ(again, on_host);
  }

  const std::shared_ptr<FakePsDevice> memory_;
};

TEST_F(DeviceBlocksTest, WhatGoesThroughBlocksIsTheSameAsThroughTheHost) {
  PushAndPullGiveWhatTheHostGives();
  ExpectThroughBlocks(3, 2);
  EXPECT_EQ(device_->blocks_open, 2);  // of a lane each
  EXPECT_EQ(Stat("device_lent_bytes"), memory_->lent_bytes());
  EXPECT_GT(memory_->lent_bytes(), 0u);
}

TEST_F(DeviceBlocksTest, ManyCallsAtOnceTakeTurnsInTheirBlocks) {
  const Values ones(kManyPieces, 1);
  std::vector<Values> pulled(6, Values(kManyPieces));
  std::vector<Handle> calls;
  for (Values& into : pulled) calls.push_back(Start(&ones, &into));
  for (const Handle& call : calls) ASSERT_EQ(Wait(call), absl::OkStatus());
  for (size_t i = 0; i < pulled.size(); ++i) {
    EXPECT_EQ(pulled[i], Values(kManyPieces, -1 - static_cast<float>(i))) << i;
  }
  ExpectThroughBlocks(6, 6);
}

TEST_F(DeviceBlocksTest, ACutInTheMiddleAppliesEachPieceOnce) {
  const Values ones(kManyPieces, 1);
  ASSERT_EQ(Wait(Start(&ones, nullptr)), absl::OkStatus());  // blocks are open
  Values pulled(kManyPieces);
  for (int round = 0; round < 5; ++round) {
    device_->Hold(/*outs=*/true, /*ins=*/false);
    const Handle call = Start(&ones, &pulled);
    // Some pieces are sent and perhaps answered, others still come out of the device.
    for (int piece = 0; piece <= round; ++piece) FakeDevice::End(device_->NextOut(), absl::OkStatus());
    network_.Cut("ps0:1");
    device_->LetGo();
    ASSERT_EQ(Wait(call), absl::OkStatus()) << round;
    EXPECT_EQ(pulled, Values(kManyPieces, -2 - static_cast<float>(round))) << round;
  }
  // (What was pulled and not heard was pulled again.)
  EXPECT_EQ(Stat("ipc_bytes_in"), 6 * kManyPieces * sizeof(float));
}

TEST_F(DeviceBlocksTest, ACutWhileTheLanesAreAskedForBlocksIsNoHarm) {
  const Values ones(kManyPieces, 1);
  network_.Cut("ps0:1");
  ASSERT_EQ(Wait(Start(&ones, nullptr)), absl::OkStatus());
  ExpectThroughBlocks(1, 0);
}

TEST_F(DeviceBlocksTest, WhatIsNotFiniteIsRefusedAndItsPlacesAreUsedAgain) {
  Values bad(kManyPieces, std::numeric_limits<float>::quiet_NaN());
  Values pulled(kManyPieces);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Wait(Start(&bad, nullptr)).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Wait(Start(&bad, &pulled)).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Wait(Start(&bad, nullptr, kAssign)).code(), absl::StatusCode::kInvalidArgument);
  }
  const Values ones(kManyPieces, 1);
  ASSERT_EQ(Wait(Start(&ones, &pulled)), absl::OkStatus());
  EXPECT_EQ(pulled, Values(kManyPieces, -1));
}

TEST_F(DeviceBlocksTest, APullWaitsForFirstValuesWithItsPlaces) {
  Values pulled(kFewElements);
  const Handle pull = Start(nullptr, &pulled, kPush, /*on_device=*/true, kLater);
  const Values values(kFewElements, 5);
  ASSERT_EQ(Wait(Start(&values, nullptr, kAssign, /*on_device=*/true, kLater)), absl::OkStatus());
  ASSERT_EQ(Wait(pull), absl::OkStatus());
  EXPECT_EQ(pulled, values);
  EXPECT_GT(Stat("ipc_bytes_out"), 0u);
}

TEST_F(DeviceBlocksTest, GradientsIn16BitsAreThoseOfTheHost) {
  Values values(kManyPieces);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.3f * static_cast<float>(i % 511);
  Values expected(kManyPieces), found(kManyPieces);
  std::vector<uint16_t> halves(kManyPieces);
  ASSERT_TRUE(Narrow(DType::kBF16, values.data(), values.size(), reinterpret_cast<char*>(halves.data())));
  for (const bool on_device : {false, true}) {
    Values& into = on_device ? found : expected;
    UpdateItem item{.variable = VariableId(on_device ? 0 : kOther)};
    item.pull = {reinterpret_cast<char*>(into.data()), into.size() * sizeof(float)};
    if (!on_device) {
      item.push = {reinterpret_cast<const char*>(halves.data()), 2 * halves.size()};
      item.push_dtype = DType::kBF16;
      const ClientSession::Lender lender = session_->NewLender();
      const CallId call = *session_->RunUpdate(
          [&](ClientCore& core, absl::Time now) { return core.StartUpdate({item}, lender, now); }, nullptr);
      ASSERT_EQ(Wait({.id = call}), absl::OkStatus());
      continue;
    }
    std::vector<UpdateItem> items = {item};
    items[0].push = {reinterpret_cast<const char*>(values.data()), sizeof(float) * values.size()};
    items[0].writes_by_pieces = items[0].pulls_by_pieces = true;
    DeviceUpdate update;
    update.items.resize(1);
    update.items[0].out = items[0].push.data();
    update.items[0].in = items[0].pull.data();
    ASSERT_EQ(SendHalvesOfDevice(DType::kBF16, *session_, absl::MakeSpan(items), update), absl::OkStatus());
    ASSERT_EQ(Wait(StartOnDevice(items, std::move(update))), absl::OkStatus());
  }
  EXPECT_EQ(found, expected);
  EXPECT_EQ(Stat("ipc_bytes_in"), kManyPieces * sizeof(uint16_t));
}

TEST_F(DeviceBlocksTest, HostAndDeviceInOneItemGoThroughTheHost) {
  const Values values = Counting(3);
  Values pulled(kManyPieces);
  UpdateItem item{.variable = VariableId(0)};
  item.push = {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
  ASSERT_EQ(Wait(StartWithPullIntoDevice(item, &pulled)), absl::OkStatus());
  for (size_t i = 0; i < pulled.size(); ++i) ASSERT_EQ(pulled[i], -values[i]) << i;
  ExpectThroughBlocks(0, 0);
}

TEST_F(DeviceBlocksTest, AClientThatIsClosedGivesItsBlocksBack) {
  Values pulled(kManyPieces);
  ASSERT_EQ(Wait(Start(nullptr, &pulled)), absl::OkStatus());
  EXPECT_GT(memory_->lent_bytes(), 0u);
  session_.reset();
  EXPECT_EQ(device_->blocks_open, 0);
  const absl::Time deadline = absl::Now() + absl::Minutes(2);  // a thread of the servers frees it
  while (memory_->lent_bytes() > 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(memory_->lent_bytes(), 0u);
}

TEST_F(DeviceBlocksTest, OnAnotherDeviceAllGoesThroughTheHost) {
  device_->id = "another device";
  PushAndPullGiveWhatTheHostGives();
  ExpectThroughBlocks(0, 0);
  EXPECT_EQ(memory_->lent_bytes(), 0u);
}

TEST_F(DeviceBlocksTest, WhereABlockCannotBeOpenedAllGoesThroughTheHost) {
  device_->opens_no_blocks = true;
  PushAndPullGiveWhatTheHostGives();
  ExpectThroughBlocks(0, 0);
}

class FewDeviceBlocksTest : public DeviceBlocksTest {
 protected:
  FewDeviceBlocksTest() : DeviceBlocksTest(/*most_lent=*/kMostLentBytes / 16) {}  // one
};

TEST_F(FewDeviceBlocksTest, ALaneThatHasNoBlockLeftGetsItsBytesThroughTheHost) {
  PushAndPullGiveWhatTheHostGives();
  EXPECT_EQ(device_->blocks_open, 1);
  EXPECT_GT(Stat("ipc_bytes_in"), 0u);
  EXPECT_LT(Stat("ipc_bytes_in"), 3 * kManyPieces * sizeof(float));
}

}  // namespace
}  // namespace basin
