// How kernels are started: Launch(kernel, grid, block, stream, arguments...). nvcc makes it `<<<>>>`. Where kernels are
// compiled as host code (cmake -DBASIN_CUDA=HOST, tests/cuda_on_host), a thread of the CPU runs each of a block's
// threads in turn, in the order of the stream. Kernels keep to what serves for both: no dynamic shared memory, no
// cooperative groups, warp intrinsics with their masks.
#pragma once

#include <cuda_runtime_api.h>

#ifndef __CUDACC__
#include <functional>
#endif

namespace basin {

#ifdef __CUDACC__

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream, Arguments... arguments) {
  kernel<<<grid, block, 0, stream>>>(arguments...);
  return cudaGetLastError();
}

#else

// `thread` is what each thread of the grid does; `kernel` tells its name.
cudaError_t LaunchOnHost(const void* kernel, dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> thread);

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream, Arguments... arguments) {
  return LaunchOnHost(reinterpret_cast<const void*>(kernel), grid, block, stream, [=] { kernel(arguments...); });
}

#endif

}  // namespace basin
