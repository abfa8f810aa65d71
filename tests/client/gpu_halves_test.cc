// Gradients in device memory that libbasin.so sends in 16 bits: what parameter servers make of them, compared with
// gradients in host memory.
#include <basin/basin.h>
#include <basin/client.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tests/client/gpu_cluster.h"

namespace basin_test {
namespace {

class GpuHalvesTest : public GpuPointersTest {
 protected:
  void ConnectAs(const std::string& gradient_dtype) {
    client_.reset();
    Connect(gradient_dtype);
    Ok(client_->SetLearningRate(1));
  }
  // Pushes one variable, as basin.h's basin_tensor has it.
  basin::Status Push(const basin::Variable& variable, const void* data, basin_dtype dtype, basin_device device) {
    const int64_t shape = kElements;
    basin_tensor tensor = {};
    tensor.data = const_cast<void*>(data);
    tensor.device = device;
    tensor.ndim = 1;
    tensor.dtype = dtype;
    tensor.shape = const_cast<int64_t*>(&shape);
    basin_item item = {};
    item.variable = variable.id;
    item.push = &tensor;
    basin_call* call = nullptr;
    basin_status status = {};
    basin_start(client_->get(), &item, 1, &call, &status);
    if (status.code == BASIN_OK) basin_call_wait(call, -1, &status);
    basin_call_free(call);
    return {status.code, status.message};
  }
  std::vector<float> Pulled(const basin::Variable& variable) {
    std::vector<float> pulled(kElements, NAN);
    Ok(client_->Pull({{variable, pulled}}).Wait());
    return pulled;
  }
  static std::vector<float> Thirds() {
    std::vector<float> values(kElements);
    for (size_t i = 0; i < values.size(); ++i) values[i] = (static_cast<float>(i % 4099) - 2000) / 3;
    return values;
  }
};

TEST_P(GpuHalvesTest, AreRoundedAsTheHostRoundsThem) {
  const std::vector<float> gradient = Thirds();
  const DeviceFloats there(gradient), pulled(kElements);
  for (const char* const type : {"float16", "bfloat16"}) {
    ConnectAs(type);
    const std::vector<float> before = Pulled(*w_);
    const Stream stream;
    for (int i = 0; i < 2; ++i) {
      Ok(client_->Push({{*reference_, gradient}}).Wait());
      Ok(client_->PushPull({From(*w_, there)}, {Into(*w_, pulled)}, stream.basin()).Wait());
    }
    EXPECT_EQ(pulled.Read(), Pulled(*reference_)) << type;
    EXPECT_NE(Pulled(*w_), before);
  }
}

TEST_P(GpuHalvesTest, MayLieAtAnyFloat) {
  const std::vector<float> gradient = Thirds();
  for (const size_t first : {1, 2}) {
    std::vector<float> shifted(first, NAN);
    shifted.insert(shifted.end(), gradient.begin(), gradient.end());
    const DeviceFloats there(shifted);
    ConnectAs("float16");
    Ok(client_->Push({{*reference_, gradient}}).Wait());
    Ok(client_->Push({{*w_, there.data() + first, kElements, basin::Location::Cuda(0)}}).Wait());
    EXPECT_EQ(Pulled(*w_), Pulled(*reference_)) << first;
  }
}

TEST_P(GpuHalvesTest, Of16BitsAreSentAsTheyAre) {
  std::vector<uint16_t> gradient(kElements);
  for (size_t i = 0; i < gradient.size(); ++i) gradient[i] = static_cast<uint16_t>(i % 0x7c00);
  const DeviceFloats there(kElements);  // room for twice as many
  CUDA_OK(cudaMemcpy(there.data(), gradient.data(), kElements * sizeof(uint16_t), cudaMemcpyHostToDevice));
  CUDA_OK(cudaDeviceSynchronize());
  for (const basin_dtype dtype : {basin_dtype{2, 16, 1}, basin_dtype{4, 16, 1}}) {
    Ok(Push(*reference_, gradient.data(), dtype, {1, 0}));
    Ok(Push(*w_, there.data(), dtype, {2, 0}));
    EXPECT_EQ(Pulled(*w_), Pulled(*reference_));
    // And as C++ has it.
    const basin::Storage type = dtype.code == 4 ? basin::kBF16 : basin::kF16;
    Ok(client_->Push({{*reference_, gradient.data(), kElements, type}}).Wait());
    Ok(client_->Push({{*w_, there.data(), kElements, type, basin::Location::Cuda(0)}}).Wait());
    EXPECT_EQ(Pulled(*w_), Pulled(*reference_));
  }
}

TEST_P(GpuHalvesTest, WhatTheTypeCannotHoldChangesNothingAndIsNamed) {
  const DeviceFloats good(std::vector<float>(kElements, 1)), pulled(std::vector<float>(kElements, 5));
  for (const auto& [value, text] :
       {std::pair(-70000.0f, "-70000, beyond float16's largest, 65504 (send bfloat16, or scale the loss down)"),
        std::pair(NAN, "NaN")}) {
    std::vector<float> gradient(kElements, 1);
    gradient[kElements - 2] = value;
    const DeviceFloats there(gradient);
    ConnectAs("float16");
    const std::vector<float> before = Pulled(*w_), reference_before = Pulled(*reference_);
    const basin::Status on_host = client_->Push({{*reference_, gradient}}).Wait();
    // Beside a good gradient and parameters, which do not go either.
    const basin::Status status =
        client_->PushPull({From(*reference_, good), From(*w_, there)}, {Into(*w_, pulled)}).Wait();
    EXPECT_EQ(status.code(), BASIN_INVALID_ARGUMENT);
    EXPECT_EQ(status.message(), "gradient of \"w\" has " + std::string(text) + " at element " +
                                    std::to_string(kElements - 2) + "; nothing of this call was sent");
    EXPECT_EQ(on_host.code(), status.code());
    EXPECT_EQ(on_host.message(),
              "gradient of \"reference\"" + status.message().substr(sizeof("gradient of \"w\"") - 1));
    EXPECT_EQ(Pulled(*w_), before);
    EXPECT_EQ(Pulled(*reference_), reference_before);
    EXPECT_EQ(pulled.Read(), std::vector<float>(kElements, 5));
    Ok(client_->Push({From(*w_, good)}).Wait());  // finds no gap
    EXPECT_NE(Pulled(*w_), before);
  }
}

TEST_P(GpuHalvesTest, WhatTheHostsTensorsWouldBeRefusedForIsRefused) {
  const DeviceFloats there(std::vector<float>(kElements, 1));
  const auto refused = [](const basin::Status& status, const std::string& expected) {
    EXPECT_EQ(status.code(), BASIN_INVALID_ARGUMENT);
    EXPECT_NE(status.message().find(expected), std::string::npos) << status.message();
  };
  refused(Push(*w_, there.data(), {2, 64, 1}, {2, 0}), "gradient of \"w\": ");
  refused(Push(*w_, reinterpret_cast<const char*>(there.data()) + 1, {4, 16, 1}, {2, 0}),
          "gradient of \"w\": bf16 in device memory at 0x");
  std::vector<uint16_t> host(kElements);
  refused(Push(*w_, host.data(), {4, 16, 1}, {2, 0}), "gradient of \"w\": byte 0 of ");
}

INSTANTIATE_TEST_SUITE_P(Transports, GpuHalvesTest, ::testing::Values("tcp", "shm", "ipc"),
                         [](const auto& transport) { return std::string(transport.param); });

}  // namespace
}  // namespace basin_test
