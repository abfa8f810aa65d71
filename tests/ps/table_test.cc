// A table beside the plainest one that there could be: a map from a key to its row, with the rule applied by
// common/rules' row function on memory of its own.
#include "ps/table/host_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/codec/half.h"
#include "common/rules/rows.h"
#include "ps/block.h"

namespace basin {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kRuleRate = kNaN;
const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

const char* Bytes(const std::vector<uint64_t>& keys) { return reinterpret_cast<const char*>(keys.data()); }
const char* Bytes(const std::vector<float>& rows) { return reinterpret_cast<const char*>(rows.data()); }

StoredTableOptions OptionsOf(uint32_t dim) {
  StoredTableOptions options;
  options.name = "emb";
  options.dim = dim;
  options.init = {.kind = InitKind::kNormal, .a = 0.5f, .b = 0.25f, .seed = 7};
  options.rule.learning_rate = 0.0625f;
  return options;
}

std::vector<float> Pulled(const HostTable& table, const std::vector<uint64_t>& keys, uint32_t dim) {
  std::vector<float> rows(keys.size() * dim, -1);
  table.Pull(Bytes(keys), keys.size(), reinterpret_cast<char*>(rows.data()));
  return rows;
}

std::vector<float> Initial(const StoredTableOptions& options, uint64_t key) {
  std::vector<float> values(options.dim);
  FillRow(options.init, key, absl::MakeSpan(values));
  RowRule(options.rule, options.storage, options.dim).Rounded(values.data());
  return values;
}

absl::Status PushAll(HostTable& table, const std::vector<uint64_t>& keys, const std::vector<float>& gradients,
                     absl::Time now = kStart) {
  return table.Push(Bytes(keys), keys.size(), Bytes(gradients), kRuleRate, now);
}

// Pushes a gradient of 1 in every element.
void Touch(HostTable& table, const std::vector<uint64_t>& keys, uint32_t dim, absl::Time now = kStart) {
  ASSERT_TRUE(PushAll(table, keys, std::vector<float>(keys.size() * dim, 1.0f), now).ok());
}

// What the table should do, one key at a time, with admission by count.
class Reference {
 public:
  explicit Reference(const StoredTableOptions& options)
      : options_(options), rule_(options.rule, options.storage, options.dim) {}

  void Push(const std::vector<uint64_t>& keys, const std::vector<float>& gradients, float rate) {
    for (size_t i = 0; i < keys.size(); ++i) {
      auto row = rows_.find(keys[i]);
      if (row == rows_.end()) {
        if (++pushes_[keys[i]] < options_.admit_after) {
          ++dropped_;
          continue;
        }
        row = rows_.emplace(keys[i], std::vector<char>(rule_.row_bytes())).first;
        std::vector<float> values(options_.dim);
        FillRow(options_.init, keys[i], absl::MakeSpan(values));
        rule_.Start(values.data(), row->second.data());
        pushes_.erase(keys[i]);
      }
      char* at = row->second.data();
      const char* gradient = Bytes(gradients) + i * options_.dim * sizeof(float);
      rule_.Apply(rate, 1, &at, &gradient, &keys[i]);
    }
  }
  std::vector<float> Pull(uint64_t key) const {
    const auto row = rows_.find(key);
    std::vector<float> values(options_.dim);
    if (row == rows_.end()) {
      FillRow(options_.init, key, absl::MakeSpan(values));
      rule_.Rounded(values.data());
      return values;
    }
    const char* from = row->second.data();
    char* to = reinterpret_cast<char*>(values.data());
    rule_.Read(1, &from, &to);
    return values;
  }
  size_t rows() const { return rows_.size(); }
  size_t candidates() const { return pushes_.size(); }
  uint64_t dropped() const { return dropped_; }

