// What each function of the runtime does besides its work: errors that stay, and errors on request.
#pragma once

#include <cuda_runtime_api.h>

namespace basin::cuda_on_host {

// The error that every call returns since the device was lost, or that this call must return
// (BASIN_TEST_CUDA_FAIL); cudaSuccess: go on.
cudaError_t Begin(const char* function);
// Kept for cudaGetLastError, which is the thread's.
cudaError_t End(cudaError_t error);
cudaError_t TakeLastError();
cudaError_t PeekLastError();

int& CurrentDevice();

// cudaError_t work().
template <typename Work>
cudaError_t Call(const char* function, Work work) {
  const cudaError_t refused = Begin(function);
  return End(refused != cudaSuccess ? refused : work());
}

}  // namespace basin::cuda_on_host
