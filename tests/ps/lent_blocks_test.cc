// Device memory that is lent to clients' processes comes back when nobody can use it any more, and not before.
#include "ps/device/lent_blocks.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <set>
#include <utility>

#include "absl/time/clock.h"

namespace basin {
namespace {

// A process that lives until it is killed.
class Process {
 public:
  Process() : pid_(fork()) {
    if (pid_ != 0) return;
    for (;;) pause();
  }
  ~Process() { Kill(); }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  UniqueFd Watch() const { return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0))); }

 private:
  pid_t pid_;
};

class LentBlocksTest : public ::testing::Test {
 protected:
  LentBlocksTest() {
    LentBlocksOptions options;
    options.budget = budget_;
    options.most_bytes = 4 * kLentUnitBytes;
    options.allocate = [](uint64_t bytes) -> absl::StatusOr<LentBlocksOptions::Memory> {
      void* const memory = std::malloc(bytes);
      return LentBlocksOptions::Memory{memory, "handle"};
    };
    options.free = [](void* memory) { std::free(memory); };
    blocks_ = std::make_unique<LentBlocks>(std::move(options));
  }
  // The thread frees in its own time; the limit ends only a test that has failed.
  void WaitForLent(uint64_t bytes) const {
    const absl::Time deadline = absl::Now() + absl::Minutes(2);
    while (blocks_->bytes() != bytes && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
    ASSERT_EQ(blocks_->bytes(), bytes);
  }

  const std::shared_ptr<DeviceBudget> budget_ = std::make_shared<DeviceBudget>(3 * kLentUnitBytes);
  std::unique_ptr<LentBlocks> blocks_;
};

TEST_F(LentBlocksTest, ABlockComesBackWhenItsProcessIsKilled) {
  Process one, other;
  std::weak_ptr<LentBlock> lent = *blocks_->Lend(1, one.Watch());
  const std::weak_ptr<LentBlock> others = *blocks_->Lend(kLentUnitBytes, other.Watch());
  EXPECT_EQ(blocks_->bytes(), 2 * kLentUnitBytes);
  EXPECT_EQ(budget_->taken(), 2 * kLentUnitBytes);
  one.Kill();
  WaitForLent(kLentUnitBytes);
  EXPECT_EQ(lent.lock(), nullptr);
  EXPECT_NE(others.lock(), nullptr);
  EXPECT_EQ(budget_->taken(), kLentUnitBytes);
}

TEST_F(LentBlocksTest, ABlockThatABatchUsesComesBackWhenTheBatchLetsGo) {
  Process client, canary;
  std::shared_ptr<LentBlock> used = *blocks_->Lend(1, client.Watch());
  const std::weak_ptr<LentBlock> after = *blocks_->Lend(1, canary.Watch());
  client.Kill();
  canary.Kill();
  WaitForLent(kLentUnitBytes);  // the thread has seen both ends
  EXPECT_EQ(after.lock(), nullptr);
  used->data()[0] = 1;
  used.reset();
  WaitForLent(0);
  EXPECT_EQ(budget_->taken(), 0u);
}

TEST_F(LentBlocksTest, ABlockComesBackWhenItsClientHasClosedIt) {
  const Process client;
  const std::weak_ptr<LentBlock> lent = *blocks_->Lend(1, client.Watch());
  lent.lock()->Closed();
  WaitForLent(0);
}

// The thread may be on its way from one wake to the next just then.
TEST_F(LentBlocksTest, ABlockThatIsClosedAtOnceIsNotOverlooked) {
  const Process client;
  for (int i = 0; i < 500 && !HasFatalFailure(); ++i) {
    std::shared_ptr<LentBlock> lent = *blocks_->Lend(1, client.Watch());
    lent->Closed();
    lent.reset();
    WaitForLent(0);
  }
}

TEST_F(LentBlocksTest, NoMoreIsLentThanTheDeviceAndTheirPartOfItAllow) {
  const Process client;
  EXPECT_EQ(blocks_->Lend(0, client.Watch()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(blocks_->Lend(kMostLentBytes + 1, client.Watch()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(blocks_->Lend(5 * kLentUnitBytes, client.Watch()).status().message(),
            "a device block of 10485760 bytes: 0 of 8388608 bytes are lent to clients already");
  EXPECT_EQ(blocks_->Lend(4 * kLentUnitBytes, client.Watch()).status().message(),
            "a device block of 8388608 bytes: 0 of 6291456 bytes of the device are taken already "
            "(--device-memory-limit)");
  EXPECT_EQ(budget_->taken(), 0u);
  EXPECT_TRUE(blocks_->Lend(3 * kLentUnitBytes, client.Watch()).ok());
}

TEST_F(LentBlocksTest, ABlockMayOutliveTheStock) {
  const Process client;
  const std::shared_ptr<LentBlock> lent = *blocks_->Lend(1, client.Watch());
  blocks_.reset();
  lent->Closed();
  lent->data()[0] = 1;
  std::free(lent->data());  // left to the driver otherwise
}

}  // namespace
}  // namespace basin
