#include "common/format/yaml_fields.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/nearest.h"
#include "common/base/text.h"

namespace basin {
namespace {

bool IsEmpty(const YAML::Node& value) {
  return value.IsNull() || (value.IsScalar() && value.Scalar().empty()) ||
         ((value.IsSequence() || value.IsMap()) && value.size() == 0);
}

}  // namespace

std::string MarkText(const std::string& file, const YAML::Mark& mark) {
  if (mark.is_null()) return absl::StrCat(file, ": ");
  return absl::StrCat(file, ":", mark.line + 1, ":", mark.column + 1, ": ");
}

std::string Describe(const YAML::Node& node) {
  if (node.IsScalar()) {
    const std::string& text = node.Scalar();
    return absl::StrCat("\"", text.size() > 60 ? text.substr(0, 57) + "..." : text, "\"");
  }
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a mapping";
  return "nothing";
}

absl::StatusOr<YamlFields> YamlFields::From(const YAML::Node& node, const std::string& file, const std::string& path,
                                            const std::vector<std::string>& known) {
  YamlFields fields;
  fields.file_ = file;
  fields.path_ = path;
  if (!node.IsMap()) {
    return absl::InvalidArgumentError(absl::StrCat(MarkText(file, node.Mark()), path.empty() ? "the file" : path,
                                                   ": expected a mapping (name: value), found ", Describe(node)));
  }
  for (const auto& item : node) {
    if (!item.first.IsScalar()) {
      return absl::InvalidArgumentError(absl::StrCat(MarkText(file, item.first.Mark()), path,
                                                     ": expected a field name, found ", Describe(item.first)));
    }
    Entry entry{item.first.Scalar(), item.first.Mark(), item.second};
    const std::string shown = path.empty() ? entry.name : absl::StrCat(path, ".", entry.name);
    if (fields.Find(entry.name) != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(MarkText(file, entry.mark), "field \"", shown, "\" is given twice; remove one"));
    }
    bool found = false;
    for (const std::string& name : known) found = found || name == entry.name;
    if (!found) {
      const auto nearest = Nearest(entry.name, known);
      return absl::InvalidArgumentError(
          absl::StrCat(MarkText(file, entry.mark), "unknown field \"", shown, "\"; ",
                       nearest ? absl::StrCat("did you mean \"", *nearest, "\"?") : "known here: ",
                       nearest ? "" : absl::StrJoin(known, ", ")));
    }
    fields.entries_.push_back(std::move(entry));
  }
  return fields;
}

const YamlFields::Entry* YamlFields::Find(absl::string_view name) const {
  for (const Entry& entry : entries_) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

bool YamlFields::Has(absl::string_view name) const {
  const Entry* entry = Find(name);
  return entry != nullptr && !IsEmpty(entry->value);
}

YAML::Node YamlFields::Value(absl::string_view name) const { return Find(name)->value; }

std::string YamlFields::PathOf(absl::string_view name) const {
  return path_.empty() ? std::string(name) : absl::StrCat(path_, ".", name);
}

std::string YamlFields::Place(absl::string_view name) const {
  const Entry* entry = Find(name);
  return absl::StrCat(entry == nullptr ? absl::StrCat(file_, ": ") : MarkText(file_, entry->mark), PathOf(name), ": ");
}

absl::Status YamlFields::ErrorAt(absl::string_view name, absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(Place(name), message));
}

absl::Status YamlFields::Unimplemented(absl::string_view name, absl::string_view message) const {
  return absl::UnimplementedError(absl::StrCat(Place(name), message));
}

absl::Status YamlFields::Read(absl::string_view name, std::string* out) const {
  if (!Has(name)) return absl::OkStatus();
  const YAML::Node value = Value(name);
  if (!value.IsScalar()) return ErrorAt(name, absl::StrCat("expected text, found ", Describe(value)));
  *out = value.Scalar();
  return absl::OkStatus();
}

absl::Status YamlFields::Read(absl::string_view name, bool* out) const {
  if (!Has(name)) return absl::OkStatus();
  const YAML::Node value = Value(name);
  const std::string text = value.IsScalar() ? absl::AsciiStrToLower(value.Scalar()) : "";
  if (text != "true" && text != "false") {
    return ErrorAt(name, absl::StrCat("expected true or false, found ", Describe(value)));
  }
  *out = text == "true";
  return absl::OkStatus();
}

absl::Status YamlFields::Read(absl::string_view name, int* out, int least, int most) const {
  if (!Has(name)) return absl::OkStatus();
  const YAML::Node value = Value(name);
  int number = 0;
  if (!value.IsScalar() || !absl::SimpleAtoi(value.Scalar(), &number) || number < least || number > most) {
    return ErrorAt(name,
                   absl::StrCat("expected a whole number from ", least, " to ", most, ", found ", Describe(value)));
  }
  *out = number;
  return absl::OkStatus();
}

absl::Status YamlFields::Read(absl::string_view name, double* out) const {
  if (!Has(name)) return absl::OkStatus();
  const YAML::Node value = Value(name);
  double number = 0;
  if (!value.IsScalar() || !absl::SimpleAtod(value.Scalar(), &number) || !std::isfinite(number)) {
    return ErrorAt(name, absl::StrCat("expected a number, found ", Describe(value)));
  }
  *out = number;
  return absl::OkStatus();
}

}  // namespace basin