 private:
  StoredTableOptions options_;
  RowRule rule_;
  std::unordered_map<uint64_t, std::vector<char>> rows_;
  std::unordered_map<uint64_t, uint32_t> pushes_;
  uint64_t dropped_ = 0;
};

void ExpectAsReference(const StoredTableOptions& options, uint64_t seed, uint64_t key_range, int pushes) {
  SCOPED_TRACE(absl::StrCat(ToText(options.rule), ", dim ", options.dim, ", ", Name(options.storage), ", seed ", seed));
  HostTable table(options, BlockPool::Make(0));
  Reference reference(options);
  Random random(seed);
  // Keys with all kinds of bits, 0 and the largest among them.
  const auto key_of = [&](uint64_t i) { return i % 3 == 0 ? i : i % 3 == 1 ? ~i : Mix64(i); };
  for (int push = 0; push < pushes; ++push) {
    const size_t n = random.Below(push % 8 == 0 ? 1000 : 50);
    std::vector<uint64_t> keys(n);
    for (uint64_t& key : keys) key = key_of(random.Below(key_range));
    std::vector<float> gradients(n * options.dim);
    for (float& g : gradients) g = static_cast<float>(random.Unit() * 2 - 1);
    const bool own_rate = random.Chance(0.2);
    table.Prefetch(Bytes(keys), n);
    ASSERT_TRUE(table.Push(Bytes(keys), n, Bytes(gradients), own_rate ? 0.5f : kRuleRate, kStart).ok());
    reference.Push(keys, gradients, own_rate ? 0.5f : options.rule.learning_rate);
    std::vector<uint64_t> asked(random.Below(100));
    for (uint64_t& key : asked) key = key_of(random.Below(2 * key_range));
    const std::vector<float> found = Pulled(table, asked, options.dim);
    for (size_t i = 0; i < asked.size(); ++i) {
      const std::vector<float> row(found.begin() + i * options.dim, found.begin() + (i + 1) * options.dim);
      ASSERT_EQ(row, reference.Pull(asked[i])) << "push " << push << ", key " << asked[i];
    }
  }
  for (uint64_t i = 0; i < key_range; ++i) {
    ASSERT_EQ(Pulled(table, {key_of(i)}, options.dim), reference.Pull(key_of(i))) << "key " << key_of(i);
  }
  const TableCounters counters = table.counters();
  EXPECT_EQ(counters.rows, reference.rows());
  EXPECT_EQ(counters.candidates, reference.candidates());
  EXPECT_EQ(counters.dropped_gradients, reference.dropped());
  EXPECT_EQ(counters.evicted, 0u);
}

TEST(TableTest, EveryRuleAndStorageDoesAsAPlainMap) {
  uint64_t seed = 1;
  for (const RuleKind kind : {RuleKind::kSgd, RuleKind::kMomentum, RuleKind::kAdagrad, RuleKind::kAdam, RuleKind::kFtrl,
                              RuleKind::kRowwiseAdagrad}) {
    for (const DType storage : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const uint32_t dim : {1u, 7u, 16u, 50u}) {
        StoredTableOptions options = OptionsOf(dim);
        options.rule.kind = kind;
        options.storage = storage;
        options.admit_after = 1 + seed % 3;
        ExpectAsReference(options, seed++, 2000, 60);
      }
    }
  }
}

TEST(TableTest, LargeRowsDoAsAPlainMap) {
  StoredTableOptions options = OptionsOf(4096);
  options.rule.kind = RuleKind::kAdam;
  ExpectAsReference(options, 1, 40, 20);
}

