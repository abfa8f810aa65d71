#include "worker/train/feature_schema.h"

#include <gtest/gtest.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace basin {
namespace {

constexpr char kWhole[] = R"(
label: {column: late, above: 15}
split: {column: date, test_from: 2013-11-01, test_until: 2014-01-01}
numeric: [distance]
numeric_wide_only: [temp]
categorical: [carrier, dest]
buckets:
  - {name: hour, column: minute, width: 60}
  - {name: sight, column: visib, boundaries: [1, 3.5, 5]}
crosses: [[carrier, dest], [dest, hour, sight]]
)";

TEST(FeatureSchemaTest, ReadsEveryField) {
  const auto schema = ParseFeatureSchema(kWhole, "s.yaml");
  ASSERT_TRUE(schema.ok()) << schema.status();
  EXPECT_EQ(schema->label_column, "late");
  EXPECT_EQ(schema->label_above, 15);
  EXPECT_EQ(schema->split_column, "date");
  EXPECT_EQ(schema->test_from, "2013-11-01");
  EXPECT_EQ(schema->test_until, "2014-01-01");
  EXPECT_EQ(schema->numeric, (std::vector<std::string>{"distance", "temp"}));
  EXPECT_EQ(schema->wide_only, 1u);
  ASSERT_EQ(schema->categories.size(), 4u);
  EXPECT_FALSE(schema->categories[0].is_bucket());
  EXPECT_EQ(schema->categories[2].width, 60);
  EXPECT_EQ(schema->categories[3].boundaries, (std::vector<double>{1, 3.5, 5}));
  ASSERT_EQ(schema->features(), 6u);
  EXPECT_EQ(schema->FeatureName(2), "hour");
  EXPECT_EQ(schema->FeatureName(4), "carrier x dest");
  EXPECT_EQ(schema->FeatureName(5), "dest x hour x sight");
}

TEST(FeatureSchemaTest, BucketsHoldTheirLowerEnd) {
  const auto schema = ParseFeatureSchema(kWhole, "s.yaml");
  ASSERT_TRUE(schema.ok());
  const FeatureSchema::Category& hour = schema->categories[2];
  EXPECT_EQ(BucketText(hour, 59.5), "0");
  EXPECT_EQ(BucketText(hour, 60), "1");
  EXPECT_EQ(BucketText(hour, -1), "-1");
  const FeatureSchema::Category& sight = schema->categories[3];
  EXPECT_EQ(BucketText(sight, 0.9), "0");
  EXPECT_EQ(BucketText(sight, 1), "1");
  EXPECT_EQ(BucketText(sight, 3.5), "2");
  EXPECT_EQ(BucketText(sight, 1000), "3");
}

TEST(FeatureSchemaTest, ComplaintsNameThePlaceAndWhatToDo) {
  const std::string label = "label: {column: y}\n", split = "split: {column: d, test_from: b}\n",
                    c = "categorical: [c]\n";
  const std::pair<std::string, std::string> cases[] = {
      {"label: [", "s.yaml:"},
      {"text", "expected a mapping"},
      {absl::StrCat(split, c), "label: not given"},
      {absl::StrCat(label, c), "split: not given"},
      {absl::StrCat(label, split), "there is no category"},
      {absl::StrCat(label, split, c, "numerc: [a]\n"),
       "s.yaml:4:1: unknown field \"numerc\"; did you mean \"numeric\"?"},
      {absl::StrCat(label, split, c, "numeric: [a, a]\n"), "s.yaml:4:1: numeric: \"a\" stands twice"},
      {absl::StrCat(label, split, c, "numeric: [a]\nnumeric_wide_only: [a]\n"), "\"a\" stands twice"},
      {absl::StrCat(label, split, c, "numeric: [y]\n"), "\"y\" is an input as well"},
      {absl::StrCat(label, split, "categorical: [y]\n"), "\"y\" is an input as well"},
      {absl::StrCat(label, "split: {column: d, test_from: b, test_until: b}\n", c), "the test part would be empty"},
      {absl::StrCat(label, split, c, "crosses: [[c]]\n"), "two or more categories"},
      {absl::StrCat(label, split, c, "crosses: [[c, see]]\n"), "\"see\" is no category; categories are: c"},
      {absl::StrCat(label, split, "categorical: [c, d]\ncrosses: [[c, d], [c, d]]\n"), "a cross stands twice"},
      {absl::StrCat(label, split, c, "crosses: [[c, c]]\n"), "crossed with itself"},
      {absl::StrCat(label, split, c, "buckets: [{name: c, column: x, width: 1}]\n"), "names another category already"},
      {absl::StrCat(label, split, c, "buckets: [{name: b, column: x}]\n"), "either width: NUMBER or boundaries"},
      {absl::StrCat(label, split, c, "buckets: [{name: b, column: x, width: 0}]\n"), "expected a number above 0"},
      {absl::StrCat(label, split, c, "buckets: [{name: b, column: x, boundaries: [2, 1]}]\n"), "ascending order"},
  };
  for (const auto& [text, message] : cases) {
    const absl::Status status = ParseFeatureSchema(text, "s.yaml").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(absl::StrContains(status.message(), message)) << status << "\nfor\n" << text;
  }
}

// Keys lie in model files and in tables that live for months. The stored value was computed with Python's xxhash:
// xxh64(b"\x07\0\0\0carrier\x02\0\0\0UA", seed=0).
TEST(FeatureSchemaTest, AKeyIsTheStoredHash) { EXPECT_EQ(FeatureKey({{"carrier", "UA"}}), 0xf95f69e2c34af467u); }

TEST(FeatureSchemaTest, KeysTellNamesValuesAndTheirBoundsApart) {
  const std::set<uint64_t> keys = {FeatureKey({{"a", "b"}}),
                                   FeatureKey({{"ab", ""}}),
                                   FeatureKey({{"", "ab"}}),
                                   FeatureKey({{"a", "b"}, {"c", "d"}}),
                                   FeatureKey({{"c", "d"}, {"a", "b"}}),
                                   FeatureKey({{"a", "bc"}, {"", "d"}}),
                                   FeatureKey({})};
  EXPECT_EQ(keys.size(), 7u);
}

}  // namespace
}  // namespace basin
