// What the runtime does: memory, streams and events. And what is told of a host that is wrong.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "tests/cuda_on_host/enqueue.h"
#include "tests/cuda_on_host/sanitizers.h"

namespace basin::cuda_on_host {
namespace {

constexpr size_t kTwoPages = 8192;

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorName(error));
  std::_Exit(3);
}

template <typename T = unsigned char>
T* DeviceMemory(size_t bytes = kTwoPages) {
  void* memory = nullptr;
  Check(cudaMalloc(&memory, bytes));
  return static_cast<T*>(memory);
}
unsigned char* PinnedMemory() {
  void* memory = nullptr;
  Check(cudaHostAlloc(&memory, kTwoPages, cudaHostAllocDefault));
  std::memset(memory, 0, kTwoPages);
  return static_cast<unsigned char*>(memory);
}
cudaStream_t NewStream() {
  cudaStream_t stream = nullptr;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

// Deprecated in CUDA 13, and what stands in for it is not in CUDA 12.0.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
template <typename Function>
Function DriverFunction(const char* name) {
  void* function = nullptr;
  Check(cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, nullptr));
  return reinterpret_cast<Function>(function);
}
#pragma GCC diagnostic pop

TEST(RuntimeTest, FreshDeviceMemoryIsNoNumber) {
  float* const memory = DeviceMemory<float>();
  float value = 0;
  Check(cudaMemcpy(&value, memory + 7, sizeof value, cudaMemcpyDeviceToHost));
  EXPECT_NE(value, value);
  Check(cudaFree(memory));
}

