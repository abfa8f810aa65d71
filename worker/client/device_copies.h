// The DeviceCopies seam: copies between a device's memory and the host's, or a ps's on that device, in the order of the
// caller's streams, for calls with device pointers. Twins: device_copies_cuda.cc where the build has CUDA,
// device_copies_off.cc where it has not; tests have one in host memory. No CUDA type stands here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/dtype.h"
#include "common/codec/half.h"
#include "worker/client/device_rows.h"

namespace basin {

// As basin_stream.
struct DeviceStream {
  int32_t kind = 0;  // BASIN_STREAM_NONE or BASIN_STREAM_CUDA
  uintptr_t handle = 0;
};

// Holds streams back until it is opened. Thread-safe.
class StreamGate {
 public:
  virtual ~StreamGate() = default;  // opens it
  // What is queued on the stream from now on runs once the gate is open; the CPU does not wait. Perhaps it waits for
  // room in the stream's queue, so no lock may be held that Open needs.
  virtual absl::Status HoldBack(const DeviceStream& stream) = 0;
  virtual void Open() = 0;
};

// Thread-safe. Devices are given by number. The thread's current device is left as it was.
class DeviceCopies {
 public:
  // Called on a thread of the copies; must not wait.
  using Done = std::function<void(const absl::Status&)>;
  // A point in a stream.
  using Mark = std::shared_ptr<const void>;

  // Waits for the copies under way.
  virtual ~DeviceCopies() = default;
  // What all below need on that device, its kernels included. To be called before any of them is, and before a stream
  // is held back: the driver waits for all streams to load a kernel, and meanwhile lets no thread start work, not even
  // the copies that a stream waits for. With no lock held that ends calls. RESOURCE_EXHAUSTED: no memory there.
  virtual absl::Status Prepare(int device) = 0;
  // Whether [data, data + bytes) is memory of that device. INVALID_ARGUMENT: what it is instead, or
  // that there is no such device.
  virtual absl::Status Check(int device, const void* data, size_t bytes) = 0;
  // Behind all that is queued on the stream now. nullptr: the stream is none, there is nothing to wait for.
  virtual absl::StatusOr<Mark> MarkNow(int device, const DeviceStream& stream) = 0;
  // Which device it is, the same in all processes.
  virtual absl::StatusOr<std::string> Id(int device) = 0;
  // Memory of that device that another process has lent to this one, until the result is gone, which must be after the
  // copies with it. The host does not look at it; copies below take it in the place of the host's. Errors: CUDA's
  // words.
  virtual absl::StatusOr<std::shared_ptr<char>> OpenBlock(int device, const std::string& handle) = 0;
  // Makes copies from and to host memory go at full speed until the result is gone, which must be before that memory.
  // Where that is not possible copies are slower, nothing else.
  virtual std::shared_ptr<const void> Pin(int device, void* memory, size_t bytes) = 0;
  // Out of the device, behind the mark. Those that are asked for run in the order of asking. 0 bytes: waits for the
  // mark.
  virtual void CopyOut(int device, const Mark& after, void* to, const void* from, size_t bytes, Done done) = 0;
  // As CopyOut, of n floats that leave as numbers of `type` (kF16 or kBF16), with the bits of Narrow. At most
  // kMaxShardBytes of those.
  virtual void NarrowOut(int device, const Mark& after, DType type, void* to, const void* from, uint64_t n,
                         Done done) = 0;
  // In the order of the copies out, behind the mark: the first of n elements of `from` (kF32 or `type`) in the device's
  // memory that `type` cannot hold. `unfit` is host memory.
  virtual void FindUnfit(int device, const Mark& after, DType from, DType type, const void* values, uint64_t n,
                         Unfit* unfit, Done done) = 0;
  // Into the device, as CopyOut, but waiting for nothing that a stream does: else one call's copies could wait for
  // another's whose own come later.
  virtual void CopyIn(int device, void* to, const void* from, size_t bytes, Done done) = 0;
  // The rows of one table that a call moves. To be called before the call is started, with no lock held that ends
  // calls: the device may keep us waiting.
  virtual absl::StatusOr<std::unique_ptr<DeviceRows>> PrepareRows(const DeviceRowsItem& item) = 0;
  // RESOURCE_EXHAUSTED: too many gates at once.
  virtual absl::StatusOr<std::unique_ptr<StreamGate>> NewGate(int device) = 0;
};

// FAILED_PRECONDITION: no CUDA in the build, no driver, no device. Makes no CUDA context.
absl::StatusOr<std::unique_ptr<DeviceCopies>> OpenDeviceCopies();

}  // namespace basin
