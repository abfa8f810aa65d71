#include "worker/train/feature_data.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// Columns of the file, by their use.
struct Places {
  size_t label = 0, split = 0;
  std::vector<size_t> numeric, categories;
};

absl::StatusOr<Places> FindPlaces(const CsvReader& csv, const FeatureSchema& schema) {
  Places places;
  BASIN_ASSIGN_OR_RETURN(places.label, csv.Find(schema.label_column));
  BASIN_ASSIGN_OR_RETURN(places.split, csv.Find(schema.split_column));
  for (const std::string& name : schema.numeric) {
    BASIN_ASSIGN_OR_RETURN(const size_t place, csv.Find(name));
    places.numeric.push_back(place);
  }
  for (const FeatureSchema::Category& category : schema.categories) {
    BASIN_ASSIGN_OR_RETURN(const size_t place, csv.Find(category.column));
    places.categories.push_back(place);
  }
  return places;
}

// A field's number; NaN where it is empty.
absl::StatusOr<double> NumberAt(const CsvReader& csv, size_t column) {
  const absl::string_view text = csv.fields()[column];
  if (text.empty()) return std::numeric_limits<double>::quiet_NaN();
  double number = 0;
  if (!absl::SimpleAtod(text, &number) || !std::isfinite(number)) {
    return csv.ErrorAt(column, absl::StrCat("\"", text.substr(0, 60), "\" is no number; leave unknown ones empty"));
  }
  return number;
}

// Ids of a feature's keys, in the order of their coming.
class Vocabulary {
 public:
  uint32_t IdOf(uint64_t key, std::vector<uint64_t>* keys) {
    const auto [found, added] = ids_.try_emplace(key, static_cast<uint32_t>(keys->size()));
    if (added) keys->push_back(key);
    return found->second;
  }

 private:
  absl::flat_hash_map<uint64_t, uint32_t> ids_;
};

}  // namespace

absl::StatusOr<FeatureData> FeatureData::Load(const std::string& path, const FeatureSchema& schema) {
  BASIN_ASSIGN_OR_RETURN(auto csv, CsvReader::Open(path));
  absl::StatusOr<FeatureData> data = Read(*csv, schema);
  if (!data.ok()) return data;
  for (const auto& [part, name] : {std::make_pair(&data->train_, "training"), std::make_pair(&data->test_, "test")}) {
    const auto positives = std::count(part->labels.begin(), part->labels.end(), 1);
    if (part->count() == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the ", name, " part has no examples; does the schema's split, ", schema.split_column,
                       " from \"", schema.test_from, "\" on, fit the column's texts?"));
    }
    if (positives == 0 || static_cast<uint64_t>(positives) == part->count()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": all ", part->count(), " examples of the ", name, " part have the label ", positives == 0 ? 0 : 1,
          "; does the schema's label, ", schema.label_column, " above ", schema.label_above, ", fit the column?"));
    }
  }
  return data;
}

absl::StatusOr<FeatureData> FeatureData::Read(CsvReader& csv, const FeatureSchema& schema) {
  FeatureData data;
  data.schema_ = schema;
  data.keys_.resize(schema.features());
  std::vector<Vocabulary> vocabularies(schema.features());
  BASIN_ASSIGN_OR_RETURN(const Places places, FindPlaces(csv, schema));
  std::vector<std::string> texts(schema.categories.size());
  std::vector<std::pair<absl::string_view, absl::string_view>> named;
  while (true) {
    BASIN_ASSIGN_OR_RETURN(const bool there, csv.Next());
    if (!there) return data;
    BASIN_ASSIGN_OR_RETURN(const double label, NumberAt(csv, places.label));
    const absl::string_view when = csv.fields()[places.split];
    if (!schema.test_until.empty() && when >= schema.test_until) continue;
    if (std::isnan(label)) {
      ++data.without_label_;
      continue;
    }
    Part& part = when >= schema.test_from ? data.test_ : data.train_;
    if (part.count() == std::numeric_limits<uint32_t>::max()) return csv.ErrorAt(0, "more than 2^32 - 1 examples");
    part.labels.push_back(label > schema.label_above ? 1 : 0);
    for (const size_t column : places.numeric) {
      BASIN_ASSIGN_OR_RETURN(const double number, NumberAt(csv, column));
      part.numeric.push_back(static_cast<float>(number));
    }
    for (size_t i = 0; i < texts.size(); ++i) {
      const FeatureSchema::Category& category = schema.categories[i];
      if (category.is_bucket()) {
        BASIN_ASSIGN_OR_RETURN(const double number, NumberAt(csv, places.categories[i]));
        texts[i] = std::isnan(number) ? "" : BucketText(category, number);
      } else {
        texts[i] = std::string(csv.fields()[places.categories[i]]);
      }
    }
    for (size_t feature = 0; feature < schema.features(); ++feature) {
      named.clear();
      if (feature < texts.size()) {
        named.emplace_back(schema.categories[feature].name, texts[feature]);
      } else {
        for (const size_t i : schema.crosses[feature - texts.size()]) {
          named.emplace_back(schema.categories[i].name, texts[i]);
        }
      }
      part.ids.push_back(vocabularies[feature].IdOf(FeatureKey(named), &data.keys_[feature]));
    }
  }
}

