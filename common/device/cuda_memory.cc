#include "common/device/cuda_memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"

namespace basin {

absl::StatusOr<void*> AllocateCuda(absl::string_view device, size_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes == 0 ? 1 : bytes);
  if (error == cudaSuccess) return memory;
  static_cast<void>(cudaGetLastError());  // a refused allocation harms nothing else
  const absl::Status status = CudaStatus(error, device, absl::StrCat("allocate ", bytes >> 20, " MiB"));
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; ", free >> 20, " of ", total >> 20, " MiB are free"));
}

absl::Status CudaMemory::Resize(absl::string_view device, size_t bytes) {
  if (bytes <= bytes_) return absl::OkStatus();
  bytes = std::max(bytes, 2 * bytes_);
  BASIN_ASSIGN_OR_RETURN(void* const memory, AllocateCuda(device, bytes));
  if (data_ != nullptr) outgrown_.push_back(std::move(data_));
  data_.reset(memory);
  bytes_ = bytes;
  return absl::OkStatus();
}

}  // namespace basin