TEST(TableTest, ATableThatGrewThroughManySplitsDoesAsAPlainMap) {
  StoredTableOptions options = OptionsOf(1);
  ExpectAsReference(options, 5, 60'000, 1000);
  options.admit_after = 2;
  ExpectAsReference(options, 6, 60'000, 1000);
}

TEST(TableTest, PullsMakeNoRowsAndInitialValuesHaveNoOrder) {
  const StoredTableOptions options = OptionsOf(5);
  HostTable table(options, BlockPool::Make(0));
  const std::vector<float> one_way = Pulled(table, {1, 2, 3}, 5);
  std::vector<float> other_way;
  for (const uint64_t key : {1, 2, 3}) {
    HostTable other(options, BlockPool::Make(0));
    Touch(other, {9, 8, 7}, 5);
    const std::vector<float> row = Pulled(other, {key}, 5);
    other_way.insert(other_way.end(), row.begin(), row.end());
  }
  EXPECT_EQ(one_way, other_way);
  EXPECT_EQ(table.counters().rows, 0u);
  // The first push starts from the value that was pulled.
  Touch(table, {2}, 5);
  const std::vector<float> pushed = Pulled(table, {2}, 5);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pushed[i], one_way[5 + i] - 0.0625f);
  EXPECT_EQ(table.counters().rows, 1u);
}

TEST(TableTest, AKeyThatStandsTwiceIsAppliedTwice) {
  StoredTableOptions options = OptionsOf(1);
  options.init = {.kind = InitKind::kZeros};
  options.rule.learning_rate = 1;
  HostTable table(options, BlockPool::Make(0));
  ASSERT_TRUE(PushAll(table, {4, 5, 4, 4}, {1, 2, 3, 4}).ok());  // makes the rows
  ASSERT_TRUE(PushAll(table, {4, 5, 4, 4}, {1, 2, 3, 4}).ok());
  EXPECT_EQ(Pulled(table, {4, 5}, 1), (std::vector<float>{-16, -4}));
  EXPECT_EQ(table.counters().rows, 2u);
}

TEST(TableTest, ANumberThatIsNotFiniteIsNamedAndNothingChanges) {
  const StoredTableOptions options = OptionsOf(3);
  HostTable table(options, BlockPool::Make(0));
  Touch(table, {1, 2}, 3);
  const std::vector<float> before = Pulled(table, {1, 2, 77}, 3);
  for (const float bad : {std::numeric_limits<float>::infinity(), kRuleRate}) {
    std::vector<float> gradients(9, 1);
    gradients[7] = bad;
    const absl::Status status = PushAll(table, {1, 2, 77}, gradients);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("table \"emb\": the gradient of key 77 is "), absl::string_view::npos) << status;
    EXPECT_NE(status.message().find("at element 1"), absl::string_view::npos) << status;
  }
  EXPECT_EQ(Pulled(table, {1, 2, 77}, 3), before);
  EXPECT_EQ(table.counters().rows, 2u);
}

TEST(TableTest, MessagesMayLieAtAnyAddress) {
  const StoredTableOptions options = OptionsOf(16);
  HostTable aligned(options, BlockPool::Make(0));
  HostTable unaligned(options, BlockPool::Make(0));
  std::vector<uint64_t> keys(100);
  std::vector<float> gradients(1600);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = Mix64(i);
  for (size_t i = 0; i < gradients.size(); ++i) gradients[i] = static_cast<float>(UnitAt(1, i));
  std::vector<char> key_bytes(800 + 8), gradient_bytes(6400 + 8), rows(6400 + 8);
  for (size_t shift = 1; shift < 8; ++shift) {
    std::memcpy(key_bytes.data() + shift, keys.data(), 800);
    std::memcpy(gradient_bytes.data() + shift, gradients.data(), 6400);
    ASSERT_TRUE(PushAll(aligned, keys, gradients).ok());
    ASSERT_TRUE(unaligned.Push(key_bytes.data() + shift, 100, gradient_bytes.data() + shift, kRuleRate, kStart).ok());
    unaligned.Prefetch(key_bytes.data() + shift, 100);
    unaligned.Pull(key_bytes.data() + shift, 100, rows.data() + shift);
    const std::vector<float> expected = Pulled(aligned, keys, 16);
    EXPECT_EQ(std::memcmp(rows.data() + shift, expected.data(), 6400), 0) << shift;
  }
}

// The same numbers in 16 bits do the same: over several blocks of keys, repeated ones among them, at an odd address.
TEST(TableTest, GradientsOf16BitsAreAppliedAsTheirFloats) {
  for (const DType type : {DType::kF16, DType::kBF16}) {
    for (const uint32_t dim : {1u, 3u, 16u}) {
      const StoredTableOptions options = OptionsOf(dim);
      HostTable floats(options, BlockPool::Make(0)), halves(options, BlockPool::Make(0));
      std::vector<uint64_t> keys(300);
      std::vector<float> gradients(keys.size() * dim);
      for (size_t i = 0; i < keys.size(); ++i) keys[i] = Mix64(i % 250);
      for (size_t i = 0; i < gradients.size(); ++i) gradients[i] = static_cast<float>(UnitAt(1, i) - 0.5);
      std::vector<char> narrow(2 * gradients.size() + 1);
      ASSERT_TRUE(Narrow(type, gradients.data(), gradients.size(), narrow.data() + 1));
      Widen(type, narrow.data() + 1, gradients.size(), gradients.data());
      for (int i = 0; i < 2; ++i) {
        ASSERT_TRUE(PushAll(floats, keys, gradients).ok());
        ASSERT_TRUE(halves.Push(Bytes(keys), keys.size(), narrow.data() + 1, kRuleRate, kStart, type).ok());
      }
      EXPECT_EQ(Pulled(halves, keys, dim), Pulled(floats, keys, dim)) << Name(type) << " " << dim;
      // A NaN in the last element of all.
      const std::vector<float> before = Pulled(halves, keys, dim);
      EXPECT_FALSE(Narrow(type, &kNaN, 1, narrow.data() + narrow.size() - 2));
      const absl::Status status = halves.Push(Bytes(keys), keys.size(), narrow.data() + 1, kRuleRate, kStart, type);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_NE(
          status.message().find(absl::StrCat("the gradient of key ", keys.back(), " is nan at element ", dim - 1)),
          absl::string_view::npos)
          << status;
      EXPECT_EQ(Pulled(halves, keys, dim), before);
    }
  }
}

