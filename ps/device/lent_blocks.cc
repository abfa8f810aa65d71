#include "ps/device/lent_blocks.h"

#include <poll.h>

#include <algorithm>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/wire/wake_fd.h"

namespace basin {

struct LentBlocks::State {
  struct Lent {
    std::shared_ptr<Block> block;
    UniqueFd process;
    bool closed = false;
  };
  struct Returned {
    void* data = nullptr;
    uint64_t bytes = 0;
  };

  explicit State(LentBlocksOptions of) : options(std::move(of)) {}

  const LentBlocksOptions options;
  wire::WakeFd wake;
  Mutex mutex;
  std::vector<Lent> lent ABSL_GUARDED_BY(mutex);          // taken out by the thread alone
  std::vector<Returned> returned ABSL_GUARDED_BY(mutex);  // that nobody uses
  uint64_t bytes ABSL_GUARDED_BY(mutex) = 0;
  bool ending ABSL_GUARDED_BY(mutex) = false;
};

class LentBlocks::Block final : public LentBlock {
 public:
  Block(std::shared_ptr<State> state, LentBlocksOptions::Memory memory, uint64_t bytes)
      : state_(std::move(state)), memory_(std::move(memory)), bytes_(bytes) {}
  // The last holder may be a lane at the end of a batch.
  ~Block() override {
    MutexLock lock(state_->mutex);
    state_->returned.push_back({memory_.data, bytes_});
    state_->wake.Wake();
  }
  char* data() const override { return static_cast<char*>(memory_.data); }
  uint64_t bytes() const override { return bytes_; }
  const std::string& handle() const override { return memory_.handle; }
  void Closed() override {
    MutexLock lock(state_->mutex);
    for (State::Lent& lent : state_->lent) {
      if (lent.block.get() == this) lent.closed = true;
    }
    state_->wake.Wake();
  }

 private:
  const std::shared_ptr<State> state_;
  const LentBlocksOptions::Memory memory_;
  const uint64_t bytes_;
};

LentBlocks::LentBlocks(LentBlocksOptions options) : state_(std::make_shared<State>(std::move(options))) {}

LentBlocks::~LentBlocks() {
  {
    MutexLock lock(state_->mutex);
    state_->ending = true;
    state_->wake.Wake();
  }
  MutexLock lock(starting_);
  if (thread_.joinable()) thread_.join();
  std::vector<State::Lent> closed, mapped;
  {
    MutexLock held(state_->mutex);
    for (State::Lent& lent : state_->lent) (lent.closed ? closed : mapped).push_back(std::move(lent));
    state_->lent.clear();
  }
  closed.clear();
  FreeReturned();
}

absl::StatusOr<std::shared_ptr<LentBlock>> LentBlocks::Lend(uint64_t bytes, UniqueFd process) {
  if (bytes == 0 || bytes > kMostLentBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a device block of ", bytes, " bytes; one has 1 to ", kMostLentBytes));
  }
  if (state_->wake.fd() < 0) return absl::UnavailableError("this process has no descriptor left");
  {
    MutexLock lock(starting_);
    try {
      if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
    } catch (const std::system_error& error) {
      return absl::UnavailableError(absl::StrCat("no thread to watch clients: ", error.what()));
    }
  }
  bytes = (bytes + kLentUnitBytes - 1) / kLentUnitBytes * kLentUnitBytes;
  const LentBlocksOptions& options = state_->options;
  MutexLock lock(state_->mutex);
  if (bytes > options.most_bytes - std::min(options.most_bytes, state_->bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("a device block of ", bytes, " bytes: ", state_->bytes, " of ",
                                                     options.most_bytes, " bytes are lent to clients already"));
  }
  if (!options.budget->Take(bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("a device block of ", bytes, " bytes: ", options.budget->taken(),
                                                     " of ", options.budget->limit(),
                                                     " bytes of the device are taken already (--device-memory-limit)"));
  }
  absl::StatusOr<LentBlocksOptions::Memory> memory = options.allocate(bytes);
  if (!memory.ok()) {
    options.budget->GiveBack(bytes);
    return memory.status();
  }
  auto block = std::make_shared<Block>(state_, *std::move(memory), bytes);
  state_->lent.push_back({.block = block, .process = std::move(process)});
  state_->bytes += bytes;
  state_->wake.Wake();
  return block;
}

uint64_t LentBlocks::bytes() const {
  MutexLock lock(state_->mutex);
  return state_->bytes;
}

bool LentBlocks::FreeReturned() {
  std::vector<State::Returned> returned;
  {
    MutexLock lock(state_->mutex);
    returned.swap(state_->returned);
  }
  if (returned.empty()) return false;
  uint64_t freed = 0;
  for (const State::Returned& memory : returned) {
    state_->options.free(memory.data);
    freed += memory.bytes;
  }
  state_->options.budget->GiveBack(freed);
  MutexLock lock(state_->mutex);
  state_->bytes -= freed;
  return true;
}

void LentBlocks::Run() {
  std::vector<pollfd> items;
  for (;;) {
    items.assign(1, {.fd = state_->wake.fd(), .events = POLLIN, .revents = 0});
    if (FreeReturned()) continue;
    {
      MutexLock lock(state_->mutex);
      if (state_->ending) return;
      for (const State::Lent& lent : state_->lent) {
        items.push_back({.fd = lent.process.get(), .events = POLLIN, .revents = 0});
      }
    }
    poll(items.data(), items.size(), -1);
    if (items[0].revents != 0) state_->wake.Drain();
    std::vector<State::Lent> fenced;  // let go of without the mutex, which the last holder takes
    {
      MutexLock lock(state_->mutex);
      // Blocks that came meanwhile stand behind those that were polled; they may have been closed already, by the wake
      // that has just been drained.
      for (size_t i = state_->lent.size(); i-- > 0;) {
        const bool ended = i + 1 < items.size() && items[i + 1].revents != 0;
        if (!ended && !state_->lent[i].closed) continue;
        fenced.push_back(std::move(state_->lent[i]));
        state_->lent.erase(state_->lent.begin() + static_cast<ptrdiff_t>(i));
      }
    }
  }
}

}  // namespace basin
