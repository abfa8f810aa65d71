// How a ClusterSpec is read from JSON. Internal to this room.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "cluster_spec/cluster_spec.h"
#include "cluster_spec/json_text.h"

namespace basin {

// Errors carry line and column beside job, index and address.
absl::StatusOr<ClusterSpec> ReadCluster(const JsonDocument& document, const JsonValue& value);

// A decimal integer, as Python's int() reads one: digits with an optional sign. nullopt for "1.0", "", and what does
// not fit in 64 bits.
std::optional<int64_t> ParseIndex(absl::string_view text);

}  // namespace basin
