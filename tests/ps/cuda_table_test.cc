// The device's table beside the host's rules: a map from a key to its row, started by FillRow and changed by RowRule.
#include "ps/table/device/cuda_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/key_hash.h"
#include "common/base/random.h"
#include "tests/device/on_device.h"

namespace basin {
namespace {

using Keys = std::vector<uint64_t>;
using Floats = std::vector<float>;
using Numbers = std::vector<uint32_t>;

constexpr uint64_t kLargest = std::numeric_limits<uint64_t>::max();

uint64_t BytesFor(const StoredTableOptions& options, uint32_t buckets) {
  const CudaRowLayout layout = MakeCudaRowLayout(options.rule, options.storage, options.dim);
  return (uint64_t{16} * buckets + 2) * (layout.stride + 12);
}

StoredTableOptions OptionsOf(uint32_t dim, uint32_t buckets, RuleKind kind = RuleKind::kSgd,
                             DType storage = DType::kF32) {
  StoredTableOptions options;
  options.name = "emb";
  options.dim = dim;
  options.storage = storage;
  options.init = {.kind = InitKind::kUniform, .a = -0.5f, .b = 0.25f, .seed = 7};
  options.rule.kind = kind;
  options.rule.learning_rate = 0.0625f;
  options.rule.l1 = 0.01f;
  options.max_bytes = BytesFor(options, buckets);
  return options;
}

class CudaTableTest : public OnDeviceTest {
 protected:
  std::unique_ptr<CudaTable> Make(const StoredTableOptions& options) {
    absl::StatusOr<std::unique_ptr<CudaTable>> table = CudaTable::Make("test", options, stream_);
    EXPECT_TRUE(table.ok()) << table.status();
    return *std::move(table);
  }
  Numbers FindOrInsert(CudaTable& table, const Keys& keys, uint32_t stamp = 1) {
    const OnDevice<uint64_t> there(keys);
    const OnDevice<uint32_t> numbers(Numbers(keys.size(), 1234567));
    EXPECT_TRUE(table.FindOrInsert(there.data(), keys.size(), stamp, nullptr, numbers.data()).ok());
    return numbers.Copy();
  }
  Floats Pull(const CudaTable& table, const Keys& keys, uint32_t dim) {
    const OnDevice<uint64_t> there(keys);
    const OnDevice<float> rows(Floats(keys.size() * dim, -77));
    EXPECT_TRUE(table.Pull(there.data(), keys.size(), rows.data()).ok());
    return rows.Copy();
  }
  void Push(CudaTable& table, const Keys& keys, const Floats& gradients, float rate, const uint32_t* bad_key = nullptr,
            uint32_t stamp = 1) {
    const OnDevice<uint64_t> there(keys);
    const OnDevice<uint32_t> numbers(Numbers(keys.size(), kNoCudaRow));
    const OnDevice<float> gradients_there(gradients);
    EXPECT_TRUE(table.FindOrInsert(there.data(), keys.size(), stamp, bad_key, numbers.data()).ok());
    EXPECT_TRUE(table.Apply(there.data(), numbers.data(), keys.size(), gradients_there.data(), rate, bad_key).ok());
    ExpectCuda(cudaStreamSynchronize(stream_));
  }
  CudaTableCounters Counters(const CudaTable& table) {
    absl::StatusOr<CudaTableCounters> counters = table.Counters();
    EXPECT_TRUE(counters.ok()) << counters.status();
    return *counters;
  }
  // All rows, as the host has them.
  std::map<uint64_t, std::string> Rows(const CudaTable& table) {
    Keys keys;
    std::vector<char> rows;
    EXPECT_TRUE(table.Export(0, table.numbers() / 2, &keys, &rows).ok());
    EXPECT_TRUE(table.Export(table.numbers() / 2, table.numbers(), &keys, &rows).ok());
    std::map<uint64_t, std::string> found;
    for (size_t i = 0; i < keys.size(); ++i) {
      const bool first = found.emplace(keys[i], std::string(&rows[i * table.row_bytes()], table.row_bytes())).second;
      EXPECT_TRUE(first) << "key " << keys[i] << " has two rows";
    }
    return found;
  }
};

// What the table should hold.
class Reference {
 public:
  explicit Reference(const StoredTableOptions& options)
      : options_(options), rule_(options.rule, options.storage, options.dim) {}

