// Device memory and events of one process in another.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/cuda_on_host/enqueue.h"

extern char** environ;

namespace basin::cuda_on_host {
namespace {

constexpr size_t kBytes = 10000;
constexpr const char* kHandles = "BASIN_TEST_CUDA_HANDLES";

// What one process tells the other, as text for its environment.
struct Handles {
  cudaIpcMemHandle_t memory;
  cudaIpcEventHandle_t made, taken;
};

std::string ToText(const Handles& handles) {
  std::string text;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&handles);
  for (size_t i = 0; i < sizeof handles; ++i) {
    text += static_cast<char>('a' + bytes[i] / 16);
    text += static_cast<char>('a' + bytes[i] % 16);
  }
  return text;
}

Handles FromText(const char* text) {
  Handles handles;
  auto* bytes = reinterpret_cast<unsigned char*>(&handles);
  for (size_t i = 0; i < sizeof handles; ++i) {
    bytes[i] = static_cast<unsigned char>((text[2 * i] - 'a') * 16 + (text[2 * i + 1] - 'a'));
  }
  return handles;
}

#define CHECK_CUDA(call) ASSERT_EQ(call, cudaSuccess) << cudaGetErrorName(cudaPeekAtLastError())

// Run by the test below in another process: adds 1 to each byte after `made`, and records `taken`.
TEST(BetweenProcessesTest, DISABLED_Importer) {
  const Handles handles = FromText(std::getenv(kHandles));
  void* memory = nullptr;
  cudaEvent_t made = nullptr, taken = nullptr;
  CHECK_CUDA(cudaIpcOpenMemHandle(&memory, handles.memory, cudaIpcMemLazyEnablePeerAccess));
  CHECK_CUDA(cudaIpcOpenEventHandle(&made, handles.made));
  CHECK_CUDA(cudaIpcOpenEventHandle(&taken, handles.taken));
  cudaStream_t stream = nullptr;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK_CUDA(cudaStreamWaitEvent(stream, made, 0));
  CHECK_CUDA(RunInStream(stream, [memory] {
    for (size_t i = 0; i < kBytes; ++i) ++static_cast<unsigned char*>(memory)[i];
  }));
  CHECK_CUDA(cudaEventRecord(taken, stream));
  CHECK_CUDA(cudaStreamSynchronize(stream));
  EXPECT_EQ(cudaFree(memory), cudaErrorInvalidValue);
  CHECK_CUDA(cudaIpcCloseMemHandle(memory));
  EXPECT_EQ(cudaIpcCloseMemHandle(memory), cudaErrorInvalidValue);
  for (const cudaEvent_t event : {made, taken}) CHECK_CUDA(cudaEventDestroy(event));
  CHECK_CUDA(cudaStreamDestroy(stream));
}

TEST(BetweenProcessesTest, MemoryAndEventsServeTwo) {
  void* memory = nullptr;
  CHECK_CUDA(cudaMalloc(&memory, kBytes));
  cudaStream_t stream = nullptr;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaEvent_t made = nullptr, taken = nullptr;
  for (cudaEvent_t* event : {&made, &taken}) {
    CHECK_CUDA(cudaEventCreateWithFlags(event, cudaEventDisableTiming | cudaEventInterprocess));
  }
  Handles handles;
  CHECK_CUDA(cudaIpcGetMemHandle(&handles.memory, memory));
  CHECK_CUDA(cudaIpcGetEventHandle(&handles.made, made));
  CHECK_CUDA(cudaIpcGetEventHandle(&handles.taken, taken));
  void* again = nullptr;
  EXPECT_EQ(cudaIpcOpenMemHandle(&again, handles.memory, cudaIpcMemLazyEnablePeerAccess), cudaErrorDeviceUninitialized);
  static_cast<void>(cudaGetLastError());
  CHECK_CUDA(cudaMemsetAsync(memory, 6, kBytes, stream));
  CHECK_CUDA(cudaEventRecord(made, stream));

  setenv(kHandles, ToText(handles).c_str(), 1);
  std::string program = "/proc/self/exe", filter = "--gtest_filter=BetweenProcessesTest.DISABLED_Importer",
              also = "--gtest_also_run_disabled_tests";
  char* arguments[] = {program.data(), filter.data(), also.data(), nullptr};
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environ), 0);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  unsetenv(kHandles);
  ASSERT_EQ(status, 0);

  CHECK_CUDA(cudaStreamWaitEvent(stream, taken, 0));
  unsigned char found[kBytes];
  CHECK_CUDA(cudaMemcpyAsync(found, memory, kBytes, cudaMemcpyDeviceToHost, stream));
  for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(found[i], 7) << i;
  for (const cudaEvent_t event : {made, taken}) CHECK_CUDA(cudaEventDestroy(event));
  CHECK_CUDA(cudaStreamDestroy(stream));
  CHECK_CUDA(cudaFree(memory));
  cudaEvent_t late = nullptr;
  EXPECT_EQ(cudaIpcOpenEventHandle(&late, handles.made), cudaErrorDeviceUninitialized);
  static_cast<void>(cudaGetLastError());
}

}  // namespace
}  // namespace basin::cuda_on_host
