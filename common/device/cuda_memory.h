// A CUDA device's memory, for all who ask for some.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

// Of the current device, which messages call `device`; cudaFree gives it back. RESOURCE_EXHAUSTED: no memory, with how
// much was asked for and how much is free.
absl::StatusOr<void*> AllocateCuda(absl::string_view device, size_t bytes);

// A piece that grows, for those who work on a device without the Device seam. What it has outgrown is freed with it,
// and not before: the driver waits for all streams to free memory, and meanwhile lets no thread start work, not even
// the copies that a stream may be waiting for. As it grows to twice its size at least, that is no more than it has.
class CudaMemory final {
 public:
  // At least so many bytes, of the current device; what was there is lost where it grows. Errors as AllocateCuda; then
  // nothing has changed.
  absl::Status Resize(absl::string_view device, size_t bytes);

  void* data() const { return data_.get(); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    // It waits for what uses the memory. If the device is lost, the next call that waits says so.
    void operator()(void* memory) const { static_cast<void>(cudaFree(memory)); }
  };
  std::unique_ptr<void, Free> data_;
  size_t bytes_ = 0;
  std::vector<std::unique_ptr<void, Free>> outgrown_;
};

}  // namespace basin
