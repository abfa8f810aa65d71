#include "tests/cuda_on_host/calls.h"

#include <atomic>

#include "tests/cuda_on_host/settings.h"
#include "tests/cuda_on_host/streams.h"

namespace basin::cuda_on_host {
namespace {

constexpr cudaError_t kLost = cudaErrorLaunchFailure;
std::atomic<bool> lost{false};
std::atomic<uint64_t> calls_of_failing{0};
thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

}  // namespace

cudaError_t Begin(const char* function) {
  const Settings& settings = TheSettings();
  if (settings.devices == 0) return cudaErrorNoDevice;
  if (!settings.fail.empty() && settings.fail == function && ++calls_of_failing == settings.fail_at) {
    lost = true;
    LoseDevice();
  }
  if (!lost && !settings.refuse.empty() && settings.refuse == function) return cudaErrorNotSupported;
  return lost ? kLost : cudaSuccess;
}

cudaError_t End(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t TakeLastError() {
  const cudaError_t error = last_error;
  last_error = lost ? kLost : cudaSuccess;
  return error;
}

cudaError_t PeekLastError() { return last_error; }

int& CurrentDevice() { return current_device; }

}  // namespace basin::cuda_on_host
