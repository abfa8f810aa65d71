// Examples of a CSV file as a schema reads them, and the batches made of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/format/csv.h"
#include "worker/train/feature_schema.h"

namespace basin {

// Of the numeric columns, over the training part; they go into the model file, for what it is used on later.
struct NumericScale {
  std::vector<float> mean, deviation;  // by numeric column; a deviation of 0 is written as 1
};

class FeatureData final {
 public:
  // Examples, an index each.
  struct Part {
    std::vector<float> numeric;   // [count, numeric columns]; NaN where the field was empty
    std::vector<uint32_t> ids;    // [count, features]: which of its feature's keys
    std::vector<uint8_t> labels;  // 0 or 1
    uint64_t count() const { return labels.size(); }
  };

  // INVALID_ARGUMENT names line and column: a column that is missing, a field that is no number. Both parts must have
  // examples of both labels.
  static absl::StatusOr<FeatureData> Load(const std::string& path, const FeatureSchema& schema);
  static absl::StatusOr<FeatureData> Read(CsvReader& csv, const FeatureSchema& schema);

  const Part& train() const { return train_; }
  const Part& test() const { return test_; }
  uint64_t without_label() const { return without_label_; }
  const FeatureSchema& schema() const { return schema_; }
  // Every key of the feature, by id: in the order in which they stand in the file.
  const std::vector<uint64_t>& keys(size_t feature) const { return keys_[feature]; }
  // Those of the training part alone: the vocabulary that a model can have learned.
  std::vector<uint64_t> TrainKeys(size_t feature) const;
  NumericScale TrainScale() const;

 private:
  FeatureSchema schema_;
  Part train_, test_;
  uint64_t without_label_ = 0;
  std::vector<std::vector<uint64_t>> keys_;
};

// The examples' numbers, standardised and 0 where the field was empty ([examples, numeric columns]), and their labels.
// REQUIRES: as FeatureBatcher::Gather.
void GatherNumbers(const FeatureData& data, const NumericScale& scale, const FeatureData::Part& part,
                   absl::Span<const uint32_t> examples, float* numeric, uint8_t* labels);

// Which rows of a table a batch needs.
struct TableKeys {
  std::vector<uint64_t> keys;  // each of a feature's once
  std::vector<uint32_t> at;    // [rows, columns of the table]: place in keys
};

struct FeatureBatch {
  int64_t rows = 0;
  std::vector<float> numeric;     // [rows, numeric columns], standardised
  std::vector<uint8_t> labels;    // [rows]
  std::vector<TableKeys> tables;  // first the one of all features' weights, then one a category
};

// Makes batches; keeps what it needs for that between calls. `data` must outlive it.
class FeatureBatcher final {
 public:
  FeatureBatcher(const FeatureData& data, NumericScale scale);
  // REQUIRES: `part` is the data's, and each index is below its count.
  void Gather(const FeatureData::Part& part, absl::Span<const uint32_t> examples, FeatureBatch* batch);

 private:
  const FeatureData& data_;
  const NumericScale scale_;
  uint64_t batch_ = 0;
  std::vector<std::vector<uint64_t>> seen_in_;  // by feature and id: the last batch that had it
  std::vector<std::vector<uint32_t>> place_;    // and where
};

}  // namespace basin
