#include "worker/train/feature_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

constexpr char kSchema[] = R"(
label: {column: late, above: 15}
split: {column: day, test_from: "5", test_until: "8"}
numeric: [distance]
categorical: [carrier, dest]
buckets: [{name: hour, column: minute, width: 60}]
crosses: [[carrier, dest]]
)";

constexpr char kHeader[] = "day,carrier,dest,minute,distance,late,other\n";

absl::StatusOr<FeatureData> DataOf(const std::string& rows) {
  const std::string text = absl::StrCat(kHeader, rows);
  size_t at = 0;
  auto csv = CsvReader::FromSource("t.csv", [&](absl::Span<char> out) -> absl::StatusOr<size_t> {
    const size_t bytes = std::min(out.size(), text.size() - at);
    std::copy_n(text.data() + at, bytes, out.data());
    at += bytes;
    return bytes;
  });
  if (!csv.ok()) return csv.status();
  return FeatureData::Read(**csv, *ParseFeatureSchema(kSchema, "s.yaml"));
}

TEST(FeatureDataTest, SplitsByTheColumnAndLeavesOutWhatHasNoLabel) {
  const auto data = DataOf(
      "1,UA,IAH,10,100,16,x\n"
      "5,UA,IAH,10,100,15,x\n"
      "2,AA,MIA,70,300,15.5,x\n"
      "2,AA,MIA,70,300,,cancelled\n"
      "7,B6,MIA,70,300,99,x\n"
      "8,B6,MIA,70,300,99,too late\n");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->train().labels, (std::vector<uint8_t>{1, 1}));
  EXPECT_EQ(data->test().labels, (std::vector<uint8_t>{0, 1}));
  EXPECT_EQ(data->without_label(), 1u);
}

TEST(FeatureDataTest, KeysAreThoseOfTheFeaturesValues) {
  const auto data = DataOf("1,UA,IAH,119,1,0,x\n5,AA,IAH,,1,0,x\n2,UA,MIA,60,1,0,x\n");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->keys(0), (std::vector<uint64_t>{FeatureKey({{"carrier", "UA"}}), FeatureKey({{"carrier", "AA"}})}));
  EXPECT_EQ(data->keys(2), (std::vector<uint64_t>{FeatureKey({{"hour", "1"}}), FeatureKey({{"hour", ""}})}));
  EXPECT_EQ(data->keys(3)[0], FeatureKey({{"carrier", "UA"}, {"dest", "IAH"}}));
  // AA is in the test part alone.
  EXPECT_EQ(data->TrainKeys(0), (std::vector<uint64_t>{FeatureKey({{"carrier", "UA"}})}));
  EXPECT_EQ(data->TrainKeys(3).size(), 2u);
}

TEST(FeatureDataTest, NumbersAreScaledByTheTrainingPart) {
  const auto data = DataOf("1,a,a,0,10,0,x\n2,a,a,0,30,0,x\n3,a,a,0,,0,x\n6,a,a,0,50,0,x\n6,a,a,0,,0,x\n");
  ASSERT_TRUE(data.ok()) << data.status();
  const NumericScale scale = data->TrainScale();
  EXPECT_EQ(scale.mean, std::vector<float>{20});
  EXPECT_EQ(scale.deviation, std::vector<float>{10});
  FeatureBatcher batcher(*data, scale);
  FeatureBatch batch;
  batcher.Gather(data->train(), {0, 1, 2}, &batch);
  EXPECT_EQ(batch.numeric, (std::vector<float>{-1, 1, 0}));  // an empty field is the mean
  batcher.Gather(data->test(), {0, 1}, &batch);
  EXPECT_EQ(batch.numeric, (std::vector<float>{3, 0}));
}

TEST(FeatureDataTest, AConstantColumnBecomesZeros) {
  const auto data = DataOf("1,a,a,0,7,0,x\n2,a,a,0,7,0,x\n6,a,a,0,7,0,x\n");
  ASSERT_TRUE(data.ok());
  FeatureBatcher batcher(*data, data->TrainScale());
  FeatureBatch batch;
  batcher.Gather(data->train(), {0, 1}, &batch);
  EXPECT_EQ(batch.numeric, (std::vector<float>{0, 0}));
}

