// The memory of a device, as a lane keeps its shards there. What a message begins is carried out in one batch. No CUDA
// type stands here: the twin is in ps/device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ps/shard_values.h"

namespace basin {

// Not thread-safe: its lane's. Outlives the values that it made.
class ShardDevice {
 public:
  virtual ~ShardDevice() = default;
  // "cuda:0"
  virtual const std::string& name() const = 0;
  // Takes the memory that these shards and their batches need, so that no push lacks it later. RESOURCE_EXHAUSTED, with
  // what is needed and what there is: nothing has changed.
  virtual absl::Status Reserve(absl::Span<const ShardOptions> shards) = 0;
  // REQUIRES: Reserve of the shard. `options` outlive the values.
  virtual std::unique_ptr<ShardValues> Make(const ShardOptions& options) = 0;
  // Carries out what was begun on all its values, waits for it, and fills the frames that were read. It may have been
  // called by the way, where a batch was full. An error says that the device is lost, which it then stays: what was
  // begun is refused, and the frames hold nothing.
  virtual absl::Status Run() = 0;
  // Taken from the device.
  virtual uint64_t bytes() const = 0;
};

}  // namespace basin
