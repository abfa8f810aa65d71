#include "bench/harness/row_work.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "bench/harness/exact_sums.h"
#include "cluster_spec/table_placement.h"

namespace basin::bench {
namespace {

RowWork WorkOf(const RowWorkOptions& options) {
  absl::StatusOr<RowWork> work = RowWork::Make(options);
  EXPECT_TRUE(work.ok()) << work.status();
  return *std::move(work);
}

// What the rows become when the pushes are made one by one.
class Rows {
 public:
  explicit Rows(const RowWork& work) : work_(work), gradients_(work.Gradients()) {}
  void Push(absl::Span<const uint64_t> keys) {
    for (size_t i = 0; i < keys.size(); ++i) {
      std::vector<float>& row = rows_[keys[i]];
      row.resize(work_.dim());
      for (uint32_t d = 0; d < work_.dim(); ++d) row[d] -= gradients_[i * work_.dim() + d];
    }
  }
  void Fill() {
    for (size_t i = 0; i < work_.fills(); ++i) Push(work_.fill(i));
  }
  std::vector<float> all() const {
    std::vector<float> values;
    for (const auto& [key, row] : rows_) values.insert(values.end(), row.begin(), row.end());
    return values;
  }

 private:
  const RowWork& work_;
  const std::vector<float> gradients_;
  std::map<uint64_t, std::vector<float>> rows_;
};

TEST(RowWorkTest, RowsAreExpectedToBeWhatThePushesMakeOfThem) {
  for (const uint64_t rows : {uint64_t{100}, uint64_t{0}}) {
    const RowWork work = WorkOf({.rows = rows, .dim = 3, .batch = 40});
    Rows made(work);
    made.Fill();
    made.Fill();
    std::vector<uint64_t> pushes(RowWork::kBatches);
    for (size_t b = 0; b < RowWork::kBatches; ++b) {
      pushes[b] = 1 + b % 3;
      for (uint64_t n = 0; n < pushes[b]; ++n) made.Push(work.keys(b));
    }
    const std::vector<float> expected = work.Expected(pushes, 2);
    EXPECT_EQ(made.all(), expected);
    EXPECT_TRUE(work.Check(expected, work.all_keys(), made.all()).ok());
  }
}

TEST(RowWorkTest, ADifferenceIsNamed) {
  const RowWork work = WorkOf({.rows = 100, .dim = 2, .batch = 10});
  const std::vector<float> expected = work.Expected(std::vector<uint64_t>(RowWork::kBatches, 1), 1);
  const std::vector<uint64_t> keys = {7, 90};
  std::vector<float> found = {expected[14], expected[15], expected[180], expected[181]};
  EXPECT_TRUE(work.Check(expected, keys, found).ok());
  found[3] += 1;
  const absl::Status status = work.Check(expected, keys, found);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("row 90 has"), std::string::npos) << status;
  EXPECT_NE(status.message().find("at element 1"), std::string::npos) << status;
}

TEST(RowWorkTest, AGradientThatWentToAnotherRowShows) {
  const RowWork work = WorkOf({.rows = 64, .dim = 16, .batch = 64});
  const std::vector<float> gradients = work.Gradients();
  std::set<std::vector<float>> different;
  for (size_t i = 0; i < 64; ++i) different.insert({gradients.begin() + 16 * i, gradients.begin() + 16 * (i + 1)});
  EXPECT_EQ(different.size(), 64u);
}

TEST(RowWorkTest, TheTableIsFilledOnceAndNoMore) {
  const RowWork work = WorkOf({.rows = 95, .dim = 1, .batch = 10});
  std::vector<uint64_t> keys;
  for (size_t i = 0; i < work.fills(); ++i) keys.insert(keys.end(), work.fill(i).begin(), work.fill(i).end());
  EXPECT_EQ(keys, std::vector<uint64_t>(work.all_keys().begin(), work.all_keys().end()));
  EXPECT_EQ(keys.size(), 95u);
}

TEST(RowWorkTest, SumsStayWhereFloat32IsExact) {
  for (const uint64_t rows : {uint64_t{1000}, uint64_t{0}}) {
    const RowWork work = WorkOf({.rows = rows, .dim = 4, .batch = 500});
    const uint64_t most = work.MostPushes(3);
    ASSERT_GT(most, 100u);
    const auto farthest = [&](uint64_t pushes) {
      float found = 0;
      for (const float value : work.Expected(std::vector<uint64_t>(RowWork::kBatches, pushes), 3))
        found = std::min(found, value);
      return -found;
    };
    EXPECT_LT(farthest(most), static_cast<float>(kExactBelow));
    EXPECT_GT(farthest(2 * most), static_cast<float>(kExactBelow));
  }
}

TEST(RowWorkTest, UpdatesAreTheBucketsOfEachPush) {
  const RowWork work = WorkOf({.rows = 1000, .dim = 16, .batch = 100});
  const TablePlacement placement = TablePlacement::Make(2);
  std::vector<uint64_t> pushes(RowWork::kBatches);
  pushes[3] = 5;
  std::set<uint32_t> buckets;
  for (const uint64_t key : work.keys(3)) buckets.insert(placement.BucketOf(key));
  EXPECT_EQ(work.Updates(pushes, 0, 2), 5 * buckets.size());
  EXPECT_GT(work.Updates(pushes, 1, 2), 5 * buckets.size());
}

TEST(RowWorkTest, ABucketWithMoreThanOneUpdateHoldsIsCut) {
  // 4096 floats a row: 63 rows an update of 1 MiB. 256 buckets, 100,000 keys: some 390 in each.
  const RowWork work = WorkOf({.rows = 100000, .dim = 4096, .batch = 1});
  EXPECT_EQ(work.Updates(std::vector<uint64_t>(RowWork::kBatches, 2), 0, 1), 2 * RowWork::kBatches);
  const RowWork large = WorkOf({.rows = 20000, .dim = 4096, .batch = 20000});
  std::vector<uint64_t> once(RowWork::kBatches);
  once[0] = 1;
  // Some 78 in each of 256 buckets: most are cut in two.
  EXPECT_GT(large.Updates(once, 0, 1), 400u);
  EXPECT_LE(large.Updates(once, 0, 1), 512u);
}

TEST(RowWorkTest, WorkWithoutRowsIsRefused) {
  EXPECT_FALSE(RowWork::Make({.dim = 0}).ok());
  EXPECT_FALSE(RowWork::Make({.batch = 0}).ok());
  const absl::Status status = RowWork::Make({.rows = 10, .batch = 11}).status();
  EXPECT_NE(status.message().find("11 different keys of a table of 10 rows"), std::string::npos) << status;
}

}  // namespace
}  // namespace basin::bench
