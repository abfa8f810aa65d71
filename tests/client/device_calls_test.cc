// Calls with device pointers, against lanes on real threads. The device is host memory here, whose copies end when the
// test says so.
#include "worker/client/device_calls.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "tests/client/device_calls_harness.h"
#include "worker/client/client_session.h"

namespace basin {
namespace {

TEST_F(DeviceCallsTest, WhatIsAssignedPushedAndPulledIsTheSameAsThroughHostMemory) {
  const Values values = Counting(1), gradient = Counting(7);
  Values on_device(kManyPieces), on_host(kManyPieces);
  ASSERT_EQ(Wait(Start(&values, nullptr, kAssign)), absl::OkStatus());
  ASSERT_EQ(Wait(Start(&gradient, &on_device)), absl::OkStatus());
  ASSERT_EQ(Wait(Start(&values, nullptr, kAssign, /*on_device=*/false, kOther)), absl::OkStatus());
  ASSERT_EQ(Wait(Start(&gradient, &on_host, kPush, /*on_device=*/false, kOther)), absl::OkStatus());
  EXPECT_EQ(on_device, on_host);
  EXPECT_EQ(device_->opened, 1);
}

TEST_F(DeviceCallsTest, NothingOfADeviceIsOpenedForHostMemory) {
  Values pulled(kManyPieces);
  ASSERT_EQ(Wait(Start(nullptr, &pulled, kPush, /*on_device=*/false)), absl::OkStatus());
  EXPECT_EQ(device_->opened, 0);
}

TEST_F(DeviceCallsTest, APieceIsAppliedWhileLaterOnesAreStillOnTheDevice) {
  const Values gradient(kManyPieces, -1);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle push = Start(&gradient, nullptr);
  FakeDevice::End(device_->NextOut(), absl::OkStatus());
  // Another client sees the first piece, and the last one as it was.
  const std::unique_ptr<ClientSession> observer = Connect(wire::v1::ROLE_OBSERVER);
  Declare(*observer, {});
  Values seen(kManyPieces);
  while (seen[0] == 0) {
    UpdateItem item{.variable = VariableId(0), .pull = {reinterpret_cast<char*>(seen.data()), seen.size() * 4}};
    ClientCore::Result result;
    const CallId pull =
        *observer->RunUpdate([&](ClientCore& core, absl::Time now) { return core.StartUpdate({item}, nullptr, now); });
    ASSERT_EQ(observer->Wait(pull, absl::InfiniteFuture(), &result), absl::OkStatus());
  }
  EXPECT_EQ(seen[0], 1);
  EXPECT_EQ(seen[kManyPieces - 1], 0);
  EXPECT_FALSE(session_->Done(push.id, push.lent));
  device_->LetGo();
  EXPECT_EQ(Wait(push), absl::OkStatus());
}

TEST_F(DeviceCallsTest, LaterCallsForTheSameShardsKeepTheirPlaceBehindADevicesPush) {
  const Values first(kManyPieces, 5), second(kManyPieces, 9);
  Values pulled(kManyPieces), before(kManyPieces);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle on_device = Start(&first, nullptr, kAssign);
  const Handle pull = Start(nullptr, &before, kPush, /*on_device=*/false);
  const Handle on_host = Start(&second, &pulled, kAssign, /*on_device=*/false);
  // Of another variable: it need not wait.
  ASSERT_EQ(Wait(Start(&first, nullptr, kPush, /*on_device=*/false, kOther)), absl::OkStatus());
  EXPECT_FALSE(session_->Done(on_host.id, on_host.lent));
  device_->LetGo();
  ASSERT_EQ(Wait(on_host), absl::OkStatus());
  ASSERT_EQ(Wait(pull), absl::OkStatus());
  ASSERT_EQ(Wait(on_device), absl::OkStatus());
  EXPECT_EQ(before, first);
  EXPECT_EQ(pulled, second);
}

TEST_F(DeviceCallsTest, AGradientIn16BitsOfTheHostGoesWithAPullIntoTheDevice) {
  const Values values = Counting(1);
  const std::vector<uint16_t> ones(kManyPieces, 0x3f80);  // bfloat16
  Values pulled(kManyPieces);
  ASSERT_EQ(Wait(Start(&values, nullptr, kAssign)), absl::OkStatus());
  UpdateItem item{.variable = VariableId(0)};
  item.push = {reinterpret_cast<const char*>(ones.data()), ones.size() * sizeof(uint16_t)};
  item.push_dtype = DType::kBF16;
  ASSERT_EQ(Wait(StartWithPullIntoDevice(item, &pulled)), absl::OkStatus());
  EXPECT_EQ(pulled, Counting(0));
}

TEST_F(DeviceCallsTest, WhatAMessageWouldCopyAtOnceIsCopiedThoughItsShardWaitsForADevice) {
  const Values few(64, 2);
  Values pulled(64);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle first = Start(&few, nullptr, kPush, /*on_device=*/true, kTiny);
  UpdateItem item{.variable = VariableId(kTiny)};
  Values mine(64, 3);
  item.push = {reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(float)};
  const Handle second{
      .id = *session_->RunUpdate(
          [&](ClientCore& core, absl::Time now) { return core.StartUpdate({item}, nullptr, now); }, nullptr)};
  mine.assign(mine.size(), 100);  // as memory of the library's that is given to another call
  device_->LetGo();
  ASSERT_EQ(Wait(first), absl::OkStatus());
  ASSERT_EQ(Wait(second), absl::OkStatus());
  ASSERT_EQ(Wait(Start(nullptr, &pulled, kPush, /*on_device=*/false, kTiny)), absl::OkStatus());
  EXPECT_EQ(pulled, Values(64, -5));
}

TEST_F(DeviceCallsTest, ALearningRateIsThatOfTheCallsStart) {
  const Values gradient(kManyPieces, -1);
  Values pulled(kManyPieces);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle push = Start(&gradient, &pulled);
  session_->Run([](ClientCore& core, absl::Time) {
    core.SetLearningRate(100);
    return true;
  });
  device_->LetGo();
  ASSERT_EQ(Wait(push), absl::OkStatus());
  EXPECT_EQ(pulled, Values(kManyPieces, 1));
}

TEST_F(DeviceCallsTest, ParametersAreWrittenOnceTheStreamHasComeToTheCall) {
  Values pulled(kFewElements, 3);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle pull = Start(nullptr, &pulled, kPush, /*on_device=*/true, kSmall);
  const FakeDevice::Copy stream_wait = device_->NextOut();
  EXPECT_EQ(stream_wait.bytes, 0u);
  while (!session_->Run([&](ClientCore& core, absl::Time) { return core.done(pull.id); })) {
    std::this_thread::yield();  // all answers are there
  }
  EXPECT_FALSE(session_->Done(pull.id, pull.lent));
  EXPECT_EQ(pulled, Values(kFewElements, 3));
  FakeDevice::End(stream_wait, absl::OkStatus());
  ASSERT_EQ(Wait(pull), absl::OkStatus());
  EXPECT_EQ(pulled, Values(kFewElements, 0));
}

TEST_F(DeviceCallsTest, AStreamGoesOnWhenParametersAreThereThoughNobodyWaitsForTheCall) {
  Values pulled(kManyPieces, 3);
  device_->Hold(/*outs=*/false, /*ins=*/true);
  const Handle pull = Start(nullptr, &pulled);
  ASSERT_EQ(session_->OrderBefore(pull.id, kStream), absl::OkStatus());
  FakeDevice::End(device_->NextIn(), absl::OkStatus());
  {
    MutexLock lock(device_->mutex);
    EXPECT_EQ(device_->gates_opened, 0);
  }
  device_->LetGo();
  device_->WaitForGates(1);
  EXPECT_EQ(pulled, Values(kManyPieces, 0));
  EXPECT_EQ(Wait(pull), absl::OkStatus());
}

TEST_F(DeviceCallsTest, AStreamGoesOnWhenTheServerIsLostAndWaitTells) {
  Values pulled(kManyPieces), gradient(kManyPieces, 1);
  network_.Cut("ps0:1");
  server_.reset();
  device_->Hold(/*outs=*/true, /*ins=*/false);  // so that the call is not done before the stream waits for it
  const Handle call = Start(&gradient, &pulled);
  ASSERT_EQ(session_->OrderBefore(call.id, kStream), absl::OkStatus());
  device_->LetGo();
  device_->WaitForGates(1);
  EXPECT_EQ(Wait(call).code(), absl::StatusCode::kUnavailable);
}

TEST_F(DeviceCallsTest, CloseWaitsForCopiesAndLetsStreamsGoOn) {
  Values gradient(kManyPieces, 1), pulled(kManyPieces);
  device_->Hold(/*outs=*/true, /*ins=*/true);
  const Handle call = Start(&gradient, &pulled);
  ASSERT_EQ(session_->OrderBefore(call.id, kStream), absl::OkStatus());
  const FakeDevice::Copy copy = device_->NextOut();
  std::thread closing([&] { session_->Close(); });
  while (session_->Run([](ClientCore& core, absl::Time) { return core.failure().ok(); })) std::this_thread::yield();
  EXPECT_FALSE(call.lent.expired());
  FakeDevice::End(copy, absl::OkStatus());
  device_->LetGo();
  closing.join();
  device_->WaitForGates(1);
  EXPECT_TRUE(call.lent.expired());
  EXPECT_EQ(session_->Take(call.id).status.code(), absl::StatusCode::kCancelled);
}

TEST_F(DeviceCallsTest, ANumberThatIsNotFiniteIsTheCallsErrorAndItsShardsStayAsTheyWere) {
  Values gradient(kManyPieces, -1), pulled(kManyPieces);
  gradient[kManyPieces - 3] = NAN;
  const absl::Status status = Wait(Start(&gradient, nullptr));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(absl::StrCat("gradient of \"w\" has NaN at element ", kManyPieces - 3, "; ")),
            std::string::npos)
      << status;
  // The next push finds no gap.
  const Values good(kManyPieces, -1);
  ASSERT_EQ(Wait(Start(&good, &pulled)), absl::OkStatus());
  EXPECT_EQ(pulled[0], 2);
  EXPECT_EQ(pulled[kManyPieces - 3], 1);
  EXPECT_EQ(pulled[kManyPieces - 1], 1);
}

TEST_F(DeviceCallsTest, ACopyThatFailsIsTheCallsErrorAndLaterCallsGoOn) {
  Values gradient(kManyPieces, -1), pulled(kManyPieces);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle lost = Start(&gradient, nullptr);
  const Handle behind = Start(&gradient, nullptr, kPush, /*on_device=*/false);
  device_->LetGo(absl::InternalError("the device is lost"));
  EXPECT_EQ(Wait(lost), absl::InternalError("the device is lost"));
  EXPECT_EQ(Wait(behind), absl::OkStatus());
  device_->Hold(/*outs=*/false, /*ins=*/true);
  const Handle pull = Start(nullptr, &pulled);
  device_->NextIn().done(absl::InternalError("the device is lost"));
  device_->LetGo();
  EXPECT_EQ(Wait(pull), absl::InternalError("the device is lost"));
}

TEST_F(DeviceCallsTest, ManyCallsAtOnceFromSeveralThreadsLoseNothing) {
  constexpr int kThreads = 3, kCalls = 4;
  const Values ones(kManyPieces, -1);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::vector<Handle> calls;
      std::deque<Values> pulled;
      for (int i = 0; i < kCalls; ++i) {
        pulled.emplace_back(kManyPieces);
        calls.push_back(Start(&ones, &pulled.back(), kPush, /*on_device=*/(thread + i) % 3 != 0));
      }
      for (const Handle& call : calls) EXPECT_EQ(Wait(call), absl::OkStatus());
    });
  }
  for (std::thread& thread : threads) thread.join();
  Values pulled(kManyPieces);
  ASSERT_EQ(Wait(Start(nullptr, &pulled)), absl::OkStatus());
  EXPECT_EQ(pulled, Values(kManyPieces, kThreads * kCalls));
}

}  // namespace
}  // namespace basin
