// The runtime's functions about streams, and the start of kernels.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "common/device/cuda_launch.h"
#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/calls.h"
#include "tests/cuda_on_host/enqueue.h"
#include "tests/cuda_on_host/streams.h"

using namespace basin::cuda_on_host;

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return Call(__func__, [&] {
    if ((flags & ~unsigned{cudaStreamNonBlocking}) != 0) return cudaErrorInvalidValue;
    *stream = MakeStream(flags, std::clamp(priority, -5, 0), CurrentDevice());
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return Call(__func__, [&] {
    if ((flags & ~unsigned{cudaStreamNonBlocking}) != 0) return cudaErrorInvalidValue;
    *stream = MakeStream(flags, 0, CurrentDevice());
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return Call(__func__, [&] {
    if (!IsStream(stream)) return cudaErrorInvalidResourceHandle;
    *priority = LastPointOf(stream).stream->priority;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return Call(__func__, [&] {
    if (stream == nullptr || stream == cudaStreamLegacy || !IsStream(stream)) return cudaErrorInvalidResourceHandle;
    DestroyStream(stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return Call(__func__, [&] {
    if (!IsStream(stream)) return cudaErrorInvalidResourceHandle;
    WaitFor(LastPointOf(stream));
    return Begin("");
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return Call(__func__, [&] {
    if (!IsStream(stream)) return cudaErrorInvalidResourceHandle;
    return IsDone(LastPointOf(stream)) ? Begin("") : cudaErrorNotReady;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return Call(__func__, [&] {
    for (const Point& point : LastPoints()) WaitFor(point);
    return Begin("");
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  return Call(__func__, [&] {
    if (!IsStream(stream)) return cudaErrorInvalidResourceHandle;
    Enqueue(
        stream, [=] { function(argument); }, Seen::kByItself, false);
    return cudaSuccess;
  });
}

namespace basin::cuda_on_host {

cudaError_t RunInStream(cudaStream_t stream, std::function<void()> work, uint64_t code) {
  return Call(__func__, [&] {
    if (!IsStream(stream)) return cudaErrorInvalidResourceHandle;
    if (code != 0) Load(code);
    Enqueue(stream, std::move(work));
    return cudaSuccess;
  });
}

}  // namespace basin::cuda_on_host

namespace basin {

cudaError_t LaunchOnHost(const void* kernel, dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> thread) {
  using namespace cuda_on_host;
  static_cast<void>(Call(__func__, [&] {
    constexpr unsigned kMostOfGrid = 65535, kMostOfBlock = 1024;
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > kMostOfBlock || block.z > 64 || grid.x == 0 || grid.x > 0x7fffffffu || grid.y == 0 ||
        grid.y > kMostOfGrid || grid.z == 0 || grid.z > kMostOfGrid) {
      return cudaErrorInvalidConfiguration;
    }
    if (!IsStream(stream)) return cudaErrorInvalidResourceHandle;
    Load(reinterpret_cast<uintptr_t>(kernel));
    Enqueue(stream, [=, run = std::move(thread)] { RunGrid(kernel, grid, block, run); });
    return cudaSuccess;
  }));
  // As behind <<<>>>: also what an earlier call left.
  return TakeLastError();
}

}  // namespace basin