TEST(RuntimeTest, ACopyOutsideOfItsAllocationIsRefused) {
  unsigned char* const memory = DeviceMemory();
  std::vector<unsigned char> host(2 * kTwoPages);
  EXPECT_EQ(cudaMemcpy(memory, host.data(), kTwoPages + 1, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(memory, host.data(), kTwoPages, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  Check(cudaFree(memory));
  EXPECT_EQ(cudaFree(memory), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST(RuntimeTest, PinnedMemoryIsKnownWithoutOverlap) {
  std::vector<char> host(100);
  Check(cudaHostRegister(host.data(), 50, cudaHostRegisterDefault));
  EXPECT_EQ(cudaHostRegister(host.data() + 40, 20, cudaHostRegisterDefault), cudaErrorHostMemoryAlreadyRegistered);
  Check(cudaHostRegister(host.data() + 50, 50, cudaHostRegisterDefault));
  cudaPointerAttributes attributes;
  Check(cudaPointerGetAttributes(&attributes, host.data() + 60));
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  Check(cudaHostUnregister(host.data()));
  Check(cudaHostUnregister(host.data() + 50));
  EXPECT_EQ(cudaHostUnregister(host.data()), cudaErrorHostMemoryNotRegistered);
  static_cast<void>(cudaGetLastError());
}

TEST(RuntimeTest, StreamsRunBesideEachOtherAndEventsOrderThem) {
  const cudaStream_t one = NewStream(), two = NewStream();
  cudaEvent_t event = nullptr;
  Check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  std::atomic<int> gate{0};
  int value = 0;
  Check(RunInStream(one, [&] {
    while (gate.load() == 0) {
    }
    value = 1;
  }));
  Check(cudaEventRecord(event, one));
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  EXPECT_EQ(cudaGetLastError(), cudaErrorNotReady);
  Check(RunInStream(two, [&] { gate = 1; }));  // it would never end in the other stream
  Check(cudaStreamWaitEvent(two, event, 0));
  Check(RunInStream(two, [&] { value = value == 1 ? 2 : -1; }));
  Check(cudaStreamSynchronize(two));
  EXPECT_EQ(value, 2);
  Check(cudaEventSynchronize(event));
  Check(cudaEventDestroy(event));
  Check(cudaStreamDestroy(one));
  EXPECT_EQ(cudaStreamSynchronize(one), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidResourceHandle);
  Check(cudaStreamDestroy(two));
}

TEST(RuntimeTest, AStreamWaitsForAValueInMemory) {
  const cudaStream_t one = NewStream(), two = NewStream();
  void* memory = nullptr;
  Check(cudaHostAlloc(&memory, 64, cudaHostAllocMapped));
  std::memset(memory, 0, 64);
  const auto wait = DriverFunction<decltype(&cuStreamWaitValue32)>("cuStreamWaitValue32");
  const auto write = DriverFunction<decltype(&cuStreamWriteValue32)>("cuStreamWriteValue32");
  const auto address = reinterpret_cast<CUdeviceptr>(memory);
  int value = 0;
  EXPECT_EQ(wait(two, address, 5, CU_STREAM_WAIT_VALUE_GEQ), CUDA_SUCCESS);
  Check(RunInStream(two, [&] { value = value == 1 ? 2 : -1; }));
  Check(RunInStream(one, [&] { value = 1; }));
  EXPECT_EQ(write(one, address, 6, 0), CUDA_SUCCESS);
  Check(cudaStreamSynchronize(two));
  EXPECT_EQ(value, 2);
  for (const cudaStream_t stream : {one, two}) Check(cudaStreamDestroy(stream));
  Check(cudaFreeHost(memory));
}

TEST(RuntimeTest, ACopyOfMemoryThatIsPinnedInPartIsRefused) {
  unsigned char* const memory = DeviceMemory();
  std::vector<unsigned char> host(kTwoPages);
  Check(cudaHostRegister(host.data() + 100, 200, cudaHostRegisterDefault));
  for (const auto& [first, bytes, copied] :
       {std::tuple(100, 200, true), std::tuple(150, 150, true), std::tuple(0, 100, true), std::tuple(300, 100, true),
        std::tuple(50, 100, false), std::tuple(299, 2, false), std::tuple(0, 400, false)}) {
    SCOPED_TRACE(first);
    EXPECT_EQ(cudaMemcpy(memory, host.data() + first, static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
              copied ? cudaSuccess : cudaErrorInvalidValue);
  }
  static_cast<void>(cudaGetLastError());
  Check(cudaHostUnregister(host.data() + 100));
  Check(cudaFree(memory));
}

// Each runs in a process of its own, for what it sets in the environment.
class RuntimeInAProcessTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  void TearDown() override {
    for (const char* name : {"LAZY", "MEMORY", "DEVICES", "FAIL", "REFUSE"}) {
      unsetenv((std::string("BASIN_TEST_CUDA_") + name).c_str());
    }
  }
  static testing::ExitedWithCode Code(int code) { return testing::ExitedWithCode(code); }
};

[[noreturn]] void TouchFromTheHost() {
  unsigned char* const memory = DeviceMemory();
  memory[3] = 1;
  std::exit(0);
}
[[noreturn]] void TouchWhatIsFreed() {
  unsigned char* const memory = DeviceMemory();
  Check(cudaFree(memory));
  Check(RunInStream(nullptr, [=] { memory[3] = 1; }));
  cudaDeviceSynchronize();
  std::exit(0);
}

TEST_F(RuntimeInAProcessTest, WhatMayNotBeTouchedIsTold) {
  EXPECT_DEATH(TouchFromTheHost(), "host code touches .*byte 3 of a device memory of 8192 bytes; copy it");
  EXPECT_DEATH(TouchWhatIsFreed(), "touches .*byte 3 of a freed device memory of 8192 bytes");
}

// Reads what a copy to pinned memory brings: 7 where it waits.
[[noreturn]] void CopyOut(bool waits) {
  unsigned char *const memory = DeviceMemory(), *const pinned = PinnedMemory();
  const cudaStream_t stream = NewStream();
  Check(cudaMemsetAsync(memory, 7, kTwoPages, stream));
  Check(cudaMemcpyAsync(pinned, memory, kTwoPages, cudaMemcpyDeviceToHost, stream));
  if (waits) Check(cudaStreamSynchronize(stream));
  std::_Exit(pinned[9]);
}
// Changes the source after the call: from pageable memory what was there counts, from pinned memory what is there late.
[[noreturn]] void CopyIn(bool pinned) {
  std::vector<unsigned char> pageable(kTwoPages);
  unsigned char *const memory = DeviceMemory(), *const from = pinned ? PinnedMemory() : pageable.data();
  const cudaStream_t stream = NewStream();
  from[9] = 1;
  Check(cudaMemcpyAsync(memory, from, kTwoPages, cudaMemcpyHostToDevice, stream));
  from[9] = 2;
  unsigned char found = 0;
  Check(cudaStreamSynchronize(stream));
  Check(cudaMemcpy(&found, memory + 9, 1, cudaMemcpyDeviceToHost));
  std::_Exit(found);
}
[[noreturn]] void AskTwice() {
  const cudaStream_t stream = NewStream();
  Check(RunInStream(stream, [] {}));
  if (cudaStreamQuery(stream) != cudaErrorNotReady) std::_Exit(1);
  while (cudaStreamQuery(stream) == cudaErrorNotReady) {
  }
  std::_Exit(0);
}
[[noreturn]] void CallBack() {
  static std::atomic<bool> called{false};
  Check(cudaLaunchHostFunc(
      NewStream(), [](void*) { called = true; }, nullptr));
  while (!called) {
  }
  std::_Exit(0);
}

TEST_F(RuntimeInAProcessTest, ALazyStreamDoesNothingBeforeSomethingWaitsForIt) {
  setenv("BASIN_TEST_CUDA_LAZY", "1", 1);
  EXPECT_EXIT(CopyOut(true), Code(7), "");
  EXPECT_EXIT(CopyOut(false), Code(0), "");
  EXPECT_EXIT(CopyIn(false), Code(1), "");
  EXPECT_EXIT(CopyIn(true), Code(2), "");
  EXPECT_EXIT(AskTwice(), Code(0), "");
  EXPECT_EXIT(CallBack(), Code(0), "");
}

[[noreturn]] void ReadWithoutWaiting() {
  unsigned char *const memory = DeviceMemory(), *const pinned = PinnedMemory();
  const cudaStream_t stream = NewStream();
  Check(cudaMemcpyAsync(pinned, memory, kTwoPages, cudaMemcpyDeviceToHost, stream));
  for (volatile unsigned char* at = pinned + kTwoPages - 1; *at != 0xff;) {
  }
  std::exit(0);
}

TEST_F(RuntimeInAProcessTest, AMissingWaitIsARace) {
  const bool told = WatchesRaces();
  EXPECT_EXIT(ReadWithoutWaiting(), Code(told ? 66 : 0), told ? "data race" : "");
}

// With a stream that waits for what this thread does next.
[[noreturn]] void LoadBehindAWait() {
  void* memory = nullptr;
  Check(cudaHostAlloc(&memory, 64, cudaHostAllocMapped));
  std::memset(memory, 0, 64);
  const auto wait = DriverFunction<decltype(&cuStreamWaitValue32)>("cuStreamWaitValue32");
  if (wait(NewStream(), reinterpret_cast<CUdeviceptr>(memory), 1, CU_STREAM_WAIT_VALUE_GEQ) != CUDA_SUCCESS) {
    std::_Exit(1);
  }
  alarm(1);  // where it does not come back
  Check(RunInStream(
      NewStream(), [] {}, /*code=*/7));
  std::_Exit(0);
}

TEST_F(RuntimeInAProcessTest, CodeIsLoadedAtItsFirstUseOnceAllStreamsHaveEnded) {
  EXPECT_EXIT(LoadBehindAWait(), testing::KilledBySignal(SIGALRM), "");
  setenv("BASIN_TEST_CUDA_LAZY", "1", 1);
  EXPECT_EXIT(LoadBehindAWait(), Code(0), "");
}

[[noreturn]] void PinWhereThatIsRefused() {
  unsigned char* const memory = DeviceMemory();
  std::vector<unsigned char> host(kTwoPages);
  if (cudaHostRegister(host.data(), kTwoPages, cudaHostRegisterDefault) != cudaErrorNotSupported) std::_Exit(1);
  Check(cudaMemcpy(memory, host.data(), kTwoPages, cudaMemcpyHostToDevice));
  std::_Exit(0);
}

TEST_F(RuntimeInAProcessTest, ARefusedFunctionHarmsNothing) {
  setenv("BASIN_TEST_CUDA_REFUSE", "cudaHostRegister", 1);
  EXPECT_EXIT(PinWhereThatIsRefused(), Code(0), "");
}

[[noreturn]] void FillTheDevice() {
  size_t free = 0, total = 0;
  Check(cudaMemGetInfo(&free, &total));
  if (free != 16384 || total != 16384) std::_Exit(1);
  unsigned char* const memory = DeviceMemory(12000);
  void* more = nullptr;
  if (cudaMalloc(&more, kTwoPages) != cudaErrorMemoryAllocation) std::_Exit(2);
  Check(cudaFree(memory));
  Check(cudaMalloc(&more, kTwoPages));
  std::_Exit(0);
}

TEST_F(RuntimeInAProcessTest, ADeviceHasAsMuchMemoryAsIsAskedFor) {
  setenv("BASIN_TEST_CUDA_MEMORY", "16384", 1);
  EXPECT_EXIT(FillTheDevice(), Code(0), "");
}

[[noreturn]] void CountDevices() {
  int count = -1;
  if (cudaGetDeviceCount(&count) != cudaSuccess) std::_Exit(10 + (cudaGetLastError() == cudaErrorNoDevice ? 1 : 0));
  if (cudaSetDevice(count - 1) != cudaSuccess || cudaSetDevice(count) != cudaErrorInvalidDevice) std::_Exit(1);
  std::_Exit(100 + count);
}

TEST_F(RuntimeInAProcessTest, ThereAreAsManyDevicesAsAreAskedFor) {
  setenv("BASIN_TEST_CUDA_DEVICES", "0", 1);
  EXPECT_EXIT(CountDevices(), Code(11), "");
  setenv("BASIN_TEST_CUDA_DEVICES", "3", 1);
  EXPECT_EXIT(CountDevices(), Code(103), "");
}

[[noreturn]] void LoseTheDevice() {
  unsigned char* const memory = DeviceMemory();
  Check(cudaMemset(memory, 0, kTwoPages));
  if (cudaMemset(memory, 0, kTwoPages) != cudaErrorLaunchFailure) std::_Exit(1);
  if (cudaDeviceSynchronize() != cudaErrorLaunchFailure) std::_Exit(2);
  if (cudaFree(memory) != cudaErrorLaunchFailure) std::_Exit(3);
  std::_Exit(0);
}

TEST_F(RuntimeInAProcessTest, ALostDeviceStaysLost) {
  setenv("BASIN_TEST_CUDA_FAIL", "cudaMemset:2", 1);
  EXPECT_EXIT(LoseTheDevice(), Code(0), "");
}

}  // namespace
}  // namespace basin::cuda_on_host
