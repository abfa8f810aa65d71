// Requirement files as pip reads them, made into lines that mean the same on every machine. Pure but for `read`.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

struct Requirements {
  std::vector<std::string> lines;        // without comments, continued lines joined
  std::vector<std::string> constraints;  // of the files that -c names
};

// The content of a file by its path relative to the source directory.
using RequirementsReader = std::function<absl::StatusOr<std::string>(const std::string& path)>;

// Adds what `text` says. `name` is the file's path relative to the source directory, from which -r and -c in it are
// taken (both are put in place); of a list in the job, the field's name. INVALID_ARGUMENT with file and line for a file
// that includes itself, an editable install and a relative path: an environment is shared by runs and lies elsewhere.
absl::Status AddRequirements(absl::string_view text, const std::string& name, const RequirementsReader& read,
                             Requirements* out);

}  // namespace basin