TEST(FeatureDataTest, ABatchNamesEachKeyOfAFeatureOnceAndFindsItForEachExample) {
  const auto data = DataOf("1,UA,IAH,0,1,1,x\n1,AA,IAH,0,1,0,x\n1,UA,MIA,90,1,0,x\n6,UA,IAH,0,1,0,x\n");
  ASSERT_TRUE(data.ok());
  FeatureBatcher batcher(*data, data->TrainScale());
  FeatureBatch batch;
  for (const std::vector<uint32_t>& examples : {std::vector<uint32_t>{0, 1, 2}, {2, 0, 0, 2}, {1}}) {
    batcher.Gather(data->train(), examples, &batch);
    ASSERT_EQ(batch.rows, static_cast<int64_t>(examples.size()));
    ASSERT_EQ(batch.tables.size(), 4u);  // wide, carrier, dest, hour
    const auto key_of = [&](size_t row, size_t feature) {
      return data->keys(feature)[data->train().ids[examples[row] * 4 + feature]];
    };
    for (size_t row = 0; row < examples.size(); ++row) {
      EXPECT_EQ(batch.labels[row], data->train().labels[examples[row]]);
      for (size_t feature = 0; feature < 4; ++feature) {
        EXPECT_EQ(batch.tables[0].keys[batch.tables[0].at[row * 4 + feature]], key_of(row, feature));
        if (feature >= 3) continue;  // a cross has no embedding
        const TableKeys& embedding = batch.tables[1 + feature];
        EXPECT_EQ(embedding.keys[embedding.at[row]], key_of(row, feature));
      }
    }
    for (const TableKeys& table : batch.tables) {
      std::vector<uint64_t> sorted = table.keys;
      std::sort(sorted.begin(), sorted.end());
      EXPECT_EQ(std::adjacent_find(sorted.begin(), sorted.end()), sorted.end());
    }
  }
}

TEST(FeatureDataTest, ComplaintsNameLineAndColumn) {
  const std::pair<const char*, const char*> cases[] = {
      {"1,UA,IAH,10,100,late,x\n", "t.csv:2: column 6 (late): \"late\" is no number"},
      {"1,UA,IAH,10,100,1,x\n1,UA,IAH,10,NA,1,x\n", "t.csv:3: column 5 (distance): \"NA\" is no number; leave unknown"},
      {"1,UA,IAH,ten,100,1,x\n", "t.csv:2: column 4 (minute)"},
      {"1,UA,IAH,10,inf,1,x\n", "t.csv:2: column 5 (distance)"},
  };
  for (const auto& [rows, message] : cases) {
    const absl::Status status = DataOf(rows).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), message)) << status;
  }
}

TEST(FeatureDataTest, AFileWhoseColumnsOrPartsAreMissingIsRefused) {
  const TemporaryFolder folder;
  const FeatureSchema schema = *ParseFeatureSchema(kSchema, "s.yaml");
  ASSERT_TRUE(WriteFileAtomically(folder / "a.csv", absl::StrCat(kHeader, "1,UA,IAH,1,2,16,\n1,UA,IAH,1,2,3,\n")).ok());
  EXPECT_TRUE(absl::StrContains(FeatureData::Load(folder / "a.csv", schema).status().message(),
                                "the test part has no examples"));
  ASSERT_TRUE(WriteFileAtomically(folder / "c.csv", absl::StrCat(kHeader, "1,UA,IAH,1,2,3,\n1,UA,IAH,1,2,3,\n")).ok());
  EXPECT_TRUE(absl::StrContains(FeatureData::Load(folder / "c.csv", schema).status().message(),
                                "all 2 examples of the training part have the label 0"));
  ASSERT_TRUE(WriteFileAtomically(folder / "b.csv", "day,carrier,dst,minute,distance,late\n1,UA,IAH,1,2,3\n").ok());
  const absl::Status status = FeatureData::Load(folder / "b.csv", schema).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "no column is named \"dest\"; did you mean \"dst\"?")) << status;
}

}  // namespace
}  // namespace basin