  void Push(const Keys& keys, const Floats& gradients, float rate) {
    for (size_t i = 0; i < keys.size(); ++i) {
      std::string& row = rows_[keys[i]];
      if (row.empty()) {
        row.resize(rule_.row_bytes());
        rule_.Start(Initial(keys[i]).data(), row.data());
      }
      char* at = row.data();
      const char* gradient = reinterpret_cast<const char*>(&gradients[i * options_.dim]);
      rule_.Apply(rate, 1, &at, &gradient, &keys[i]);
    }
  }
  Floats Initial(uint64_t key) const {
    Floats values(options_.dim);
    FillRow(options_.init, key, absl::MakeSpan(values));
    return values;
  }
  Floats Pull(const Keys& keys) const {
    Floats values;
    for (const uint64_t key : keys) {
      Floats row = Initial(key);
      rule_.Rounded(row.data());
      if (const auto found = rows_.find(key); found != rows_.end()) {
        const char* from = found->second.data();
        char* to = reinterpret_cast<char*>(row.data());
        rule_.Read(1, &from, &to);
      }
      values.insert(values.end(), row.begin(), row.end());
    }
    return values;
  }
  const std::map<uint64_t, std::string>& rows() const { return rows_; }

 private:
  const StoredTableOptions options_;
  const RowRule rule_;
  std::map<uint64_t, std::string> rows_;
};

Keys DifferentKeys(Random& random, size_t count, uint64_t below) {
  std::set<uint64_t> keys;
  while (keys.size() < count) keys.insert(random.Below(below));
  return {keys.begin(), keys.end()};
}

TEST_F(CudaTableTest, EachRuleStorageAndLengthGivesTheHostsBits) {
  for (const RuleKind kind : {RuleKind::kSgd, RuleKind::kMomentum, RuleKind::kAdagrad, RuleKind::kAdam, RuleKind::kFtrl,
                              RuleKind::kRowwiseAdagrad}) {
    for (const DType storage : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const uint32_t dim : {1, 3, 12, 64, 200}) {
        SCOPED_TRACE(absl::StrCat(Name(kind), ", storage ", static_cast<int>(storage), ", dim ", dim));
        const StoredTableOptions options = OptionsOf(dim, 20, kind, storage);
        const std::unique_ptr<CudaTable> table = Make(options);
        Reference reference(options);
        Random random(dim);
        for (const float rate : {0.0625f, 0.5f, 0.0f}) {
          const Keys keys = DifferentKeys(random, 60, 100);
          Floats gradients(keys.size() * dim);
          for (float& g : gradients) g = static_cast<float>(random.Unit() - 0.5);
          Push(*table, keys, gradients, rate);
          reference.Push(keys, gradients, rate);
        }
        EXPECT_EQ(Rows(*table), reference.rows());
        const Keys keys = DifferentKeys(random, 100, 150);
        EXPECT_EQ(Pull(*table, keys, dim), reference.Pull(keys));
        EXPECT_EQ(Counters(*table).rows, reference.rows().size());
      }
    }
  }
}

TEST_F(CudaTableTest, ConstantZeroAndNormalRowsBeginAsOnTheHost) {
  for (const InitKind kind : {InitKind::kZeros, InitKind::kConstant, InitKind::kNormal}) {
    StoredTableOptions options = OptionsOf(5, 20);
    options.init = {.kind = kind, .a = 0.5f, .b = 0.25f, .seed = 7};
    const Keys keys = {0, 1, 2, kLargest};
    const std::unique_ptr<CudaTable> table = Make(options);
    const Floats found = Pull(*table, keys, 5), expected = Reference(options).Pull(keys);
    // Another library's logarithm and cosine: the last bit of a float.
    for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], std::abs(expected[i]) * 0x1p-23);
    FindOrInsert(*table, keys);
    EXPECT_EQ(Pull(*table, keys, 5), found) << "a row changes as it is made";
  }
}

