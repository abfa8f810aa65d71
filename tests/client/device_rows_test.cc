// Rows of tables in device memory, as device_calls_test.cc: their order, what is refused, and what waits for what.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster_spec/table_placement.h"
#include "tests/client/device_blocks_harness.h"
#include "tests/client/device_rows_harness.h"

namespace basin {
namespace {

// Rows go through the host, or through the lanes' blocks.
class DeviceRowsBothWaysTest : public DeviceRowsTest, public ::testing::WithParamInterface<bool> {
 protected:
  DeviceRowsBothWaysTest() : DeviceRowsTest(GetParam() ? std::make_shared<FakePsDevice>(uint64_t{1} << 30) : nullptr) {}
  // So that they make one piece.
  static Keys KeysOfOneLane() {
    Keys keys;
    for (uint64_t key = 1; keys.size() < 2; ++key) {
      if (TablePlacement::Make(1).BucketOf(key) % 2 == 0) keys.push_back(key);
    }
    return keys;
  }
};

TEST_P(DeviceRowsBothWaysTest, RepeatedKeysAreSummedAndRowsComeToAllTheirPlaces) {
  const Keys keys = {7, 3, 7, 1, 3, 7};
  const Values gradients = Gradients(keys.size(), kEmbDim);
  Values rows(gradients.size(), NAN);
  ASSERT_TRUE(WaitRows({{.keys = &keys, .push = &gradients, .pull = &rows}}).ok());
  EXPECT_EQ(rows, PulledOnHost(kEmb, keys, kEmbDim));
  for (size_t i = 0; i < keys.size(); ++i) {
    for (uint32_t column = 0; column < kEmbDim; ++column) {
      float sum = 0;
      for (size_t j = 0; j < keys.size(); ++j) sum += keys[j] == keys[i] ? gradients[j * kEmbDim + column] : 0;
      EXPECT_EQ(rows[i * kEmbDim + column], -sum) << i;
    }
  }
}

TEST_P(DeviceRowsBothWaysTest, MoreRowsThanTheStagingHoldsGoByTurns) {
  Keys keys(25'000);  // 5 MiB of different rows, through 4
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = i % 21'000;
  const Values gradients = Gradients(keys.size(), kWideDim);
  Values rows(gradients.size(), NAN);
  ASSERT_TRUE(WaitRows({{.table = kWide, .keys = &keys, .push = &gradients, .pull = &rows}}).ok());
  EXPECT_EQ(rows, PulledOnHost(kWide, keys, kWideDim));
}

TEST_P(DeviceRowsBothWaysTest, BagsEmptyOnesAndNoKeysAtAll) {
  const Keys keys = {5, 6, 5}, bags = {0, 2, 2, 3}, none, no_bags = {0, 0, 0};
  const Values gradients = Gradients(3, kEmbDim);
  Values pooled(3 * kEmbDim, NAN), zeros(2 * kEmbDim, NAN);
  for (const bool mean : {false, true}) {
    ASSERT_TRUE(WaitRows({{.keys = &keys, .push = &gradients, .pull = &pooled, .bags = &bags, .mean = mean},
                          {.table = kWide, .keys = &none}})
                    .ok());
    Values expected(3 * kEmbDim, NAN);
    ASSERT_TRUE(WaitRows({{.keys = &keys, .pull = &expected, .bags = &bags, .mean = mean, .on_device = false}}).ok());
    EXPECT_EQ(pooled, expected);
  }
  ASSERT_TRUE(WaitRows({{.keys = &none, .pull = &zeros, .bags = &no_bags}}).ok());
  EXPECT_EQ(zeros, Values(2 * kEmbDim, 0));
}

TEST_P(DeviceRowsBothWaysTest, ASumThatCannotBeSentRefusesTheWholeCall) {
  const Keys keys = {1, 2, 1};
  Values good = Gradients(3, kEmbDim), pulled(3 * kEmbDim, 5);
  for (const auto& [first, second, text] :
       {std::tuple(NAN, 0.0f, "NaN"), std::tuple(-std::numeric_limits<float>::infinity(), 0.0f, "Inf"),
        std::tuple(std::numeric_limits<float>::max(), std::numeric_limits<float>::max(), "Inf")}) {
    Values bad(3 * kWideDim, 1);
    bad[7] = first;
    bad[2 * kWideDim + 7] = second;
    // Beside a table in device memory and one of which nothing is wrong in the host's.
    for (const bool on_device : {true, false}) {
      const absl::Status status = WaitRows({{.keys = &keys, .push = &good, .pull = &pulled, .on_device = on_device},
                                            {.table = kWide, .keys = &keys, .push = &bad}});
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(status.message(),
                absl::StrCat("table \"wide\": ", text,
                             " in the sum of the gradients of key 1, column 7; nothing of this call was sent"));
    }
  }
  EXPECT_EQ(PulledOnHost(kEmb, keys, kEmbDim), Values(3 * kEmbDim, 0));
  EXPECT_EQ(pulled, Values(3 * kEmbDim, 5));
  ASSERT_TRUE(WaitRows({{.keys = &keys, .push = &good}}).ok());  // finds no gap
  EXPECT_NE(PulledOnHost(kEmb, keys, kEmbDim), Values(3 * kEmbDim, 0));
}

TEST_P(DeviceRowsBothWaysTest, CallsOfATableKeepTheirOrderThoughTheFirstWaitsForItsDevice) {
  const Keys keys = {4, 9};
  const Values gradients = Gradients(2, kEmbDim);
  Values rows(2 * kEmbDim, NAN), other(2 * kWideDim, NAN);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle push = StartRows({{.keys = &keys, .push = &gradients}});
  const Handle pull = StartRows({{.keys = &keys, .pull = &rows, .on_device = false}});
  // Other tables go on.
  ASSERT_TRUE(WaitRows({{.table = kWide, .keys = &keys, .pull = &other, .on_device = false}}).ok());
  EXPECT_FALSE(IsDone(push));
  EXPECT_FALSE(IsDone(pull));
  device_->LetGo();
  EXPECT_TRUE(Wait(push).ok());
  EXPECT_TRUE(Wait(pull).ok());
  Values expected = gradients;
  for (float& value : expected) value = -value;
  EXPECT_EQ(rows, expected);
}

TEST_P(DeviceRowsBothWaysTest, WhatIsStartedLaterTakesNoStagingFromACallThatIsNotReducedYet) {
  Keys keys(20'000);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = i;
  Values rows(keys.size() * kWideDim, NAN);
  const Values values = Counting(1);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle pull = StartRows({{.table = kWide, .keys = &keys, .pull = &rows}});
  const Handle assign = Start(&values, nullptr, kAssign);  // more pieces than the staging holds
  const FakeDevice::Copy reduce = device_->NextOut();
  {
    MutexLock lock(device_->mutex);
    EXPECT_TRUE(device_->out.empty());
  }
  // Then only the rows' pieces, until they are there: the assignment's copies end later.
  FakeDevice::End(reduce, absl::OkStatus());
  device_->LetGo();
  EXPECT_TRUE(Wait(pull).ok());
  EXPECT_TRUE(Wait(assign).ok());
  EXPECT_EQ(rows, Values(rows.size(), 0));
}

TEST_P(DeviceRowsBothWaysTest, WhatTheDeviceCannotDoIsTheCallsOutcome) {
  Keys keys = KeysOfOneLane();
  keys.push_back(keys[0]);
  const Values gradients = Gradients(3, kEmbDim);
  Values rows(3 * kEmbDim, 5);
  const absl::Status lost = absl::InternalError("the device is lost");
  for (const int works : {0, 1, 2, 3}) {  // that go well: reduce, the piece out, rows in, spread
    device_->Hold(true, true);
    const Handle call = StartRows({{.keys = &keys, .push = &gradients, .pull = &rows}});
    for (int i = 0; i <= works; ++i)
      FakeDevice::End(i < 2 ? device_->NextOut() : device_->NextIn(), i < works ? absl::OkStatus() : lost);
    EXPECT_EQ(Wait(call), lost) << works;
    EXPECT_EQ(rows, Values(3 * kEmbDim, 5));
  }
  device_->LetGo();
  EXPECT_TRUE(WaitRows({{.keys = &keys, .push = &gradients, .pull = &rows}}).ok());
  EXPECT_EQ(rows, PulledOnHost(kEmb, keys, kEmbDim));
}

TEST_P(DeviceRowsBothWaysTest, CallsEndWithTheClient) {
  const Keys keys = {4, 9};
  Values rows(2 * kEmbDim, 5), on_host(2 * kEmbDim, 5);
  device_->Hold(true, true);
  const Handle pull = StartRows({{.keys = &keys, .pull = &rows}});
  const Handle behind = StartRows({{.keys = &keys, .pull = &on_host, .on_device = false}});
  std::thread closing([this] { session_->Close(); });
  while (session_->Run([](ClientCore& core, absl::Time) { return core.failure().ok(); })) std::this_thread::yield();
  device_->LetGo();
  closing.join();
  EXPECT_TRUE(pull.lent.expired());
  EXPECT_EQ(session_->Take(pull.id).status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(session_->Take(behind.id).status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(rows, Values(2 * kEmbDim, 5));
  EXPECT_EQ(on_host, Values(2 * kEmbDim, 5));
}

INSTANTIATE_TEST_SUITE_P(Ways, DeviceRowsBothWaysTest, ::testing::Bool(),
                         [](const auto& blocks) { return blocks.param ? "Blocks" : "Host"; });

}  // namespace
}  // namespace basin