TEST(TableTest, SmallStepsDoNotVanishIn16Bits) {
  for (const DType storage : {DType::kF16, DType::kBF16}) {
    StoredTableOptions options = OptionsOf(1024);
    options.storage = storage;
    options.init = {.kind = InitKind::kConstant, .a = 1};
    options.rule.learning_rate = 1;
    HostTable table(options, BlockPool::Make(0));
    // 1/10 of the distance between the numbers below 1, 200 times over.
    const float step = (storage == DType::kF16 ? 0x1p-11f : 0x1p-8f) / 10;
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(PushAll(table, {3}, std::vector<float>(1024, step)).ok());
    double mean = 0;
    for (const float value : Pulled(table, {3}, 1024)) mean += value / 1024.0;
    EXPECT_NEAR(mean, 1 - 200 * step, 2 * step) << Name(storage);
  }
}

TEST(TableTest, AKeyIsAdmittedWithItsNthPush) {
  StoredTableOptions options = OptionsOf(2);
  options.admit_after = 3;
  HostTable table(options, BlockPool::Make(0));
  Touch(table, {10, 11, 10}, 2);
  EXPECT_EQ(table.counters().candidates, 2u);
  EXPECT_EQ(table.counters().rows, 0u);
  EXPECT_EQ(table.counters().dropped_gradients, 3u);
  Touch(table, {10, 11}, 2);
  EXPECT_EQ(table.counters().candidates, 1u);
  EXPECT_EQ(table.counters().rows, 1u);
  EXPECT_EQ(table.counters().dropped_gradients, 4u);
  // One gradient was applied, the third.
  EXPECT_EQ(Pulled(table, {10}, 2)[0], Initial(options, 10)[0] - 0.0625f);
  EXPECT_EQ(Pulled(table, {11}, 2), Initial(options, 11));
}

TEST(TableTest, AdmissionByProbabilityAdmitsThatPartAndRemembersNobody) {
  StoredTableOptions options = OptionsOf(1);
  options.admit_probability = 0.25f;
  HostTable table(options, BlockPool::Make(0));
  HostTable twin(options, BlockPool::Make(0));
  std::vector<uint64_t> keys(40'000);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = i;
  Touch(table, keys, 1);
  Touch(twin, keys, 1);
  EXPECT_NEAR(static_cast<double>(table.counters().rows), 10'000, 400);
  EXPECT_EQ(table.counters().candidates, 0u);
  EXPECT_EQ(table.counters().dropped_gradients + table.counters().rows, 40'000u);
  EXPECT_EQ(Pulled(table, keys, 1), Pulled(twin, keys, 1));
  // Pushes that repeat draw again.
  for (int i = 0; i < 30; ++i) Touch(table, keys, 1);
  EXPECT_GT(table.counters().rows, 39'900u);
}

TEST(TableTest, CountAndProbabilityTogetherCountFirst) {
  StoredTableOptions options = OptionsOf(1);
  options.admit_after = 2;
  options.admit_probability = 0.5f;
  HostTable table(options, BlockPool::Make(0));
  std::vector<uint64_t> keys(10'000);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = i;
  Touch(table, keys, 1);
  EXPECT_EQ(table.counters().rows, 0u);
  Touch(table, keys, 1);
  EXPECT_NEAR(static_cast<double>(table.counters().rows), 5'000, 300);
  EXPECT_EQ(table.counters().candidates, 10'000 - table.counters().rows);
}

}  // namespace
}  // namespace basin
