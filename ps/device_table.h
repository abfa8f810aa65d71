// A lane's part of a table in the memory of a device: the twin of HostTable. What is begun is carried out by the
// ShardDevice's Run. No CUDA type stands here: the twin is in ps/device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/dtype.h"
#include "ps/table/host_table.h"

namespace basin {

// Not thread-safe: its lane's. Keys and gradients come as they stand in messages, and are not looked at after the call.
class DeviceTable {
 public:
  virtual ~DeviceTable() = default;

  // Begins a push, which means what HostTable::Push does, repeated keys included. INVALID_ARGUMENT: a NaN or Inf, and
  // nothing of it is begun; INTERNAL: the device is lost.
  // REQUIRES: nothing that was begun, and has not run, pushes or pulls one of the keys.
  virtual absl::Status Push(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now,
                            DType type) = 0;
  // As Push, of gradients that lie in the device's memory, where only the batch looks at them: once it has run,
  // *refused is INVALID_ARGUMENT where one is NaN or infinite, and nothing of this push was applied. INVALID_ARGUMENT
  // at once: a key stands twice. REQUIRES: at most kMaxRowsBytes of rows as floats, with their keys, or one.
  virtual absl::Status PushPlaced(const char* keys, size_t n, const char* gradients, float learning_rate,
                                  absl::Time now, DType type, absl::Status* refused) = 0;
  // Begins a pull, behind all pushes that were begun. Returns where the n rows of dim floats stand once it has run;
  // they stay until ShardDevice::StartMessage. RESOURCE_EXHAUSTED: more than kMessageBytes of rows since then;
  // INTERNAL: the device is lost.
  virtual absl::StatusOr<const char*> Pull(const char* keys, size_t n) = 0;
  // As Pull, to `rows` in the device's memory, whose alignment is a row's (wire::RowPlaceAlignment).
  virtual absl::Status PullPlaced(const char* keys, size_t n, char* rows) = 0;
  // Begins the eviction of what was not pushed for evict_unused, all of it, where a round is due.
  virtual absl::Status EvictUnused(absl::Time now) = 0;

  // As HostTable::Evicted; INTERNAL: the device is lost. REQUIRES: nothing that was begun has not run.
  virtual absl::StatusOr<uint64_t> Evicted(uint64_t since, size_t most, std::vector<uint64_t>* keys) = 0;

  // As of the last run. `bytes` are the device's.
  virtual TableCounters counters() const = 0;
};

}  // namespace basin
