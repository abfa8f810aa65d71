// The CUDA twin of the DeviceRows seam, on common/device/cuda_row_batch.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "worker/client/device_rows.h"

namespace basin {

// Makes them, and keeps the devices' memory that they work in. Memory is taken while a call is started, by the calling
// thread, and given back with the last reference to this alone: where the driver gives memory back it waits for all of
// a device's streams, and those may wait for calls.
class DeviceRowsMemory final : public std::enable_shared_from_this<DeviceRowsMemory> {
 public:
  // Puts what `start` asks of the stream into one direction's line, behind the mark.
  using Start = std::function<cudaError_t(cudaStream_t)>;
  using AddToLine = std::function<void(int device, const DeviceRows::Mark& after, Start start, DeviceRows::Done done)>;

  DeviceRowsMemory(AddToLine out, AddToLine in);
  ~DeviceRowsMemory();
  DeviceRowsMemory(const DeviceRowsMemory&) = delete;
  DeviceRowsMemory& operator=(const DeviceRowsMemory&) = delete;

  // Has each kernel run once: the driver loads one at its first launch, and may wait for all streams to do so.
  // REQUIRES: the device is the current one.
  absl::Status LoadKernels(int device);
  // Copies keys and bags that are the host's. REQUIRES: the kernels are loaded; the device is the current one; no lock
  // is held that a call needs to end; at most CudaRowBatch::kMaxKeys keys, and bags. RESOURCE_EXHAUSTED: no memory.
  // Thread-safe.
  absl::StatusOr<std::unique_ptr<DeviceRows>> Prepare(const DeviceRowsItem& item);

 private:
  class Room;  // what one part of a call works in
  class Rows;

  std::unique_ptr<Room> TakeRoom(int device, size_t bytes);
  void GiveRoom(std::unique_ptr<Room> room);

  const AddToLine out_, in_;
  Mutex mutex_;  // held for no call of CUDA's
  std::vector<std::unique_ptr<Room>> free_ ABSL_GUARDED_BY(mutex_);
  size_t rooms_ ABSL_GUARDED_BY(mutex_) = 0;  // that were made
};

}  // namespace basin
