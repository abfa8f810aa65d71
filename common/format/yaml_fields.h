// A mapping of a YAML file (a job, a schema) whose every complaint names the file, the line, the column and the field.
// For parsers alone: it shows yaml-cpp's types.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "yaml-cpp/yaml.h"

namespace basin {

class YamlFields {
 public:
  // `path` is where the mapping stands in the file ("" at the top, "training.rule" below) and comes before the names in
  // messages. INVALID_ARGUMENT where `node` is no mapping, a key is unknown (naming the nearest of `known`) or
  // repeated.
  static absl::StatusOr<YamlFields> From(const YAML::Node& node, const std::string& file, const std::string& path,
                                         const std::vector<std::string>& known);

  // A field whose value is null (None in Python), "", [] or {} counts as not given.
  bool Has(absl::string_view name) const;
  // Whether its key stands there, be the value empty or not.
  bool IsNamed(absl::string_view name) const { return Find(name) != nullptr; }
  // REQUIRES: Has(name).
  YAML::Node Value(absl::string_view name) const;

  // Each leaves *out alone where the field is not given.
  absl::Status Read(absl::string_view name, std::string* out) const;
  absl::Status Read(absl::string_view name, bool* out) const;
  absl::Status Read(absl::string_view name, int* out, int least, int most) const;
  absl::Status Read(absl::string_view name, double* out) const;

  // "job.yaml:3:1: training.rule: MESSAGE", with the place of the field's key.
  absl::Status ErrorAt(absl::string_view name, absl::string_view message) const;
  absl::Status Unimplemented(absl::string_view name, absl::string_view message) const;
  std::string PathOf(absl::string_view name) const;

 private:
  struct Entry {
    std::string name;
    YAML::Mark mark;
    YAML::Node value;
  };
  const Entry* Find(absl::string_view name) const;
  std::string Place(absl::string_view name) const;

  std::string file_;
  std::string path_;
  std::vector<Entry> entries_;
};

// "job.yaml:3:7: ", counted from 1; without a place where the mark has none.
std::string MarkText(const std::string& file, const YAML::Mark& mark);
// What stands there, short enough for a message: `"text"`, `a list`, `a mapping`, `nothing`.
std::string Describe(const YAML::Node& node);

}  // namespace basin
