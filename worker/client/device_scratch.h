// The memory on each device through which gradients become 16-bit numbers on their way out, in the stream that copies.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "common/base/dtype.h"
#include "common/base/mutex.h"
#include "common/codec/half.h"
#include "common/device/cuda_memory.h"

namespace basin {

// One piece's room a device: work of the stream that uses it runs in order, so the next piece finds it free. A kernel
// rounds into it, and a copy takes it out. That the kernel wrote into the host's memory itself would save the room, but
// its blocks would stay on the device's multiprocessors for as long as the bus takes, beside the kernels that train,
// and staging would have to be pinned.
//
// Prepare is thread-safe; the rest is one thread's.
class DeviceScratch final {
 public:
  // Makes the room, where there is none yet, and has the kernels loaded: the driver loads one at its first launch, and
  // may wait for all streams to do so, which may wait for a call. REQUIRES: the device is the current one; no lock is
  // held that a call needs to end. RESOURCE_EXHAUSTED: no memory.
  absl::Status Prepare(int device);
  // Both as in DeviceCopies, into the stream. REQUIRES: Prepare, and always the same stream of a device.
  cudaError_t NarrowOut(int device, cudaStream_t stream, DType type, void* to, const float* from, uint64_t n);
  cudaError_t FindUnfit(int device, cudaStream_t stream, DType from, DType type, const void* values, uint64_t n,
                        Unfit* unfit);

 private:
  // nullptr: there is none.
  CudaMemory* Of(int device);

  Mutex preparing_ ABSL_ACQUIRED_BEFORE(mutex_);
  Mutex mutex_;
  std::map<int, std::unique_ptr<CudaMemory>> rooms_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace basin
