// Gradients in device memory that leave in 16 bits, as device_calls_test.cc: what is sent and what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/codec/half.h"
#include "tests/client/device_calls_harness.h"
#include "worker/client/narrowed_push.h"

namespace basin {
namespace {

class DeviceHalvesTest : public DeviceCallsTest {
 protected:
  // An item and the device's part of it.
  struct Both {
    UpdateItem item;
    DeviceUpdate::Item there;
  };
  static Both Push(const void* data, size_t elements, DType type, uint32_t variable = 0) {
    Both push;
    push.item.variable = VariableId(variable);
    push.item.push = {static_cast<const char*>(data), elements * SizeOf(type)};
    push.item.push_dtype = type;
    push.item.writes_by_pieces = true;
    push.there.out = push.item.push.data();
    return push;
  }
  static Both Push(const Values& values, uint32_t variable = 0) {
    return Push(values.data(), values.size(), DType::kF32, variable);
  }
  static Both Pull(Values& values, uint32_t variable, bool on_device) {
    Both pull;
    pull.item.variable = VariableId(variable);
    pull.item.pull = {reinterpret_cast<char*>(values.data()), values.size() * sizeof(float)};
    pull.item.pulls_by_pieces = on_device;
    if (on_device) pull.there.in = pull.item.pull.data();
    return pull;
  }
  // As the library does it for a client that sends gradients as `type`.
  Handle StartAs(DType type, const std::vector<Both>& call) {
    std::vector<UpdateItem> items;
    DeviceUpdate update;
    for (const Both& both : call) {
      items.push_back(both.item);
      update.items.push_back(both.there);
    }
    EXPECT_EQ(SendHalvesOfDevice(type, *session_, absl::MakeSpan(items), update), absl::OkStatus());
    return StartOnDevice(items, std::move(update));
  }
  static std::vector<uint16_t> Rounded(DType type, const Values& values) {
    std::vector<uint16_t> halves(values.size());
    EXPECT_TRUE(Narrow(type, values.data(), values.size(), reinterpret_cast<char*>(halves.data())));
    return halves;
  }
  // What a push of these 16-bit numbers from host memory makes of a variable of zeros.
  Values AfterPushFromHost(DType type, const std::vector<uint16_t>& halves) {
    Values pulled(halves.size());
    UpdateItem item{.variable = VariableId(kOther)};
    item.push = {reinterpret_cast<const char*>(halves.data()), halves.size() * sizeof(uint16_t)};
    item.push_dtype = type;
    item.pull = {reinterpret_cast<char*>(pulled.data()), pulled.size() * sizeof(float)};
    const ClientSession::Lender lender = session_->NewLender();
    const CallId call = *session_->RunUpdate(
        [&](ClientCore& core, absl::Time now) { return core.StartUpdate({item}, lender, now); }, nullptr);
    EXPECT_EQ(Wait({.id = call}), absl::OkStatus());
    return pulled;
  }
  Values PulledFromHost(size_t elements, uint32_t variable) {
    Values pulled(elements, NAN);
    EXPECT_EQ(Wait(Start(nullptr, &pulled, kPush, /*on_device=*/false, variable)), absl::OkStatus());
    return pulled;
  }
  // Numbers that neither type holds exactly.
  static Values Thirds() {
    Values values(kManyPieces);
    for (size_t i = 0; i < values.size(); ++i) values[i] = (static_cast<float>(i % 4099) - 2000) / 3;
    return values;
  }
};

class DeviceHalvesOfTypeTest : public DeviceHalvesTest, public ::testing::WithParamInterface<DType> {};

TEST_P(DeviceHalvesOfTypeTest, AFloat32GradientIsRoundedAsOnTheHost) {
  const Values gradient = Thirds();
  Values pulled(kManyPieces);
  Both both = Push(gradient);
  const Both pull = Pull(pulled, 0, /*on_device=*/true);
  both.item.pull = pull.item.pull;
  both.item.pulls_by_pieces = true;
  both.there.in = pull.there.in;
  ASSERT_EQ(Wait(StartAs(GetParam(), {both})), absl::OkStatus());
  EXPECT_EQ(pulled, AfterPushFromHost(GetParam(), Rounded(GetParam(), gradient)));
  EXPECT_NE(pulled[1], -gradient[1]);
}

TEST_P(DeviceHalvesOfTypeTest, AGradientThatHas16BitsThereIsSentAsItIs) {
  const std::vector<uint16_t> gradient = Rounded(GetParam(), Thirds());
  // Whatever float32 gradients are sent as.
  ASSERT_EQ(Wait(StartAs(DType::kF32, {Push(gradient.data(), gradient.size(), GetParam())})), absl::OkStatus());
  EXPECT_EQ(PulledFromHost(kManyPieces, 0), AfterPushFromHost(GetParam(), gradient));
}

TEST_P(DeviceHalvesOfTypeTest, HalfOfTheStagingIsEnough) {
  const Values gradient = Thirds();
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle push = StartAs(GetParam(), {Push(gradient)});
  // 5 MiB of floats go through 4 MiB, and none of it was given back.
  std::vector<FakeDevice::Copy> copies;
  for (size_t bytes = 0; bytes < kManyPieces * sizeof(uint16_t); bytes += copies.back().bytes) {
    copies.push_back(device_->NextOut());
  }
  for (const FakeDevice::Copy& copy : copies) FakeDevice::End(copy, absl::OkStatus());
  EXPECT_EQ(Wait(push), absl::OkStatus());
}

TEST_P(DeviceHalvesOfTypeTest, ANumberThatIsNotFiniteRefusesTheWholeCall) {
  for (const auto& [bad, name] : {std::pair(NAN, "NaN"), std::pair(-INFINITY, "Inf")}) {
    Values gradient = Thirds();
    gradient[kManyPieces - 3] = bad;
    EXPECT_EQ(Wait(StartAs(GetParam(), {Push(gradient)})),
              absl::InvalidArgumentError(absl::StrCat("gradient of \"w\" has ", name, " at element ", kManyPieces - 3,
                                                      "; nothing of this call was sent")));
    std::vector<uint16_t> given(kManyPieces, 0);
    Narrow(GetParam(), gradient.data(), gradient.size(), reinterpret_cast<char*>(given.data()));
    EXPECT_EQ(Wait(StartAs(DType::kF32, {Push(given.data(), given.size(), GetParam())})),
              absl::InvalidArgumentError(absl::StrCat("gradient of \"w\" has ", name, " at element ", kManyPieces - 3,
                                                      "; nothing of this call was sent")));
  }
  EXPECT_EQ(PulledFromHost(kManyPieces, 0), Values(kManyPieces, 0));
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceHalvesOfTypeTest, ::testing::Values(DType::kF16, DType::kBF16),
                         [](const auto& type) { return std::string(Name(type.param)); });

TEST_F(DeviceHalvesTest, WhatFloat16CannotHoldIsRefusedWithAllOfItsCallAndBfloat16HoldsIt) {
  Values gradient(kManyPieces, -1), pulled(kManyPieces, 3);
  gradient[kManyPieces / 2] = 65519.99f;  // rounds to the largest
  gradient[kManyPieces - 2] = -70000;
  gradient[kManyPieces - 1] = NAN;
  const Values small(kFewElements, -1), tiny(64, -1);
  Both on_host = Push(tiny, kTiny);
  on_host.item.writes_by_pieces = false;
  on_host.there.out = nullptr;
  const std::vector<Both> call = {Push(small, kSmall), Push(gradient), on_host,
                                  Pull(pulled, kOther, /*on_device=*/true)};
  EXPECT_EQ(Wait(StartAs(DType::kF16, call)),
            absl::InvalidArgumentError(absl::StrCat(
                "gradient of \"w\" has -70000, beyond float16's largest, 65504 (send bfloat16, or scale the loss down) "
                "at element ",
                kManyPieces - 2, "; nothing of this call was sent")));
  EXPECT_EQ(PulledFromHost(kManyPieces, 0), Values(kManyPieces, 0));
  EXPECT_EQ(PulledFromHost(kFewElements, kSmall), Values(kFewElements, 0));
  EXPECT_EQ(PulledFromHost(64, kTiny), Values(64, 0));
  EXPECT_EQ(pulled, Values(kManyPieces, 3));
  // The next ones find no gap.
  gradient[kManyPieces - 1] = 0;
  ASSERT_EQ(Wait(StartAs(DType::kBF16, call)), absl::OkStatus());
  EXPECT_EQ(PulledFromHost(kManyPieces, 0)[kManyPieces - 2], 70144);
  EXPECT_EQ(PulledFromHost(kFewElements, kSmall), Values(kFewElements, 1));
  EXPECT_EQ(PulledFromHost(64, kTiny), Values(64, 1));
  EXPECT_EQ(pulled, Values(kManyPieces, 0));
}

TEST_F(DeviceHalvesTest, NothingIsSentBeforeTheDeviceHasLookedAtAllOfIt) {
  const Values gradient(kManyPieces, -1), tiny(64, -1);
  Values pulled(kFewElements, 3);
  Both on_host = Push(tiny, kTiny);
  on_host.item.writes_by_pieces = false;
  on_host.there.out = nullptr;
  Values after(64, 3);
  on_host.item.pull = {reinterpret_cast<char*>(after.data()), after.size() * sizeof(float)};
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle push = StartAs(DType::kF16, {Push(gradient), on_host, Pull(pulled, kSmall, /*on_device=*/true)});
  const FakeDevice::Copy look = device_->NextOut();
  EXPECT_EQ(look.bytes, 0u);
  device_->LetGo();
  // What another client sees once a later call of this one, over another variable, is done.
  ASSERT_EQ(Wait(Start(&gradient, nullptr, kPush, /*on_device=*/false, kOther)), absl::OkStatus());
  const std::unique_ptr<ClientSession> observer = Connect(wire::v1::ROLE_OBSERVER);
  Declare(*observer, {});
  Values seen(64, 7);
  UpdateItem item{.variable = VariableId(kTiny), .pull = {reinterpret_cast<char*>(seen.data()), 64 * sizeof(float)}};
  ClientCore::Result result;
  const CallId pull =
      *observer->RunUpdate([&](ClientCore& core, absl::Time now) { return core.StartUpdate({item}, nullptr, now); });
  ASSERT_EQ(observer->Wait(pull, absl::InfiniteFuture(), &result), absl::OkStatus());
  EXPECT_EQ(seen, Values(64, 0));
  EXPECT_FALSE(session_->Done(push.id, push.lent));
  EXPECT_EQ(pulled, Values(kFewElements, 3));
  FakeDevice::End(look, absl::OkStatus());
  ASSERT_EQ(Wait(push), absl::OkStatus());
  EXPECT_EQ(pulled, Values(kFewElements, 0));
  EXPECT_EQ(PulledFromHost(kManyPieces, 0), Values(kManyPieces, 1));
  EXPECT_EQ(after, Values(64, 1));
}

TEST_F(DeviceHalvesTest, ALookThatFailsIsTheCallsErrorAndLaterCallsGoOn) {
  const Values gradient(kManyPieces, -1);
  device_->Hold(/*outs=*/true, /*ins=*/false);
  const Handle lost = StartAs(DType::kBF16, {Push(gradient)});
  device_->NextOut().done(absl::InternalError("the device is lost"));
  device_->LetGo();
  EXPECT_EQ(Wait(lost), absl::InternalError("the device is lost"));
  ASSERT_EQ(Wait(StartAs(DType::kBF16, {Push(gradient)})), absl::OkStatus());
  EXPECT_EQ(PulledFromHost(kManyPieces, 0), Values(kManyPieces, 1));
}

TEST_F(DeviceHalvesTest, AssignmentsStayFloat32AndAnAddressThatNoElementCanHaveIsRefused) {
  const Values values = Thirds();
  Both assign = Push(values);
  assign.item.assign = std::exchange(assign.item.push, {});
  const Values tiny(64, 0);
  ASSERT_EQ(Wait(StartAs(DType::kF16, {assign, Push(tiny, kTiny)})), absl::OkStatus());
  EXPECT_EQ(PulledFromHost(kManyPieces, 0), values);
  std::vector<UpdateItem> items = {Push(tiny, kTiny).item};
  DeviceUpdate update;
  update.items.push_back({.out = reinterpret_cast<const char*>(tiny.data()) + 2});
  const absl::Status refused = SendHalvesOfDevice(DType::kF16, *session_, absl::MakeSpan(items), update);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("gradient of \"tiny\": f32 in device memory at 0x"), std::string::npos) << refused;
}

}  // namespace
}  // namespace basin