TEST_F(CudaTableTest, KeysThatRepeatInABatchHaveOneRow) {
  const std::unique_ptr<CudaTable> table = Make(OptionsOf(4, 100));
  Random random(1);
  Keys keys(5000);
  for (uint64_t& key : keys) key = random.Chance(0.1) ? kLargest - random.Below(4) : random.Below(700);
  const Numbers numbers = FindOrInsert(*table, keys);
  std::map<uint64_t, uint32_t> number_of;
  std::set<uint32_t> taken;
  for (size_t i = 0; i < keys.size(); ++i) {
    ASSERT_LT(numbers[i], table->numbers());
    const auto [at, first] = number_of.emplace(keys[i], numbers[i]);
    ASSERT_EQ(at->second, numbers[i]) << "key " << keys[i];
    if (first) {
      EXPECT_TRUE(taken.insert(numbers[i]).second) << "two keys share a row";
    }
  }
  EXPECT_EQ(Counters(*table).rows, number_of.size());
  EXPECT_EQ(Rows(*table).size(), number_of.size());
  EXPECT_EQ(FindOrInsert(*table, keys), numbers) << "keys moved";
  EXPECT_EQ(Counters(*table).rows, number_of.size());
}

TEST_F(CudaTableTest, TheKeysThatMarkFreeNumbersAreKeysToo) {
  const StoredTableOptions options = OptionsOf(3, 1);
  const std::unique_ptr<CudaTable> table = Make(options);
  Reference reference(options);
  const Keys keys = {kLargest, kLargest - 1, kLargest - 2, 0};
  EXPECT_EQ(Pull(*table, keys, 3), reference.Pull(keys));
  EXPECT_EQ(Counters(*table).rows, 0);
  const Floats gradients(12, 0.5f);
  Push(*table, {keys[0], keys[3]}, Floats(6, 0.5f), 1);
  reference.Push({keys[0], keys[3]}, Floats(6, 0.5f), 1);
  EXPECT_EQ(Rows(*table), reference.rows());
  Push(*table, keys, gradients, 1);
  reference.Push(keys, gradients, 1);
  EXPECT_EQ(Rows(*table), reference.rows());
  EXPECT_EQ(Pull(*table, keys, 3), reference.Pull(keys));
  EXPECT_EQ(Counters(*table).rows, 4);
}

TEST_F(CudaTableTest, AFullTableRefusesCountsAndKeepsWhatItHas) {
  const StoredTableOptions options = OptionsOf(4, 4);  // all of it is one window
  const std::unique_ptr<CudaTable> table = Make(options);
  ASSERT_EQ(table->numbers(), 66);
  Random random(3);
  const Keys keys = DifferentKeys(random, 200, 1 << 20);
  const Numbers numbers = FindOrInsert(*table, keys);
  Keys in;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (numbers[i] != kNoCudaRow) in.push_back(keys[i]);
  }
  EXPECT_EQ(in.size(), 64);
  EXPECT_EQ(Counters(*table).rows, 64);
  EXPECT_EQ(Counters(*table).refused, 136);
  Reference reference(options);
  Floats gradients(keys.size() * 4);
  for (size_t i = 0; i < gradients.size(); ++i) gradients[i] = static_cast<float>(i / 4);
  Push(*table, keys, gradients, 1);
  for (size_t i = 0; i < keys.size(); ++i) {
    if (numbers[i] != kNoCudaRow) reference.Push({keys[i]}, Floats(4, static_cast<float>(i)), 1);
  }
  EXPECT_EQ(Rows(*table), reference.rows());
  EXPECT_EQ(Pull(*table, keys, 4), reference.Pull(keys)) << "a key without a row has its initial values";
  EXPECT_EQ(Counters(*table).refused, 2 * 136);
}

