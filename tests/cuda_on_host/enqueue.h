// For the emulated cuBLAS and cub: work of theirs in a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace basin::cuda_on_host {

// Runs with device memory open. cudaErrorInvalidResourceHandle: no such stream.
cudaError_t RunInStream(cudaStream_t stream, std::function<void()> work);

}  // namespace basin::cuda_on_host
