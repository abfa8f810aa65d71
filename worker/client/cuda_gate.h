// The CUDA twin of StreamGate, and what it shares with device_copies_cuda.cc.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/device/cuda_status.h"
#include "worker/client/device_copies.h"

namespace basin {

// RESOURCE_EXHAUSTED: too many at once.
absl::StatusOr<std::unique_ptr<StreamGate>> MakeCudaGate(int device);

inline std::string CudaName(int device) { return absl::StrCat("cuda:", device); }

// Of CUDA's per-thread error, which another library would take for its own.
inline absl::Status Checked(cudaError_t error, int device, absl::string_view what) {
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  return CudaStatus(error, CudaName(device), what);
}

// The thread's current device for as long as this lives. Where it was that one already nothing is set: setting a device
// makes its context.
class CurrentDevice final {
 public:
  explicit CurrentDevice(int device) {
    status_ = Checked(cudaGetDevice(&before_), device, "ask for the current device");
    if (!status_.ok() || before_ == device) return;
    status_ = Checked(cudaSetDevice(device), device, "use");
    changed_ = status_.ok();
  }
  ~CurrentDevice() {
    if (changed_) static_cast<void>(cudaSetDevice(before_));
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
  int before_ = 0;
  bool changed_ = false;
};

inline cudaStream_t StreamOf(const DeviceStream& stream) {
  return reinterpret_cast<cudaStream_t>(stream.handle);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace basin