std::vector<uint64_t> FeatureData::TrainKeys(size_t feature) const {
  std::vector<bool> there(keys_[feature].size());
  for (size_t i = feature; i < train_.ids.size(); i += schema_.features()) there[train_.ids[i]] = true;
  std::vector<uint64_t> keys;
  for (size_t id = 0; id < there.size(); ++id) {
    if (there[id]) keys.push_back(keys_[feature][id]);
  }
  return keys;
}

NumericScale FeatureData::TrainScale() const {
  const size_t columns = schema_.numeric.size();
  NumericScale scale;
  for (size_t column = 0; column < columns; ++column) {
    double mean = 0, squares = 0;  // Welford, Technometrics 4 (1962)
    uint64_t count = 0;
    for (size_t i = column; i < train_.numeric.size(); i += columns) {
      const double x = train_.numeric[i];
      if (std::isnan(x)) continue;
      const double off = x - mean;
      mean += off / static_cast<double>(++count);
      squares += off * (x - mean);
    }
    const double deviation = count == 0 ? 0 : std::sqrt(squares / static_cast<double>(count));
    scale.mean.push_back(static_cast<float>(mean));
    scale.deviation.push_back(deviation > 0 ? static_cast<float>(deviation) : 1.0f);
  }
  return scale;
}

void GatherNumbers(const FeatureData& data, const NumericScale& scale, const FeatureData::Part& part,
                   absl::Span<const uint32_t> examples, float* numeric, uint8_t* labels) {
  const size_t numbers = data.schema().numeric.size();
  for (const uint32_t example : examples) {
    *labels++ = part.labels[example];
    for (size_t i = 0; i < numbers; ++i) {
      const float x = part.numeric[example * numbers + i];
      *numeric++ = std::isnan(x) ? 0 : (x - scale.mean[i]) / scale.deviation[i];
    }
  }
}

FeatureBatcher::FeatureBatcher(const FeatureData& data, NumericScale scale) : data_(data), scale_(std::move(scale)) {
  for (size_t feature = 0; feature < data.schema().features(); ++feature) {
    seen_in_.emplace_back(data.keys(feature).size(), 0);
    place_.emplace_back(data.keys(feature).size());
  }
}

void FeatureBatcher::Gather(const FeatureData::Part& part, absl::Span<const uint32_t> examples, FeatureBatch* batch) {
  const FeatureSchema& schema = data_.schema();
  const size_t rows = examples.size(), numbers = schema.numeric.size(), features = schema.features();
  ++batch_;
  batch->rows = static_cast<int64_t>(rows);
  batch->labels.resize(rows);
  batch->numeric.resize(rows * numbers);
  GatherNumbers(data_, scale_, part, examples, batch->numeric.data(), batch->labels.data());
  batch->tables.resize(1 + schema.categories.size());
  for (TableKeys& table : batch->tables) {
    table.keys.clear();
    table.at.resize(rows);
  }
  TableKeys& wide = batch->tables[0];
  wide.at.resize(rows * features);
  for (size_t feature = 0; feature < features; ++feature) {
    const size_t first = wide.keys.size();
    for (size_t row = 0; row < rows; ++row) {
      const uint32_t id = part.ids[examples[row] * features + feature];
      if (seen_in_[feature][id] != batch_) {
        seen_in_[feature][id] = batch_;
        place_[feature][id] = static_cast<uint32_t>(wide.keys.size() - first);
        wide.keys.push_back(data_.keys(feature)[id]);
      }
      wide.at[row * features + feature] = static_cast<uint32_t>(first + place_[feature][id]);
      if (feature < schema.categories.size()) batch->tables[1 + feature].at[row] = place_[feature][id];
    }
    if (feature < schema.categories.size())
      batch->tables[1 + feature].keys.assign(wide.keys.begin() + first, wide.keys.end());
  }
}

}  // namespace basin
