// The names of a job file's fields: which this version carries out, which it knows but refuses, which have an older
// spelling.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "yaml-cpp/yaml.h"

namespace basin {

class YamlFields;

// All that a job file may hold, for "did you mean".
const std::vector<std::string>& KnownJobFields();

// Those of `names` that are given.
std::vector<std::string> GivenOf(const YamlFields& fields, const std::vector<std::string>& names);

// UNIMPLEMENTED, naming the field, for the first that asks for what this version does not do.
absl::Status RefuseLaterFields(const YamlFields& fields);

// The name under which the file has `name`: an older spelling where that is given, with a line for `warnings`.
// INVALID_ARGUMENT where both are.
absl::Status FindSpelling(const YamlFields& fields, const std::string& name, std::string* found,
                          std::vector<std::string>* warnings);

}  // namespace basin
