#include "worker/client/narrowed_push.h"

#include <gtest/gtest.h>

#include <cstring>

namespace basin {
namespace {

TEST(SpareMemoryTest, WhatComesBackIsGivenOutAgain) {
  const std::shared_ptr<SpareMemory> spare = SpareMemory::Make(size_t{1} << 20);
  const void* const first = spare->Take(100'000).get();
  std::shared_ptr<char> held = spare->Take(70'000);  // of the same power of two
  EXPECT_EQ(held.get(), first);
  EXPECT_NE(spare->Take(100'000).get(), first);
  EXPECT_NE(spare->Take(10).get(), first);
  held.reset();
  EXPECT_EQ(spare->Take(131'072).get(), first);
}

TEST(SpareMemoryTest, MemoryMayOutliveItsClient) {
  std::shared_ptr<SpareMemory> spare = SpareMemory::Make(0);
  const std::shared_ptr<char> held = spare->Take(5000);
  spare.reset();
  std::memset(held.get(), 1, 5000);
}

}  // namespace
}  // namespace basin
