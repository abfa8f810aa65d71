#include "worker/train/feature_schema.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "common/format/yaml_fields.h"

namespace basin {
namespace {

// A list of texts. Leaves *out alone where the field is not given.
absl::Status ReadTexts(const YamlFields& fields, absl::string_view name, std::vector<std::string>* out) {
  if (!fields.Has(name)) return absl::OkStatus();
  const YAML::Node list = fields.Value(name);
  if (!list.IsSequence()) return fields.ErrorAt(name, absl::StrCat("expected a list, found ", Describe(list)));
  for (const YAML::Node& item : list) {
    if (!item.IsScalar()) return fields.ErrorAt(name, absl::StrCat("expected names in it, found ", Describe(item)));
    if (std::find(out->begin(), out->end(), item.Scalar()) != out->end()) {
      return fields.ErrorAt(name, absl::StrCat("\"", item.Scalar(), "\" stands twice; remove one"));
    }
    out->push_back(item.Scalar());
  }
  return absl::OkStatus();
}

absl::Status ReadLabelAndSplit(const YamlFields& fields, const std::string& file, FeatureSchema* schema) {
  if (!fields.Has("label")) return fields.ErrorAt("label", "not given; write label: {column: NAME, above: NUMBER}");
  BASIN_ASSIGN_OR_RETURN(const YamlFields label,
                         YamlFields::From(fields.Value("label"), file, "label", {"column", "above"}));
  BASIN_RETURN_IF_ERROR(label.Read("column", &schema->label_column));
  BASIN_RETURN_IF_ERROR(label.Read("above", &schema->label_above));
  if (schema->label_column.empty()) return label.ErrorAt("column", "not given; name the column that is predicted");
  if (!fields.Has("split")) {
    return fields.ErrorAt("split", "not given; write split: {column: date, test_from: 2013-11-01}");
  }
  BASIN_ASSIGN_OR_RETURN(const YamlFields split,
                         YamlFields::From(fields.Value("split"), file, "split", {"column", "test_from", "test_until"}));
  BASIN_RETURN_IF_ERROR(split.Read("column", &schema->split_column));
  BASIN_RETURN_IF_ERROR(split.Read("test_from", &schema->test_from));
  BASIN_RETURN_IF_ERROR(split.Read("test_until", &schema->test_until));
  if (schema->split_column.empty())
    return split.ErrorAt("column", "not given; name a column to split by, such as date");
  if (schema->test_from.empty()) return split.ErrorAt("test_from", "not given; write where the test part begins");
  if (!schema->test_until.empty() && schema->test_until <= schema->test_from) {
    return split.ErrorAt("test_until", absl::StrCat("\"", schema->test_until, "\" is not behind test_from, \"",
                                                    schema->test_from, "\"; the test part would be empty"));
  }
  return absl::OkStatus();
}

absl::StatusOr<FeatureSchema::Category> ReadBucket(const YamlFields& fields) {
  FeatureSchema::Category bucket;
  BASIN_RETURN_IF_ERROR(fields.Read("name", &bucket.name));
  BASIN_RETURN_IF_ERROR(fields.Read("column", &bucket.column));
  BASIN_RETURN_IF_ERROR(fields.Read("width", &bucket.width));
  if (bucket.name.empty()) return fields.ErrorAt("name", "not given; name the bucketed feature");
  if (bucket.column.empty()) return fields.ErrorAt("column", "not given; name the column of numbers");
  if (fields.Has("width") == fields.Has("boundaries")) {
    return fields.ErrorAt("width", "write either width: NUMBER or boundaries: [NUMBER, ...]");
  }
  if (fields.Has("width") && !(bucket.width > 0)) {
    return fields.ErrorAt("width", absl::StrCat("found ", bucket.width, ", expected a number above 0"));
  }
  std::vector<std::string> texts;
  BASIN_RETURN_IF_ERROR(ReadTexts(fields, "boundaries", &texts));
  for (const std::string& text : texts) {
    double number = 0;
    if (!absl::SimpleAtod(text, &number) || !std::isfinite(number) ||
        (!bucket.boundaries.empty() && number <= bucket.boundaries.back())) {
      return fields.ErrorAt("boundaries", absl::StrCat("\"", text, "\": expected numbers in ascending order"));
    }
    bucket.boundaries.push_back(number);
  }
  return bucket;
}

absl::Status ReadCategories(const YamlFields& fields, const std::string& file, FeatureSchema* schema) {
  std::vector<std::string> columns;
  BASIN_RETURN_IF_ERROR(ReadTexts(fields, "categorical", &columns));
  for (const std::string& column : columns) schema->categories.push_back({column, column, 0, {}});
  if (!fields.Has("buckets")) return absl::OkStatus();
  const YAML::Node list = fields.Value("buckets");
  if (!list.IsSequence()) return fields.ErrorAt("buckets", absl::StrCat("expected a list, found ", Describe(list)));
  for (size_t i = 0; i < list.size(); ++i) {
    BASIN_ASSIGN_OR_RETURN(const YamlFields item, YamlFields::From(list[i], file, absl::StrCat("buckets[", i, "]"),
                                                                   {"name", "column", "width", "boundaries"}));
    BASIN_ASSIGN_OR_RETURN(FeatureSchema::Category bucket, ReadBucket(item));
    for (const FeatureSchema::Category& other : schema->categories) {
      if (other.name == bucket.name) {
        return item.ErrorAt("name", absl::StrCat("\"", bucket.name, "\" names another category already"));
      }
    }
    schema->categories.push_back(std::move(bucket));
  }
  return absl::OkStatus();
}

absl::Status ReadCrosses(const YamlFields& fields, FeatureSchema* schema) {
  if (!fields.Has("crosses")) return absl::OkStatus();
  std::vector<std::string> names;
  for (const FeatureSchema::Category& category : schema->categories) names.push_back(category.name);
  const YAML::Node list = fields.Value("crosses");
  const absl::string_view shape = "expected lists of two or more categories, such as [[carrier, dest]]";
  if (!list.IsSequence()) return fields.ErrorAt("crosses", shape);
  for (const YAML::Node& item : list) {
    if (!item.IsSequence() || item.size() < 2) return fields.ErrorAt("crosses", shape);
    std::vector<size_t> cross;
    for (const YAML::Node& part : item) {
      if (!part.IsScalar()) return fields.ErrorAt("crosses", shape);
      const auto found = std::find(names.begin(), names.end(), part.Scalar());
      if (found == names.end()) {
        const std::optional<std::string> nearest = Nearest(part.Scalar(), names);
        return fields.ErrorAt("crosses",
                              absl::StrCat("\"", part.Scalar(), "\" is no category; ",
                                           nearest ? absl::StrCat("did you mean \"", *nearest, "\"?")
                                                   : absl::StrCat("categories are: ", absl::StrJoin(names, ", "))));
      }
      const size_t place = static_cast<size_t>(found - names.begin());
      if (std::find(cross.begin(), cross.end(), place) != cross.end()) {
        return fields.ErrorAt("crosses", absl::StrCat("\"", part.Scalar(), "\" is crossed with itself; remove one"));
      }
      cross.push_back(place);
    }
    if (std::find(schema->crosses.begin(), schema->crosses.end(), cross) != schema->crosses.end()) {
      return fields.ErrorAt("crosses", "a cross stands twice; remove one");
    }
    schema->crosses.push_back(std::move(cross));
  }
  return absl::OkStatus();
}

absl::StatusOr<FeatureSchema> Read(const YAML::Node& root, const std::string& file) {
  BASIN_ASSIGN_OR_RETURN(const YamlFields fields, YamlFields::From(root, file, "",
                                                                   {"label", "split", "numeric", "numeric_wide_only",
                                                                    "categorical", "buckets", "crosses"}));
  FeatureSchema schema;
  BASIN_RETURN_IF_ERROR(ReadLabelAndSplit(fields, file, &schema));
  BASIN_RETURN_IF_ERROR(ReadTexts(fields, "numeric", &schema.numeric));
  const size_t of_both = schema.numeric.size();
  BASIN_RETURN_IF_ERROR(ReadTexts(fields, "numeric_wide_only", &schema.numeric));  // refuses one that is in both
  schema.wide_only = schema.numeric.size() - of_both;
  BASIN_RETURN_IF_ERROR(ReadCategories(fields, file, &schema));
  BASIN_RETURN_IF_ERROR(ReadCrosses(fields, &schema));
  if (schema.categories.empty()) {
    return fields.ErrorAt("categorical", "there is no category; name at least one column, or a bucket");
  }
  std::vector<std::string> inputs = schema.numeric;
  for (const FeatureSchema::Category& category : schema.categories) inputs.push_back(category.column);
  if (std::find(inputs.begin(), inputs.end(), schema.label_column) != inputs.end()) {
    return fields.ErrorAt("label", absl::StrCat("\"", schema.label_column, "\" is an input as well: the model would ",
                                                "read off what it shall predict"));
  }
  return schema;
}

void AppendWithLength(absl::string_view text, std::string* out) {
  const auto length = static_cast<uint32_t>(text.size());
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(length >> shift & 0xff));
  out->append(text.data(), text.size());
}

}  // namespace

std::string FeatureSchema::FeatureName(size_t feature) const {
  if (feature < categories.size()) return categories[feature].name;
  return absl::StrJoin(crosses[feature - categories.size()], " x ",
                       [this](std::string* out, size_t place) { out->append(categories[place].name); });
}

absl::StatusOr<FeatureSchema> ParseFeatureSchema(absl::string_view text, const std::string& file) {
  try {
    return Read(YAML::Load(std::string(text)), file);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(MarkText(file, error.mark), "not valid YAML: ", error.msg));
  }
}

std::string BucketText(const FeatureSchema::Category& category, double number) {
  if (category.width > 0) return absl::StrCat(std::floor(number / category.width));
  const auto end = std::upper_bound(category.boundaries.begin(), category.boundaries.end(), number);
  return absl::StrCat(end - category.boundaries.begin());
}

uint64_t FeatureKey(absl::Span<const std::pair<absl::string_view, absl::string_view>> names_and_values) {
  std::string bytes;
  for (const auto& [name, value] : names_and_values) {
    AppendWithLength(name, &bytes);
    AppendWithLength(value, &bytes);
  }
  return XXH64(bytes.data(), bytes.size(), 0);
}

}  // namespace basin
