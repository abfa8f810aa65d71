// Which of the estimator's fields this version carries out, and which it knows but refuses.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace basin {

class YamlFields;

// All fields that a job file may hold, for "did you mean".
std::vector<std::string> KnownJobFields();

// Combinations that are wrong in every version, each naming both fields.
absl::Status CheckConflicts(const YamlFields& fields);

// UNIMPLEMENTED, naming the field, for each that asks for more than this version does.
absl::Status RefuseLaterFields(const YamlFields& fields);

}  // namespace basin