TEST_F(CudaTableTest, SearchesGoOnAcrossTheEndAndNoFurtherThanTheWindow) {
  constexpr uint32_t kBuckets = 10;
  const StoredTableOptions options = OptionsOf(2, kBuckets);
  const std::unique_ptr<CudaTable> table = Make(options);
  Keys keys;  // of the last bucket
  for (uint64_t key = 0; keys.size() < 200; ++key) {
    if ((KeyHash(key) & 0xffffffff) * kBuckets >> 32 == kBuckets - 1) keys.push_back(key);
  }
  const Numbers numbers = FindOrInsert(*table, keys);
  std::set<uint32_t> taken;
  for (const uint32_t number : numbers) {
    if (number != kNoCudaRow) taken.insert(number);
  }
  ASSERT_EQ(taken.size(), CudaTable::kWindow * 16);
  for (const uint32_t number : taken) EXPECT_TRUE(number < 7 * 16 || (number >= 9 * 16 && number < 160)) << number;
  EXPECT_EQ(FindOrInsert(*table, keys), numbers);
  EXPECT_EQ(Pull(*table, keys, 2), Reference(options).Pull(keys));
}

TEST_F(CudaTableTest, RowsNotPushedForLongAreEvictedAndTheirRoomIsUsedAgain) {
  const StoredTableOptions options = OptionsOf(2, 4);
  const std::unique_ptr<CudaTable> table = Make(options);
  Random random(5);
  for (uint32_t round = 1; round <= 20; ++round) {
    // Half of the rows stay from one round to the next.
    Keys keys = {round, round + 1, kLargest - round % 2};
    while (keys.size() < 40) keys.push_back(1000 * (round + keys.size() % 2) + keys.size() / 2);
    for (const uint32_t number : FindOrInsert(*table, keys, round)) ASSERT_NE(number, kNoCudaRow) << round;
    const std::map<uint64_t, std::string> before = Rows(*table);
    const uint64_t evicted = Counters(*table).evicted;
    ASSERT_TRUE(table->EvictBefore(round).ok());
    const std::map<uint64_t, std::string> rows = Rows(*table);
    Keys gone;
    ASSERT_TRUE(table->CopyEvicted(evicted, Counters(*table).evicted, &gone).ok());
    EXPECT_EQ(gone.size(), before.size() - rows.size());
    for (const uint64_t key : gone) EXPECT_TRUE(before.contains(key) && !rows.contains(key)) << key;
    EXPECT_EQ(rows.size(), std::set<uint64_t>(keys.begin(), keys.end()).size());
    for (const uint64_t key : keys) EXPECT_TRUE(rows.contains(key)) << key;
    const CudaTableCounters counters = Counters(*table);
    EXPECT_EQ(counters.rows, rows.size());
    EXPECT_EQ(counters.refused, 0);
  }
  ASSERT_TRUE(table->EvictBefore(100).ok());
  EXPECT_TRUE(Rows(*table).empty());
  EXPECT_EQ(Counters(*table).rows, 0);
}

TEST_F(CudaTableTest, ARowThatIsMadeAgainBeginsAnew) {
  const StoredTableOptions options = OptionsOf(4, 4, RuleKind::kAdam);
  const std::unique_ptr<CudaTable> table = Make(options);
  Push(*table, {5, kLargest}, Floats(8, 1.0f), 1);
  ASSERT_TRUE(table->EvictBefore(2).ok());
  Reference reference(options);
  EXPECT_EQ(Pull(*table, {5, kLargest}, 4), reference.Pull({5, kLargest}));
  Push(*table, {5, kLargest}, Floats(8, 0.5f), 1);
  reference.Push({5, kLargest}, Floats(8, 0.5f), 1);
  EXPECT_EQ(Rows(*table), reference.rows());
}

