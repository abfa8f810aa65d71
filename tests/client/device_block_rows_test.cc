// Rows of tables in device memory, to lanes on the same device: through blocks that the lanes have lent.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/client/device_blocks_harness.h"
#include "tests/client/device_rows_harness.h"

namespace basin {
namespace {

class DeviceBlockRowsTest : public DeviceRowsTest {
 protected:
  explicit DeviceBlockRowsTest(uint64_t most_lent = uint64_t{1} << 30)
      : DeviceRowsTest(std::make_shared<FakePsDevice>(most_lent)) {}
  uint64_t Stat(const std::string& name) { return PsStat(*session_, name); }
  static Keys ManyKeys() {
    Keys keys(25'000);  // 5 MiB of different rows, through two blocks of 4
    for (size_t i = 0; i < keys.size(); ++i) keys[i] = i * 7 % 21'001 * 0x9e3779b97f4a7c15ull;
    return keys;
  }
  static size_t Different(Keys keys) {
    std::sort(keys.begin(), keys.end());
    return static_cast<size_t>(std::unique(keys.begin(), keys.end()) - keys.begin());
  }
  // Pushes to one table by rows in device memory and to the other in host memory, and compares what comes back.
  void PushAndPullGiveWhatTheHostGives(uint32_t table = kWide, uint32_t dim = kWideDim) {
    const Keys keys = ManyKeys();
    const Values gradients = Gradients(keys.size(), dim);
    Values rows(gradients.size(), NAN);
    ASSERT_TRUE(WaitRows({{.table = table, .keys = &keys, .push = &gradients}}).ok());
    ASSERT_TRUE(WaitRows({{.table = table, .keys = &keys, .push = &gradients, .pull = &rows}}).ok());
    EXPECT_EQ(rows, PulledOnHost(table, keys, dim));
    Values again(gradients.size(), NAN);
    ASSERT_TRUE(WaitRows({{.table = table, .keys = &keys, .pull = &again}}).ok());
    EXPECT_EQ(again, rows);
    Values sums(rows.size());
    std::map<uint64_t, std::vector<float>> by_key;
    for (size_t i = 0; i < keys.size(); ++i) {
      std::vector<float>& sum = by_key[keys[i]];
      sum.resize(dim);
      for (uint32_t column = 0; column < dim; ++column) sum[column] -= 2 * gradients[i * dim + column];
    }
    for (size_t i = 0; i < keys.size(); ++i) {
      const std::vector<float>& sum = by_key[keys[i]];
      std::copy(sum.begin(), sum.end(), sums.begin() + static_cast<ptrdiff_t>(i * dim));
    }
    EXPECT_EQ(rows, sums);
  }
};

TEST_F(DeviceBlockRowsTest, AllRowsGoThroughTheBlocksAndNoKeyDoes) {
  PushAndPullGiveWhatTheHostGives();
  const uint64_t bytes = Different(ManyKeys()) * kWideDim * sizeof(float);
  EXPECT_EQ(Stat("ipc_bytes_in"), 2 * bytes);
  EXPECT_EQ(Stat("ipc_bytes_out"), 2 * bytes);
  EXPECT_EQ(device_->blocks_open, 2);
}

TEST_F(DeviceBlockRowsTest, RowsOfAnyLengthLieOneBehindTheOther) {
  PushAndPullGiveWhatTheHostGives(kEmb, kEmbDim);
  EXPECT_EQ(Stat("ipc_bytes_in"), 2 * Different(ManyKeys()) * kEmbDim * sizeof(float));
}

TEST_F(DeviceBlockRowsTest, ATableThatALaneHasOnTheHostGoesThroughTheHost) {
  const Keys keys = {3, 9, 3};
  const Values gradients = Gradients(3, kEmbDim);
  Values there(gradients.size(), NAN), on_host(gradients.size(), NAN);
  ASSERT_TRUE(WaitRows({{.table = kOnHost, .keys = &keys, .push = &gradients, .pull = &on_host},
                        {.table = kEmb, .keys = &keys, .push = &gradients, .pull = &there}})
                  .ok());
  EXPECT_EQ(there, on_host);
  EXPECT_EQ(on_host, PulledOnHost(kOnHost, keys, kEmbDim));
  EXPECT_EQ(Stat("ipc_bytes_in"), 2 * kEmbDim * sizeof(float));
  EXPECT_EQ(Stat("ipc_bytes_out"), 2 * kEmbDim * sizeof(float));
  EXPECT_EQ(session_->Run([](ClientCore& core, absl::Time) { return core.TablesBesideBlocks(); }),
            std::vector<std::string>{"on_host"});
}

TEST_F(DeviceBlockRowsTest, ACutInTheMiddleAppliesEachPieceOnce) {
  const Keys keys = ManyKeys();
  const Values ones(keys.size() * kWideDim, 1);
  Values rows(ones.size(), NAN);
  ASSERT_TRUE(WaitRows({{.table = kWide, .keys = &keys, .push = &ones}}).ok());  // blocks are open
  for (int round = 0; round < 5; ++round) {
    device_->Hold(/*outs=*/true, /*ins=*/false);
    const Handle call = StartRows({{.table = kWide, .keys = &keys, .push = &ones, .pull = &rows}});
    // Reduced, then some pieces are sent and perhaps answered, others still come out of the device.
    for (int piece = 0; piece <= 1 + round; ++piece) FakeDevice::End(device_->NextOut(), absl::OkStatus());
    network_.Cut("ps0:1");
    device_->LetGo();
    ASSERT_EQ(Wait(call), absl::OkStatus()) << round;
    Values expected = PulledOnHost(kWide, keys, kWideDim);
    EXPECT_EQ(rows, expected) << round;
    for (size_t i = 0; i < keys.size(); i += 1000) {
      const auto times = static_cast<float>(std::count(keys.begin(), keys.end(), keys[i]));
      EXPECT_EQ(expected[i * kWideDim], -times * static_cast<float>(2 + round)) << round;
    }
  }
  EXPECT_EQ(Stat("ipc_bytes_in"), 6 * Different(keys) * kWideDim * sizeof(float));
}

TEST_F(DeviceBlockRowsTest, WhatALaneRefusesIsTheCallsErrorAndItsPlacesAreUsedAgain) {
  const Keys keys = ManyKeys();
  const Values ones(keys.size() * kWideDim, 1);
  Values rows(ones.size(), NAN);
  for (int round = 0; round < 3; ++round) {
    device_->Hold(/*outs=*/true, /*ins=*/false);
    const Handle call = StartRows({{.table = kWide, .keys = &keys, .push = &ones, .pull = &rows}});
    FakeDevice::End(device_->NextOut(), absl::OkStatus());  // reduced, and all sums are numbers
    FakeDevice::Copy piece = device_->NextOut();
    piece.work();
    *static_cast<float*>(const_cast<void*>(piece.from)) = NAN;  // in the block
    piece.done(absl::OkStatus());
    device_->LetGo();
    EXPECT_EQ(Wait(call).code(), absl::StatusCode::kInvalidArgument);
  }
  ASSERT_TRUE(WaitRows({{.table = kWide, .keys = &keys, .push = &ones, .pull = &rows}}).ok());
  EXPECT_EQ(rows, PulledOnHost(kWide, keys, kWideDim));
}

TEST_F(DeviceBlockRowsTest, ManyCallsAtOnceTakeTurnsInTheirBlocks) {
  const Keys keys = ManyKeys();
  const Values ones(keys.size() * kWideDim, 1), dense(kManyPieces, 1);
  std::vector<Values> rows(4, Values(ones.size(), NAN));
  std::vector<Handle> calls;
  for (Values& into : rows) {
    calls.push_back(StartRows({{.table = kWide, .keys = &keys, .push = &ones, .pull = &into}}));
    calls.push_back(Start(&dense, nullptr));
  }
  for (const Handle& call : calls) ASSERT_EQ(Wait(call), absl::OkStatus());
  const auto times = static_cast<float>(std::count(keys.begin(), keys.end(), keys[0]));
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i][0], -times * static_cast<float>(i + 1));
  EXPECT_EQ(rows.back(), PulledOnHost(kWide, keys, kWideDim));
}

TEST_F(DeviceBlockRowsTest, SumsIn16BitsAreThoseOfTheHost) {
  const wire::v1::Model model = Model();
  session_.reset();
  rows_sent_as_ = DType::kBF16;
  session_ = Connect(wire::v1::ROLE_WORKER);
  Declare(*session_, model);
  Keys keys = ManyKeys();
  keys.resize(2000);
  Values gradients(keys.size() * kEmbDim), rows(gradients.size(), NAN), on_host(gradients.size(), NAN);
  for (size_t i = 0; i < gradients.size(); ++i) gradients[i] = 0.3f * static_cast<float>(i % 511);
  ASSERT_TRUE(WaitRows({{.table = kEmb, .keys = &keys, .push = &gradients, .pull = &rows}}).ok());
  ASSERT_TRUE(
      WaitRows({{.table = kOnHost, .keys = &keys, .push = &gradients, .pull = &on_host, .on_device = false}}).ok());
  EXPECT_EQ(rows, on_host);
  EXPECT_EQ(Stat("ipc_bytes_in"), Different(keys) * kEmbDim * sizeof(uint16_t));
}

TEST_F(DeviceBlockRowsTest, OnAnotherDeviceAllGoesThroughTheHost) {
  device_->id = "another device";
  PushAndPullGiveWhatTheHostGives();
  EXPECT_EQ(Stat("ipc_bytes_in") + Stat("ipc_bytes_out"), 0u);
}

class FewDeviceBlockRowsTest : public DeviceBlockRowsTest {
 protected:
  FewDeviceBlockRowsTest() : DeviceBlockRowsTest(/*most_lent=*/kMostLentBytes / 16) {}  // one
};

TEST_F(FewDeviceBlockRowsTest, ALaneThatHasNoBlockLeftGetsItsRowsThroughTheHost) {
  PushAndPullGiveWhatTheHostGives();
  EXPECT_EQ(device_->blocks_open, 1);
  EXPECT_GT(Stat("ipc_bytes_in"), 0u);
  EXPECT_LT(Stat("ipc_bytes_in"), 2 * Different(ManyKeys()) * kWideDim * sizeof(float));
}

}  // namespace
}  // namespace basin
