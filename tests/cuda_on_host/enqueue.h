// For the emulated cuBLAS and cub: work of theirs in a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>

namespace basin::cuda_on_host {

// Runs with device memory open, `code` being loaded first, where it is not 0 (streams.h).
// cudaErrorInvalidResourceHandle: no such stream.
cudaError_t RunInStream(cudaStream_t stream, std::function<void()> work, uint64_t code = 0);

}  // namespace basin::cuda_on_host
