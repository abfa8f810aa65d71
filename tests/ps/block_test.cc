#include "ps/block.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace basin {
namespace {

TEST(BlockTest, DataIsAligned) {
  const auto pool = BlockPool::Make(0);
  for (const size_t bytes : {0, 1, 64, 1000, 1 << 20}) {
    const BlockRef block = pool->Allocate(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block.data()) % 64, 0u);
    EXPECT_GE(block.size(), static_cast<size_t>(bytes));
  }
}

TEST(BlockTest, ABlockThatCameBackIsUsedAgain) {
  const auto pool = BlockPool::Make(0);
  const char* first = pool->Allocate(4096).data();
  EXPECT_EQ(pool->Allocate(4096).data(), first);
  EXPECT_EQ(pool->mapped_bytes(), BlockPool::Footprint(4096));
}

TEST(BlockTest, ItIsUniqueUntilAFrameHoldsIt) {
  const auto pool = BlockPool::Make(0);
  const BlockRef block = pool->Allocate(64);
  EXPECT_TRUE(block.IsUnique());
  {
    const wire::Frame frame = block.ToFrame(16);
    EXPECT_FALSE(block.IsUnique());
    EXPECT_EQ(frame.data(), block.data());
    EXPECT_EQ(frame.size(), 16u);
  }
  EXPECT_TRUE(block.IsUnique());
}

TEST(BlockTest, PastTheLimitThereIsNoBlock) {
  const auto pool = BlockPool::Make(BlockPool::Footprint(64) * 2);
  const BlockRef a = pool->Allocate(64);
  {
    const BlockRef b = pool->Allocate(64);
    EXPECT_TRUE(b);
    EXPECT_FALSE(pool->Allocate(64));
  }
  EXPECT_TRUE(pool->Allocate(64));
}

TEST(BlockTest, PlansAreBoundedByTheLimit) {
  const auto pool = BlockPool::Make(100);
  EXPECT_TRUE(pool->Plan(60));
  EXPECT_FALSE(pool->Plan(60));
  pool->Unplan(60);
  EXPECT_TRUE(pool->Plan(100));
}

TEST(BlockTest, ABlockOutlivesThePoolsOwner) {
  auto pool = BlockPool::Make(0);
  const BlockRef block = pool->Allocate(64);
  pool.reset();
  const BlockRef copy = block;
  EXPECT_FALSE(block.IsUnique());
}

// What ZeroMQ's thread does to a reply: reads, then releases, while the lane waits to write in place.
TEST(BlockTest, AWriterSeesAReadersReleaseBeforeItWritesInPlace) {
  const auto pool = BlockPool::Make(0);
  BlockRef block = pool->Allocate(1024 * sizeof(float));
  std::fill_n(block.mutable_floats(), 1024, 0.0f);
  for (int round = 1; round <= 200; ++round) {
    std::thread reader([frame = block.ToFrame(1024 * sizeof(float)), round] {
      for (size_t i = 0; i < 1024; ++i)
        ASSERT_EQ(reinterpret_cast<const float*>(frame.data())[i], static_cast<float>(round - 1));
    });
    // Either in place, when the reader is through, or into a fresh block.
    BlockRef target = block.IsUnique() ? std::move(block) : pool->Allocate(1024 * sizeof(float));
    std::fill_n(target.mutable_floats(), 1024, static_cast<float>(round));
    block = std::move(target);
    reader.join();
  }
}

TEST(BlockTest, ManyThreadsTakeAndGiveBack) {
  const auto pool = BlockPool::Make(0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (int i = 0; i < 500; ++i) {
        BlockRef block = pool->Allocate(static_cast<size_t>(64 << (i % 3)));
        block.mutable_floats()[0] = static_cast<float>(t);
        const wire::Frame frame = block.ToFrame(4);
        ASSERT_EQ(block.floats()[0], static_cast<float>(t));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace basin
