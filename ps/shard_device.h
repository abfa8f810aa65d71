// The memory of a device, as a lane keeps its shards and tables there. What a message begins is carried out in one
// batch. No CUDA type stands here: the twin is in ps/device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/unique_fd.h"
#include "ps/device_table.h"
#include "ps/lent_block.h"
#include "ps/shard_values.h"

namespace basin {

// Not thread-safe: its lane's. Outlives the values and tables that it made.
class ShardDevice {
 public:
  virtual ~ShardDevice() = default;
  // "cuda:0"
  virtual const std::string& name() const = 0;
  // Whether such a table can lie there. UNIMPLEMENTED, INVALID_ARGUMENT: why not.
  virtual absl::Status CanHold(const StoredTableOptions& table) const = 0;
  // Takes the memory that these shards, these tables and their batches need, so that no push lacks it later. A table
  // takes all of its max_bytes. RESOURCE_EXHAUSTED, with what is needed and what there is: nothing has changed.
  // REQUIRES: CanHold of each table.
  virtual absl::Status Reserve(absl::Span<const ShardOptions> shards, absl::Span<const StoredTableOptions> tables) = 0;
  // REQUIRES: Reserve of the shard. `options` outlive the values.
  virtual std::unique_ptr<ShardValues> Make(const ShardOptions& options) = 0;
  // REQUIRES: Reserve of the table, once for each call.
  virtual std::unique_ptr<DeviceTable> MakeTable(const std::string& name) = 0;
  // Rows that tables pulled so far are not looked at any more.
  virtual void StartMessage() = 0;
  // Carries out what was begun on all its values and tables, waits for it, and fills the frames that were read. It may
  // have been called by the way, where a batch was full. An error says that the device is lost, which it then stays:
  // what was begun is refused, and the frames hold nothing.
  virtual absl::Status Run() = 0;
  // Which device it is, the same in all processes; empty: nothing of it is lent.
  virtual const std::string& id() const = 0;
  // Memory of it for a client's process, as long as that lives (`process` becomes readable at its end) or uses it.
  // INVALID_ARGUMENT: no such size; RESOURCE_EXHAUSTED: no memory, or enough is lent; UNAVAILABLE: the system lacks
  // something for it.
  virtual absl::StatusOr<std::shared_ptr<LentBlock>> Lend(uint64_t bytes, UniqueFd process) = 0;
  // Lent by all lanes now.
  virtual uint64_t lent_bytes() const = 0;
  // Taken from the device.
  virtual uint64_t bytes() const = 0;
};

}  // namespace basin
