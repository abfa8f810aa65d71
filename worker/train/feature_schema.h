// What a table of examples (a CSV file) means to a model: which column is the label, which are numbers, which are
// categories, and which examples are kept for the test. Written by users as YAML:
//
//   label: {column: dep_delay, above: 15}          # 1 where the number is above; an example without one is left out
//   split: {column: date, test_from: 2013-11-01}   # compared as texts, so ISO dates compare as dates
//   numeric: [distance]                            # standardised by the training part; empty: its mean
//   numeric_wide_only: [temp]                      # the same, for models with a wide part: kept from the deep one
//   categorical: [carrier, origin, dest]           # texts, empty ones too
//   buckets:                                       # numbers as categories
//     - {name: hour, column: minute_of_day, width: 60}
//     - {name: visibility, column: visib, boundaries: [1, 3, 5]}
//   crosses: [[carrier, dest], [origin, hour]]     # pairs and more of categories
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace basin {

struct FeatureSchema {
  struct Category {
    std::string name;
    std::string column;
    // Both empty: the column's text. Else a number: its bucket of this width, or how many boundaries it has reached.
    double width = 0;
    std::vector<double> boundaries;  // ascending
    bool is_bucket() const { return width > 0 || !boundaries.empty(); }
  };

  std::string label_column;
  double label_above = 0;
  std::string split_column;
  std::string test_from;                     // examples with this text or one behind it are the test part
  std::string test_until;                    // and those from here on are left out; empty: none
  std::vector<std::string> numeric;          // those of the wide part alone at the end
  size_t wide_only = 0;                      // how many of them
  std::vector<Category> categories;          // categorical columns first, then buckets
  std::vector<std::vector<size_t>> crosses;  // each of places in categories

  // Categories, then crosses: what has a weight each.
  size_t features() const { return categories.size() + crosses.size(); }
  // "carrier", or "carrier x dest".
  std::string FeatureName(size_t feature) const;
};

// `file` is for messages. INVALID_ARGUMENT names it with line and column.
absl::StatusOr<FeatureSchema> ParseFeatureSchema(absl::string_view text, const std::string& file);

// The bucket of a number, as the text that stands for it among a category's values. REQUIRES: category.is_bucket().
std::string BucketText(const FeatureSchema::Category& category, double number);

// A feature's value as a row's key: XXH64 (seed 0) over, for each category of it, the lengths (4 bytes each, little
// endian) and bytes of its name and its value's text. The same in every process, so that tables and model files keep
// their meaning.
uint64_t FeatureKey(absl::Span<const std::pair<absl::string_view, absl::string_view>> names_and_values);

}  // namespace basin