TEST_F(CudaTableTest, AKeyWithoutRoomTakesThatOfTheOldestRow) {
  const StoredTableOptions options = OptionsOf(4, 40);
  const std::unique_ptr<CudaTable> table = Make(options);
  Random random(9);
  std::map<uint64_t, uint32_t> pushed;  // when
  for (uint32_t round = 1; round <= 12; ++round) {
    Keys keys = DifferentKeys(random, 160, 1 << 20);
    keys.push_back(kLargest - round % 2);
    const OnDevice<uint64_t> there(keys);
    const OnDevice<uint32_t> numbers(Numbers(keys.size(), 1234567));
    ASSERT_TRUE(table->FindOrInsert(there.data(), keys.size(), round, nullptr, numbers.data()).ok());
    const Numbers first = numbers.Copy();
    ASSERT_TRUE(table->MakeRoom(there.data(), keys.size(), round, numbers.data()).ok());
    const Numbers second = numbers.Copy();
    std::set<uint32_t> different;
    for (size_t i = 0; i < keys.size(); ++i) {
      ASSERT_NE(second[i], kNoCudaRow) << "round " << round << ", key " << keys[i];
      if (first[i] != kNoCudaRow) {
        ASSERT_EQ(second[i], first[i]) << "a number that was found moved";
      }
      EXPECT_TRUE(different.insert(second[i]).second) << "two keys share a row";
      pushed[keys[i]] = round;
    }
    const std::map<uint64_t, std::string> rows = Rows(*table);
    const CudaTableCounters counters = Counters(*table);
    EXPECT_EQ(counters.rows, rows.size());
    EXPECT_EQ(counters.refused, 0);
    EXPECT_EQ(FindOrInsert(*table, keys, round), second) << "keys moved";
    // What is left are the rows of the last rounds, as far as one look at 128 rows can tell.
    const uint32_t kept = static_cast<uint32_t>(table->numbers() / 161);
    for (const auto& [key, row] : rows) EXPECT_GE(pushed[key] + kept + 2, round) << key;
  }
  EXPECT_GT(Counters(*table).evicted, 1000);
  // No row is older than this one: it is refused.
  const Keys more = DifferentKeys(random, 700, 1 << 20);
  const OnDevice<uint64_t> there(more);
  const OnDevice<uint32_t> numbers(Numbers(more.size(), 0));
  ASSERT_TRUE(table->FindOrInsert(there.data(), more.size(), 1, nullptr, numbers.data()).ok());
  ASSERT_TRUE(table->MakeRoom(there.data(), more.size(), 1, numbers.data()).ok());
  EXPECT_GT(Counters(*table).refused, 300);
}

TEST_F(CudaTableTest, ABadGradientChangesNothing) {
  const StoredTableOptions options = OptionsOf(4, 4, RuleKind::kAdagrad);
  const std::unique_ptr<CudaTable> table = Make(options);
  Push(*table, {1, 2}, Floats(8, 1.0f), 1);
  const std::map<uint64_t, std::string> before = Rows(*table);
  const OnDevice<uint32_t> bad(Numbers{0}), good(Numbers{kNoBadKey});
  Push(*table, {2, 3}, Floats(8, std::numeric_limits<float>::quiet_NaN()), 1, bad.data());
  EXPECT_EQ(Rows(*table), before);
  Push(*table, {2, 3}, Floats(8, 1.0f), 1, good.data());
  EXPECT_EQ(Rows(*table).size(), 3);
}

TEST_F(CudaTableTest, EmptyBatchesAreNoTrouble) {
  const std::unique_ptr<CudaTable> table = Make(OptionsOf(4, 4));
  EXPECT_TRUE(FindOrInsert(*table, {}).empty());
  EXPECT_TRUE(Pull(*table, {}, 4).empty());
  Push(*table, {}, {}, 1);
  EXPECT_TRUE(Rows(*table).empty());
}

TEST_F(CudaTableTest, OptionsItCannotKeepAreRefused) {
  StoredTableOptions options = OptionsOf(4, 4);
  options.admit_after = 2;
  EXPECT_EQ(CudaTable::Make("test", options, stream_).status().code(), absl::StatusCode::kUnimplemented);
  options = OptionsOf(4, 1);
  EXPECT_EQ(Make(options)->numbers(), 18);
  EXPECT_EQ(Make(options)->remembered(), 32);
  EXPECT_LE(Make(options)->bytes() - sizeof(CudaTableTally) - 8 - 32 * sizeof(uint64_t), options.max_bytes);
  --options.max_bytes;
  const absl::Status small = CudaTable::Make("test", options, stream_).status();
  EXPECT_EQ(small.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(small.message(), absl::StrCat("expected at least ", options.max_bytes + 1))) << small;
}

}  // namespace
}  // namespace basin
