// Device pointers in calls of libbasin.so, to parameter servers that are processes of their own.
#include <basin/basin.h>
#include <basin/client.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "tests/client/gpu_cluster.h"

namespace basin_test {
namespace {

TEST_P(GpuPointersTest, StepsInTheOrderOfAStreamGiveWhatStepsThroughHostMemoryGive) {
  constexpr int kSteps = 5;
  const std::vector<float> first = Counting(1);
  // On the host: parameters, their half as the gradient, and so on.
  std::vector<float> parameters(kElements);
  Ok(client_->Assign({{*reference_, first}}).Wait());
  for (int step = 0; step < kSteps; ++step) {
    Ok(client_->Pull({{*reference_, parameters}}).Wait());
    Ok(client_->Push({{*reference_, parameters}}).Wait());
  }
  Ok(client_->Pull({{*reference_, parameters}}).Wait());
  // On the device, where nobody waits before the end.
  const Stream stream;
  const DeviceFloats start(first), source(kElements), pulled(kElements), gradient(kElements), seen(kElements);
  std::deque<basin::Call> calls;
  source.CopyFrom(start, stream.get());
  calls.push_back(client_->Assign({From(*w_, source)}, stream.basin()));
  for (int step = 0; step < kSteps; ++step) {
    calls.push_back(client_->Pull({Into(*w_, pulled)}, stream.basin()));
    Ok(calls.back().OrderBefore(stream.basin()));
    gradient.CopyFrom(pulled, stream.get());
    calls.push_back(client_->Push({From(*w_, gradient)}, stream.basin()));
    Ok(calls.back().OrderBefore(stream.basin()));  // the gradient's memory is written again
  }
  calls.push_back(client_->Pull({Into(*w_, pulled)}, stream.basin()));
  Ok(calls.back().OrderBefore(stream.basin()));
  seen.CopyFrom(pulled, stream.get());
  CUDA_OK(cudaStreamSynchronize(stream.get()));
  for (basin::Call& call : calls) Ok(call.Wait());
  EXPECT_EQ(seen.Read(), parameters);
}

TEST_P(GpuPointersTest, PushAndPullOfOneCallAndOfOneBuffer) {
  const std::vector<float> values = Counting(3);
  std::vector<float> expected(kElements);
  Ok(client_->PushPull({{*reference_, values}}, {{*reference_, expected}}).Wait());
  const Stream stream;
  const DeviceFloats source(values), both(kElements);
  both.CopyFrom(source, stream.get());
  Ok(client_->PushPull({From(*w_, both)}, {Into(*w_, both)}, stream.basin()).Wait());
  EXPECT_EQ(both.Read(), expected);
}

TEST_P(GpuPointersTest, HostAndDeviceMemoryInOneCall) {
  const std::vector<float> values = Counting(3);
  std::vector<float> on_host(kElements);
  const DeviceFloats source(values), target(kElements);
  Ok(client_->PushPull({From(*w_, source), {*reference_, values}}, {{*w_, on_host}, Into(*reference_, target)}).Wait());
  EXPECT_EQ(target.Read(), on_host);
}

TEST_P(GpuPointersTest, AStreamGoesOnWhenAServerIsKilledAndWaitTells) {
  const Stream stream;
  const DeviceFloats pulled(kElements), seen(kElements);
  Ok(client_->Pull({Into(*w_, pulled)}, stream.basin()).Wait());
  End(servers_.back());
  servers_.pop_back();
  basin::Call pull = client_->Pull({Into(*w_, pulled)}, stream.basin());
  Ok(pull.OrderBefore(stream.basin()));
  seen.CopyFrom(pulled, stream.get());
  CUDA_OK(cudaStreamSynchronize(stream.get()));
  EXPECT_EQ(pull.Wait().code(), BASIN_UNAVAILABLE);
}

TEST_P(GpuPointersTest, AStreamGoesOnWhenTheClientIsClosed) {
  const Stream stream;
  const DeviceFloats pulled(kElements);
  std::deque<basin::Call> calls;
  for (int i = 0; i < 8; ++i) {
    calls.push_back(client_->Pull({Into(*w_, pulled)}, stream.basin()));
    Ok(calls.back().OrderBefore(stream.basin()));
  }
  client_.reset();
  CUDA_OK(cudaStreamSynchronize(stream.get()));
  for (basin::Call& call : calls) {
    const basin::Status status = call.Wait();
    EXPECT_TRUE(status.ok() || status.code() == BASIN_CANCELLED) << status.message();
  }
}

TEST_P(GpuPointersTest, ManyCallsOnSeveralStreamsAtOnceLoseNothing) {
  constexpr int kThreads = 3, kPushes = 4;
  const std::vector<float> ones(kElements, 1);
  Ok(client_->SetLearningRate(1));
  // Freed after all threads: to free memory the driver waits for all streams, and lets nobody start work meanwhile.
  struct Memory {
    const Stream stream;
    const DeviceFloats gradient{kElements}, pulled{kElements};
  };
  const DeviceFloats source(ones);
  std::deque<Memory> memory(kThreads);
  std::vector<std::thread> threads;
  for (const Memory& my : memory) {
    threads.emplace_back([&] {
      std::deque<basin::Call> calls;
      for (int i = 0; i < kPushes; ++i) {
        my.gradient.CopyFrom(source, my.stream.get());
        calls.push_back(
            client_->PushPull({From(*reference_, my.gradient)}, {Into(*reference_, my.pulled)}, my.stream.basin()));
        Ok(calls.back().OrderBefore(my.stream.basin()));
      }
      for (basin::Call& call : calls) Ok(call.Wait());
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Momentum of 0.9 over n pushes of 1.
  float velocity = 0, expected = 0;
  for (int i = 0; i < kThreads * kPushes; ++i) {
    velocity = 0.9f * velocity + 1;
    expected -= velocity;
  }
  std::vector<float> found(kElements);
  Ok(client_->Pull({{*reference_, found}}).Wait());
  for (const float value : found) ASSERT_NEAR(value, expected, 1e-3);
}

// Whatever starts then must have its kernels already, and may free no memory: the driver would wait for the stream.
TEST_P(GpuPointersTest, CallsOfEveryKindStartWhileAStreamIsHeldBack) {
  const Stream stream, other;
  const std::vector<uint64_t> keys = {1, 2, 3};
  const DeviceFloats values(Counting(1)), pulled(kElements), rows(keys.size() * 4);
  const auto rows_of = [&](size_t count) {
    return basin::Rows{.table = &*user_,
                       .keys = keys.data(),
                       .count = count,
                       .push = values.data(),
                       .pull = rows.data(),
                       .location = basin::Location::Cuda(0)};
  };
  Ok(client_->Start({rows_of(1)}).Wait());  // the first with this device; the next is larger
  std::atomic<bool> go_on = false;
  CUDA_OK(cudaLaunchHostFunc(
      stream.get(),
      [](void* flag) {
        while (!*static_cast<std::atomic<bool>*>(flag)) std::this_thread::yield();
      },
      &go_on));
  basin::Call held = client_->Pull({Into(*w_, pulled)}, stream.basin());
  Ok(held.OrderBefore(stream.basin()));
  std::deque<basin::Call> calls;
  calls.push_back(client_->Push({From(*reference_, values)}, other.basin()));
  for (size_t count = keys.size(); count > 0; --count) calls.push_back(client_->Start({rows_of(count)}, other.basin()));
  calls.push_back(client_->Push({{*reference_, values.data(), kElements, basin::kBF16, basin::Location::Cuda(0)}}));
  go_on = true;  // copies out of the device come in the order of the calls
  Ok(held.Wait());
  for (basin::Call& call : calls) Ok(call.Wait());
  CUDA_OK(cudaStreamSynchronize(stream.get()));
}

TEST_P(GpuPointersTest, WhatIsNotOfTheDeviceIsRefusedByName) {
  const auto refused = [](basin::Call call, const std::string& expected) {
    const basin::Status status = call.Wait();
    EXPECT_EQ(status.code(), BASIN_INVALID_ARGUMENT);
    EXPECT_NE(status.message().find(expected), std::string::npos) << status.message();
  };
  std::vector<float> host(kElements);
  const DeviceFloats there(Counting(1));
  const basin::Location cuda0 = basin::Location::Cuda(0), cuda99 = basin::Location::Cuda(99);
  refused(client_->Push({{*w_, host.data(), kElements, cuda0}}), "gradient of \"w\": byte 0 of ");
  refused(client_->Push({{*w_, there.data(), kElements, cuda99}}), "gradient of \"w\": there is no cuda:99");
  refused(client_->Pull({{*w_, there.data(), kElements, basin::Location::Cuda(-1)}}), "pull of \"w\": there is no");
  refused(client_->Assign({{*w_, there.data(), kElements - 1, cuda0}}), "value of \"w\": shape [300000]");
  void* pinned = nullptr;
  CUDA_OK(cudaHostAlloc(&pinned, kElements * sizeof(float), cudaHostAllocDefault));
  refused(client_->Pull({{*w_, static_cast<float*>(pinned), kElements, cuda0}}), "pinned host memory");
  // Which serves as host memory.
  Ok(client_->Pull({{*w_, static_cast<float*>(pinned), kElements}}).Wait());
  CUDA_OK(cudaFreeHost(pinned));
  const Stream stream;
  refused(client_->Push({{*w_, host}}, stream.basin()), "all tensors of the call are in host memory");
  basin::Stream unknown = stream.basin();
  unknown.value.kind = 7;
  refused(client_->Push({From(*w_, there)}, unknown), "stream of kind 7");
  basin::Call pull = client_->Pull({{*w_, host}});
  EXPECT_EQ(pull.OrderBefore(stream.basin()).code(), BASIN_INVALID_ARGUMENT);
  Ok(client_->Push({From(*w_, there)}).Wait());
}

TEST_P(GpuPointersTest, AForksChildIsRefused) {
  const DeviceFloats gradient(std::vector<float>(kElements, 1));
  Ok(client_->Push({From(*w_, gradient)}).Wait());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(client_->Push({From(*w_, gradient)}).Wait().code());
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), BASIN_FAILED_PRECONDITION);
}

INSTANTIATE_TEST_SUITE_P(Transports, GpuPointersTest, ::testing::Values("tcp", "shm", "ipc"),
                         [](const auto& transport) { return std::string(transport.param); });

}  // namespace
}  // namespace basin_test
