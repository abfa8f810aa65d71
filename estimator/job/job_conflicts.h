// Fields of a job file that cannot stand together, and what to change.
#pragma once

#include "absl/status/status.h"
#include "estimator/job/job.h"

namespace basin {

class YamlFields;

// Of packages, images and environments, which are exclusive by being given at all. INVALID_ARGUMENT, naming both
// fields.
absl::Status CheckPackageConflicts(const YamlFields& fields);

// Of what was read: counts without their backend, GPUs, variables that two fields set. Likewise.
absl::Status CheckConflicts(const YamlFields& fields, const Job& job);

}  // namespace basin
