// The GPU whose memory holds the shards of this ps. ps_device.cc where the build has CUDA, ps_device_off.cc where it
// has not.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ps/shard_device.h"

namespace basin {

struct PsDeviceOptions {
  std::string name = "cpu";         // "cpu", "cuda", "cuda:N"; "auto": a GPU where one can be used
  uint64_t memory_limit_bytes = 0;  // of the device's memory, over all lanes; 0: what is free less a sixteenth
  size_t reply_limit_bytes = 0;     // of pinned host memory for replies that are under way; 0: none
};

// Thread-safe, shared by the lanes.
class PsDevice {
 public:
  virtual ~PsDevice() = default;
  // "cuda:0"
  virtual const std::string& name() const = 0;
  // "NVIDIA H200, 143771 MiB, compute capability 9.0"
  virtual const std::string& detail() const = 0;
  virtual uint64_t memory_limit_bytes() const = 0;
  // Lent to clients, by all lanes.
  virtual uint64_t lent_bytes() const = 0;
  // A lane's part, with a stream of its own.
  virtual absl::StatusOr<std::shared_ptr<ShardDevice>> MakeLane() = 0;
};

// nullptr: the shards lie on the host. INVALID_ARGUMENT: no such name; FAILED_PRECONDITION: the device cannot be used;
// RESOURCE_EXHAUSTED, INTERNAL: it fails.
absl::StatusOr<std::shared_ptr<PsDevice>> OpenPsDevice(const PsDeviceOptions& options);

}  // namespace basin
