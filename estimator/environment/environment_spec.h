// What must be installed for a job's scripts, as a value that names itself by its content. Parsing and naming are pure;
// ReadEnvironmentSpec reads the files that a job names.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/job/job.h"

namespace basin {

struct EnvironmentSpec {
  enum class Kind {
    kNone,   // nothing to install: the python3 that is there (also user_managed)
    kPip,    // a virtual environment
    kConda,  // micromamba, mamba or conda
  };
  Kind kind = Kind::kNone;
  // kPip: requirement lines, files that they included already in place of the line that named them, comments left out.
  std::vector<std::string> requirements;
  std::vector<std::string> constraints;  // kPip: likewise, of -c
  // kConda: the environment file, in YAML.
  std::string conda_file;

  bool operator==(const EnvironmentSpec&) const = default;
};

// From the job's packages and framework_version, and from the files in its source_directory. NOT_FOUND with the path
// that was looked at; INVALID_ARGUMENT naming file, line and what to do for what an environment shared by runs cannot
// hold (a relative path, an editable install).
absl::StatusOr<EnvironmentSpec> ReadEnvironmentSpec(const Job& job);

// Canonical JSON, the same for equal specs in every process; and back (INVALID_ARGUMENT).
std::string EnvironmentSpecToText(const EnvironmentSpec& spec);
absl::StatusOr<EnvironmentSpec> ParseEnvironmentSpec(absl::string_view text);

// "pip-<16 hex>", "conda-<16 hex>", by the content; "none" for kNone.
std::string EnvironmentName(const EnvironmentSpec& spec);

}  // namespace basin
