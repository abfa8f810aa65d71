// Tables that forget: rows unused for a time, and a bound on memory far below what the keys would need.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <vector>

#include "common/base/random.h"
#include "ps/block.h"
#include "ps/table/host_table.h"

namespace basin {
namespace {

constexpr float kRateOfRule = std::numeric_limits<float>::quiet_NaN();
const absl::Time kEvictStart = absl::FromUnixSeconds(1'700'000'000);

StoredTableOptions CountingOptions(uint32_t dim) {
  StoredTableOptions options;
  options.name = "emb";
  options.dim = dim;
  options.init = {.kind = InitKind::kZeros};
  options.rule.learning_rate = 1;
  return options;
}

std::vector<uint64_t> Keys(uint64_t begin, uint64_t end) {
  std::vector<uint64_t> keys;
  for (uint64_t i = begin; i < end; ++i) keys.push_back(Mix64(i));
  return keys;
}

void TouchAt(HostTable& table, const std::vector<uint64_t>& keys, uint32_t dim, absl::Time now) {
  const std::vector<float> gradients(keys.size() * dim, 1.0f);
  ASSERT_TRUE(table
                  .Push(reinterpret_cast<const char*>(keys.data()), keys.size(),
                        reinterpret_cast<const char*>(gradients.data()), kRateOfRule, now)
                  .ok());
}

// The first element of each key's row: minus the pushes since the row was made, or 0 without one.
std::vector<float> First(const HostTable& table, const std::vector<uint64_t>& keys, uint32_t dim) {
  std::vector<float> rows(keys.size() * dim);
  table.Pull(reinterpret_cast<const char*>(keys.data()), keys.size(), reinterpret_cast<char*>(rows.data()));
  std::vector<float> first;
  for (size_t i = 0; i < keys.size(); ++i) first.push_back(rows[i * dim]);
  return first;
}

size_t Present(const HostTable& table, const std::vector<uint64_t>& keys, uint32_t dim) {
  const std::vector<float> first = First(table, keys, dim);
  return static_cast<size_t>(std::count_if(first.begin(), first.end(), [](float value) { return value != 0; }));
}

void EvictAll(HostTable& table, absl::Time now) {
  int calls = 0;
  while (table.EvictUnused(now)) ASSERT_LT(++calls, 100'000);
}

TEST(TableEvictTest, RowsUnusedForTheTimeAreForgottenAndTheirKeysReported) {
  StoredTableOptions options = CountingOptions(3);
  options.evict_unused = absl::Seconds(10);
  HostTable table(options, BlockPool::Make(0));
  TouchAt(table, Keys(0, 20'000), 3, kEvictStart);
  TouchAt(table, Keys(0, 5'000), 3, kEvictStart + absl::Seconds(6));
  EvictAll(table, kEvictStart + absl::Seconds(9));
  EXPECT_EQ(table.counters().rows, 20'000u);
  EvictAll(table, kEvictStart + absl::Seconds(10));
  EXPECT_EQ(table.counters().rows, 5'000u);
  EXPECT_EQ(table.counters().evicted, 15'000u);
  EXPECT_EQ(Present(table, Keys(0, 5'000), 3), 5'000u);
  EXPECT_EQ(Present(table, Keys(5'000, 20'000), 3), 0u);
  std::vector<uint64_t> evicted;
  EXPECT_EQ(table.Evicted(0, 100'000, &evicted), 0u);
  std::vector<uint64_t> expected = Keys(5'000, 20'000);
  std::sort(evicted.begin(), evicted.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(evicted, expected);
  // A key that comes back starts anew.
  TouchAt(table, Keys(19'999, 20'000), 3, kEvictStart + absl::Seconds(11));
  EXPECT_EQ(First(table, Keys(19'999, 20'000), 3), std::vector<float>{-1});
}

TEST(TableEvictTest, FreedRowsAreUsedAgain) {
  StoredTableOptions options = CountingOptions(16);
  options.evict_unused = absl::Seconds(1);
  HostTable table(options, BlockPool::Make(0));
  TouchAt(table, Keys(0, 10'000), 16, kEvictStart);
  const uint64_t bytes = table.counters().bytes;
  for (int round = 1; round < 20; ++round) {
    const absl::Time now = kEvictStart + absl::Seconds(10 * round);
    EvictAll(table, now);
    EXPECT_EQ(table.counters().rows, 0u);
    TouchAt(table, Keys(10'000 * round, 10'000 * (round + 1)), 16, now);
    EXPECT_EQ(Present(table, Keys(10'000 * round, 10'000 * (round + 1)), 16), 10'000u);
  }
  EXPECT_LE(table.counters().bytes, bytes + bytes / 4);
}

TEST(TableEvictTest, CandidatesAreForgottenAfterTheTimeAndNotReported) {
  StoredTableOptions options = CountingOptions(1);
  options.evict_unused = absl::Seconds(5);
  options.admit_after = 2;
  HostTable table(options, BlockPool::Make(0));
  TouchAt(table, Keys(0, 1'000), 1, kEvictStart);
  EvictAll(table, kEvictStart + absl::Seconds(5));
  EXPECT_EQ(table.counters().candidates, 0u);
  EXPECT_EQ(table.evicted_end(), 0u);
  TouchAt(table, Keys(0, 1'000), 1, kEvictStart + absl::Seconds(6));
  EXPECT_EQ(table.counters().rows, 0u) << "the count starts anew";
}

TEST(TableEvictTest, ACallLooksAtABoundedNumberOfRows) {
  StoredTableOptions options = CountingOptions(1);
  options.evict_unused = absl::Seconds(1);
  HostTable table(options, BlockPool::Make(0));
  TouchAt(table, Keys(0, 100'000), 1, kEvictStart);
  const absl::Time now = kEvictStart + absl::Seconds(3);
  bool more = true;
  for (uint64_t before = 0; more; before = table.counters().evicted) {
    more = table.EvictUnused(now);
    EXPECT_LE(table.counters().evicted - before, 8'192u);
  }
  EXPECT_EQ(table.counters().rows, 0u);
}

// Whichever bound: rows made = rows + evicted, and bytes stay below.
void ExpectBounded(const StoredTableOptions& options, size_t pool_bytes, size_t bound) {
  HostTable table(options, BlockPool::Make(pool_bytes));
  Random random(3);
  uint64_t pushed = 0;
  uint64_t most_rows = 0;
  for (int push = 0; push < 300; ++push) {
    std::vector<uint64_t> keys(1'000);
    for (uint64_t& key : keys) key = random.Below(200'000);
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    TouchAt(table, keys, options.dim, kEvictStart + absl::Seconds(push));
    pushed += keys.size();
    const TableCounters counters = table.counters();
    ASSERT_LE(counters.bytes, bound);
    most_rows = std::max(most_rows, counters.rows);
    // The rows of the push itself are there: it made room among older ones.
    if (counters.rows > 4'000) {
      ASSERT_GE(Present(table, keys, options.dim), keys.size() * 9 / 10) << push;
    }
  }
  const TableCounters counters = table.counters();
  EXPECT_EQ(counters.dropped_gradients, 0u);
  EXPECT_GT(counters.evicted, 0u);
  EXPECT_EQ(counters.evicted, table.evicted_end());
  EXPECT_LE(counters.rows + counters.evicted, pushed);
  // The memory is used: the rows that are there, with their index, fill most of the bound.
  EXPECT_GE(most_rows * (options.dim * sizeof(float) + 16), bound * 6 / 10);
  std::vector<uint64_t> every;
  for (uint64_t key = 0; key < 200'000; ++key) every.push_back(key);
  EXPECT_EQ(Present(table, every, options.dim), counters.rows);
}

TEST(TableEvictTest, AtTheBoundOfTheTablePushesMakeRoom) {
  for (const uint32_t dim : {1u, 16u, 256u}) {
    StoredTableOptions options = CountingOptions(dim);
    options.max_bytes = dim == 1 ? 1 << 20 : 4 << 20;
    ExpectBounded(options, 0, options.max_bytes);
  }
}

TEST(TableEvictTest, AtTheBoundOfThePoolPushesMakeRoom) { ExpectBounded(CountingOptions(16), 3 << 20, 3 << 20); }

TEST(TableEvictTest, WhatWasPushedLatelyStays) {
  StoredTableOptions options = CountingOptions(16);
  options.max_bytes = 2 << 20;
  HostTable table(options, BlockPool::Make(0));
  const std::vector<uint64_t> hot = Keys(0, 2'000);
  for (int round = 0; round < 100; ++round) {
    const absl::Time now = kEvictStart + absl::Seconds(round);
    TouchAt(table, hot, 16, now);
    TouchAt(table, Keys(10'000 + 3'000 * round, 13'000 + 3'000 * round), 16, now);
  }
  const std::vector<float> first = First(table, hot, 16);
  EXPECT_GE(std::count(first.begin(), first.end(), -100.0f), 1'950) << "hot rows were evicted on the way";
  EXPECT_GT(table.counters().evicted, 250'000u);
}

TEST(TableEvictTest, CandidatesGoFirst) {
  StoredTableOptions options = CountingOptions(16);
  options.max_bytes = 2 << 20;
  options.admit_after = 2;
  HostTable table(options, BlockPool::Make(0));
  const std::vector<uint64_t> kept = Keys(0, 5'000);
  TouchAt(table, kept, 16, kEvictStart);
  TouchAt(table, kept, 16, kEvictStart);
  ASSERT_EQ(table.counters().rows, 5'000u);
  // A flood of keys that come once, all of them later than the rows.
  for (int round = 1; round < 200; ++round) {
    TouchAt(table, Keys(10'000 * round, 10'000 * (round + 1)), 16, kEvictStart + absl::Seconds(round));
  }
  const TableCounters counters = table.counters();
  EXPECT_EQ(counters.rows, 5'000u);
  EXPECT_EQ(counters.evicted, 0u);
  EXPECT_LE(counters.bytes, options.max_bytes);
  EXPECT_GT(counters.candidates, 1'000u);
  EXPECT_EQ(counters.dropped_gradients, 5'000u + 1'990'000u);
}

TEST(TableEvictTest, RowsThatFillAlmostNothingStillMakeProgress) {
  // Fewer rows fit than a push has keys, and every call has the same time.
  StoredTableOptions options = CountingOptions(4096);
  options.rule.kind = RuleKind::kAdam;
  options.max_bytes = 256 << 10;
  HostTable table(options, BlockPool::Make(0));
  for (int round = 0; round < 20; ++round) TouchAt(table, Keys(100 * round, 100 * (round + 1)), 4096, kEvictStart);
  const TableCounters counters = table.counters();
  EXPECT_GT(counters.rows, 0u);
  EXPECT_EQ(counters.rows + counters.evicted, 2'000u);
  EXPECT_EQ(counters.dropped_gradients, 0u);
}

TEST(TableEvictTest, WithoutMemoryForOneRowGradientsAreDroppedAndCounted) {
  const auto pool = BlockPool::Make(1024);
  HostTable table(CountingOptions(16), pool);
  TouchAt(table, Keys(0, 100), 16, kEvictStart);
  EXPECT_EQ(table.counters().rows, 0u);
  EXPECT_EQ(table.counters().dropped_gradients, 100u);
  EXPECT_EQ(Present(table, Keys(0, 100), 16), 0u);
}

TEST(TableEvictTest, TheMemoryOfATableIsPlannedAndGoesBack) {
  const auto pool = BlockPool::Make(0);
  {
    HostTable table(CountingOptions(16), pool);
    TouchAt(table, Keys(0, 50'000), 16, kEvictStart);
    EXPECT_GE(table.counters().bytes, pool->planned_bytes());
    EXPECT_EQ(pool->planned_bytes(), pool->mapped_bytes());
    EXPECT_GT(pool->planned_bytes(), 50'000u * 64);
  }
  EXPECT_EQ(pool->planned_bytes(), 0u);
}

TEST(TableEvictTest, KeysThatWereChosenToCollideTakeNoMemoryWithoutEnd) {
  // The inverse of the hash is known: all of these share their hash's upper 40 bits.
  const auto unmix = [](uint64_t x) {
    x ^= x >> 31 ^ x >> 62;
    x *= 0x319642b2d24d8ec3ull;
    x ^= x >> 27 ^ x >> 54;
    x *= 0x96de1b173f119089ull;
    x ^= x >> 30 ^ x >> 60;
    return x - 0x9e3779b97f4a7c15ull;
  };
  ASSERT_EQ(Mix64(unmix(12345)), 12345u);
  HostTable table(CountingOptions(1), BlockPool::Make(0));
  std::vector<uint64_t> keys;
  for (uint64_t i = 0; i < 20'000; ++i) keys.push_back(unmix(0xabcdef0123ull << 24 | i));
  TouchAt(table, keys, 1, kEvictStart);
  EXPECT_LT(table.counters().bytes, 1u << 20);
  EXPECT_GT(table.counters().rows, 1'000u);
  EXPECT_EQ(table.counters().rows + table.counters().evicted, 20'000u);
}

TEST(TableEvictTest, TheOldestEvictedKeysAreForgotten) {
  StoredTableOptions options = CountingOptions(1);
  options.evict_unused = absl::Seconds(1);
  HostTable table(options, BlockPool::Make(0));
  uint64_t made = 0;
  for (int round = 0; round < 13; ++round) {
    const absl::Time now = kEvictStart + absl::Seconds(10 * round);
    TouchAt(table, Keys(made, made + 100'000), 1, now);
    made += 100'000;
    EvictAll(table, now + absl::Seconds(5));
  }
  EXPECT_EQ(table.evicted_end(), made);
  std::vector<uint64_t> keys;
  const uint64_t first = table.Evicted(0, 10, &keys);
  EXPECT_EQ(first, made - HostTable::kRemembered);
  EXPECT_EQ(keys.size(), 10u);
  keys.clear();
  EXPECT_EQ(table.Evicted(made - 5, 10, &keys), made - 5);
  EXPECT_EQ(keys.size(), 5u);
  std::set<uint64_t> last;
  for (const uint64_t key : Keys(made - 100'000, made)) last.insert(key);
  for (const uint64_t key : keys) EXPECT_TRUE(last.contains(key));
}

// With one float a row the index is most of it; with 16, blocks that are taken and not full yet weigh more while the
// table is small, hence the later start.
TEST(TableEvictTest, ARowCostsAtMost24BytesMoreThanItsPayload) {
  struct Case {
    uint32_t dim;
    uint64_t from;
  };
  for (const Case& c : {Case{1, 0}, Case{16, 500'000}}) {
    HostTable table(CountingOptions(c.dim), BlockPool::Make(0));
    double sum = 0;
    int points = 0;
    constexpr uint64_t kRows = 2'000'000;
    for (uint64_t rows = 0; rows < kRows; rows += 5'000) {
      TouchAt(table, Keys(rows, rows + 5'000), c.dim, kEvictStart);
      if (rows < c.from) continue;
      sum += static_cast<double>(table.counters().bytes) / static_cast<double>(rows + 5'000) - c.dim * sizeof(float);
      ++points;
    }
    EXPECT_LE(sum / points, 24) << c.dim;
    EXPECT_EQ(table.counters().rows, kRows);
  }
}

}  // namespace
}  // namespace basin
