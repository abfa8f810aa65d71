#include "ps/input_queue.h"

#include <gtest/gtest.h>

#include <set>

namespace basin {
namespace {

wire::v1::Input InputOf(uint64_t items, uint64_t piece_items, uint32_t epochs, uint64_t seed = 0) {
  wire::v1::Input input;
  input.set_name("train");
  input.set_items(items);
  input.set_piece_items(piece_items);
  input.set_epochs(epochs);
  input.set_shuffle_seed(seed);
  return input;
}
constexpr Incarnation kA(1), kB(2);

TEST(InputQueueTest, PiecesCoverEveryItemOfEveryEpochOnce) {
  for (const uint64_t seed : {0, 7}) {
    InputQueue queue(InputOf(10, 3, 2, seed));
    ASSERT_EQ(queue.total(), 8u);
    std::set<std::pair<uint32_t, uint64_t>> items;
    for (uint64_t n = 1; n <= 8; ++n) {
      const auto piece = **queue.Next(kA, n);
      for (uint64_t item = piece.begin(); item < piece.end_item(); ++item)
        EXPECT_TRUE(items.emplace(piece.epoch(), item).second);
      EXPECT_TRUE(queue.Done(kA, piece.piece()).ok());
    }
    EXPECT_EQ(items.size(), 20u);
    EXPECT_TRUE((*queue.Next(kA, 9))->end());
  }
}

TEST(InputQueueTest, TheShuffleDependsOnSeedAndEpochAlone) {
  InputQueue a(InputOf(1000, 1, 2, 3)), b(InputOf(1000, 1, 2, 3)), c(InputOf(1000, 1, 2, 4));
  int moved = 0, differ = 0;
  for (uint64_t n = 1; n <= 1000; ++n) {
    const auto piece = **a.Next(kA, n);
    EXPECT_EQ(piece.begin(), (*b.Next(kA, n))->begin());
    differ += piece.begin() != (*c.Next(kA, n))->begin();
    moved += piece.begin() != n - 1;
  }
  EXPECT_GT(moved, 900);
  EXPECT_GT(differ, 900);
}

TEST(InputQueueTest, ARepeatedNumberGetsTheSamePiece) {
  InputQueue queue(InputOf(3, 1, 1));
  EXPECT_EQ((*queue.Next(kA, 1))->piece(), (*queue.Next(kA, 1))->piece());
  EXPECT_EQ(queue.leased(), 1u);
  EXPECT_EQ(queue.Next(kA, 3).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(queue.Next(kA, 0).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(InputQueueTest, ALeaseThatWentBackIsHandedOutFirstAndNotCountedForItsLoser) {
  InputQueue queue(InputOf(2, 1, 1));
  const uint64_t piece = (*queue.Next(kA, 1))->piece();
  queue.Return(kA);
  EXPECT_EQ(queue.Done(kA, piece).code(), absl::StatusCode::kAborted);
  EXPECT_EQ((*queue.Next(kB, 1))->piece(), piece);
  EXPECT_EQ(queue.Done(kA, piece).code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(queue.Done(kB, piece).ok());
  EXPECT_EQ(queue.done(), 1u);
}

TEST(InputQueueTest, DoneIsCountedOnce) {
  InputQueue queue(InputOf(2, 1, 1));
  const uint64_t piece = (*queue.Next(kA, 1))->piece();
  EXPECT_TRUE(queue.Done(kA, piece).ok());
  EXPECT_TRUE(queue.Done(kA, piece).ok());
  EXPECT_EQ(queue.done(), 1u);
  EXPECT_EQ(queue.Done(kB, piece).code(), absl::StatusCode::kAborted);
}

TEST(InputQueueTest, WhileTheLastPiecesAreLeasedTheOthersWait) {
  InputQueue queue(InputOf(1, 1, 1));
  const uint64_t piece = (*queue.Next(kA, 1))->piece();
  EXPECT_FALSE(*queue.Next(kB, 1));
  EXPECT_TRUE(queue.Done(kA, piece).ok());
  EXPECT_TRUE((*queue.Next(kB, 1))->end());
}

TEST(InputQueueTest, AnInputWithoutItemsEndsAtOnce) {
  InputQueue queue(InputOf(0, 5, 3));
  EXPECT_TRUE((*queue.Next(kA, 1))->end());
}

TEST(PermuteTest, IsAPermutationOfAnySize) {
  for (const uint64_t n : {1, 2, 3, 7, 64, 1000}) {
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < n; ++i) {
      EXPECT_LT(Permute(i, n, 5), n);
      seen.insert(Permute(i, n, 5));
    }
    EXPECT_EQ(seen.size(), n);
  }
}

}  // namespace
}  // namespace basin
