// The text of a YAML or JSON file as one document.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "yaml-cpp/yaml.h"

namespace basin {

// INVALID_ARGUMENT, with line and column where there are some, for what is neither YAML nor JSON, for no or several
// documents, and for a node that contains itself through an alias.
absl::StatusOr<YAML::Node> LoadOneDocument(absl::string_view text, const std::string& file_name);

}  // namespace basin
