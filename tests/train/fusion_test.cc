#include "worker/train/fusion.h"

#include <gtest/gtest.h>

namespace basin {
namespace {

using Parts = std::vector<std::pair<size_t, uint64_t>>;

Parts Of(const FusedBuffer& buffer) {
  Parts parts;
  for (const FusedBuffer::Part& part : buffer.parts) parts.emplace_back(part.variable, part.begin);
  return parts;
}

TEST(FuseBackwardTest, FillsBuffersFromTheLastVariableOn) {
  // Bytes: 4000, 40, 400, 40.
  const std::vector<FusedBuffer> buffers = FuseBackward({1000, 10, 100, 10}, 600);
  ASSERT_EQ(buffers.size(), 2u);
  EXPECT_EQ(Of(buffers[0]), (Parts{{3, 0}, {2, 16}, {1, 128}}));
  EXPECT_EQ(buffers[0].elements, 144u);
  EXPECT_EQ(Of(buffers[1]), (Parts{{0, 0}}));
  EXPECT_EQ(buffers[1].elements, 1008u);
}

TEST(FuseBackwardTest, WithoutRoomEachVariableHasItsOwn) {
  EXPECT_EQ(FuseBackward({3, 4, 5}, 0).size(), 3u);
  EXPECT_EQ(FuseBackward({3, 4, 5}, uint64_t{1} << 32).size(), 1u);
  EXPECT_TRUE(FuseBackward({}, 0).empty());
}

TEST(FuseBackwardTest, ALargeVariableEndsTheBufferBeforeIt) {
  const std::vector<FusedBuffer> buffers = FuseBackward({10, 1000, 10}, 256);
  ASSERT_EQ(buffers.size(), 3u);
  EXPECT_EQ(Of(buffers[1]), (Parts{{1, 0}}));
}

}  // namespace
}  // namespace basin
