// The blocks of a device's memory that clients of this host have mapped.
//
// To free what another process has mapped is undefined, so a block is freed when its client has said that it has closed
// it, or the client's process has ended, and when no batch uses it. A thread waits for that, and frees: no lane does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"
#include "ps/device/device_budget.h"
#include "ps/lent_block.h"

namespace basin {

// What one client gets of a lane at most, and what is asked for is rounded up to: CUDA hands out no less to others.
inline constexpr uint64_t kMostLentBytes = uint64_t{64} << 20, kLentUnitBytes = uint64_t{2} << 20;

struct LentBlocksOptions {
  struct Memory {
    void* data = nullptr;
    std::string handle;
  };
  std::function<absl::StatusOr<Memory>(uint64_t bytes)> allocate;
  std::function<void(void*)> free;  // by the thread
  std::shared_ptr<DeviceBudget> budget;
  uint64_t most_bytes = 0;  // of all blocks
};

// Thread-safe. Blocks may outlive it: what is mapped at its end is left to the driver, which takes it with the process.
class LentBlocks final {
 public:
  explicit LentBlocks(LentBlocksOptions options);
  ~LentBlocks();
  LentBlocks(const LentBlocks&) = delete;
  LentBlocks& operator=(const LentBlocks&) = delete;

  // `process` becomes readable when the client's process has ended. INVALID_ARGUMENT: no such size;
  // RESOURCE_EXHAUSTED: past the limits, or no memory; UNAVAILABLE: no thread, no descriptor.
  absl::StatusOr<std::shared_ptr<LentBlock>> Lend(uint64_t bytes, UniqueFd process);
  // Of all that are not freed.
  uint64_t bytes() const;

 private:
  class Block;
  struct State;
  void Run();
  // False: there was nothing.
  bool FreeReturned();

  const std::shared_ptr<State> state_;
  Mutex starting_;
  std::thread thread_ ABSL_GUARDED_BY(starting_);  // from the first block on
};

}  // namespace basin
