// A snapshot of the source directory as one small text of bytes, for a ConfigMap: the messages that would carry it to
// an agent, packed.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/agent/messages.h"
#include "estimator/snapshot/unpack.h"

namespace basin {

// INVALID_ARGUMENT where the snapshot is far too large for that.
absl::StatusOr<std::string> PackSource(const StagedSnapshot& snapshot);
// The offer first, then the tree. INVALID_ARGUMENT for what PackSource did not make.
absl::StatusOr<std::vector<agent::ToAgent>> UnpackSource(absl::string_view archive);

}  // namespace basin
