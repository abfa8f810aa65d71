#include "common/wire/registered_memory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>
#include <vector>

namespace basin::wire {
namespace {

bool IsZero(const void* data, size_t bytes) {
  const char* begin = static_cast<const char*>(data);
  return std::all_of(begin, begin + bytes, [](char c) { return c == 0; });
}

int OpenDescriptors() {
  const std::filesystem::directory_iterator fds("/proc/self/fd");
  return static_cast<int>(std::distance(begin(fds), end(fds)));
}

TEST(RegisteredMemoryTest, IsAlignedZeroAndFound) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{64}, size_t{100'000}, size_t{64} << 20}) {
    auto* data = static_cast<char*>(AllocateRegistered(bytes));
    ASSERT_NE(data, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u);
    EXPECT_TRUE(IsZero(data, bytes));
    const auto whole = FindRegistered(data, bytes);
    ASSERT_TRUE(whole.has_value());
    EXPECT_GE(whole->fd, 0);
    EXPECT_LE(whole->offset + bytes, whole->segment_bytes);
    if (bytes > 100) {
      const auto part = FindRegistered(data + 64, 36);
      ASSERT_TRUE(part.has_value());
      EXPECT_EQ(part->segment, whole->segment);
      EXPECT_EQ(part->offset, whole->offset + 64);
    }
    DeallocateRegistered(data);
  }
}

TEST(RegisteredMemoryTest, OrdinaryMemoryIsNotFound) {
  void* registered = AllocateRegistered(64);
  const std::vector<char> ordinary(100'000);
  EXPECT_FALSE(FindRegistered(ordinary.data(), ordinary.size()).has_value());
  const auto range = FindRegistered(registered, 64);
  ASSERT_TRUE(range.has_value());
  EXPECT_FALSE(FindRegistered(registered, range->segment_bytes + 1).has_value());
  DeallocateRegistered(registered);
  DeallocateRegistered(nullptr);
}

TEST(RegisteredMemoryTest, ManySmallPiecesShareASegment) {
  DeallocateRegistered(AllocateRegistered(64));
  const int before = OpenDescriptors();
  std::vector<void*> pieces;
  std::set<uint64_t> segments;
  for (int i = 0; i < 1000; ++i) {
    pieces.push_back(AllocateRegistered(64 + i));
    segments.insert(FindRegistered(pieces.back(), 64)->segment);
  }
  EXPECT_EQ(segments.size(), 1u);
  EXPECT_EQ(OpenDescriptors(), before);
  for (void* piece : pieces) DeallocateRegistered(piece);
}

TEST(RegisteredMemoryTest, IsZeroAgainWhenItIsGivenOutAgain) {
  for (const size_t bytes : {size_t{200}, size_t{70'000}, size_t{3'000'000}}) {
    void* first = AllocateRegistered(bytes);
    std::memset(first, 0xff, bytes);
    void* neighbour = AllocateRegistered(64);
    std::memset(neighbour, 0x7f, 64);
    DeallocateRegistered(first);
    EXPECT_EQ(*static_cast<char*>(neighbour), 0x7f);
    void* second = AllocateRegistered(bytes);
    EXPECT_EQ(second, first);
    EXPECT_TRUE(IsZero(second, bytes));
    DeallocateRegistered(second);
    DeallocateRegistered(neighbour);
  }
}

TEST(RegisteredMemoryTest, AForkedChildHasItsOwn) {
  auto* mine = static_cast<int*>(AllocateRegistered(4096));
  mine[0] = 7;
  const pid_t child = fork();
  if (child == 0) {
    // What a child gets is never a place that its parent could give out too.
    auto* its = static_cast<int*>(AllocateRegistered(4096));
    const bool sound =
        its != nullptr && mine[0] == 7 && !FindRegistered(mine, 64).has_value() && FindRegistered(its, 64).has_value();
    its[0] = 9;
    DeallocateRegistered(mine);  // the parent's: nothing happens
    _exit(sound && mine[0] == 7 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(mine[0], 7);
  auto* next = static_cast<int*>(AllocateRegistered(4096));
  EXPECT_TRUE(IsZero(next, 4096));
  DeallocateRegistered(next);
  DeallocateRegistered(mine);
}

}  // namespace
}  // namespace basin::wire
