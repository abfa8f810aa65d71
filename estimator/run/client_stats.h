// The stats of a living cluster through the client library, as any observer gets them.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "estimator/commands/commands.h"
#include "estimator/run/stats.h"

namespace basin {

// Connects on a thread of its own, again and again until the cluster is there. INVALID_ARGUMENT where the address is
// none.
absl::StatusOr<std::unique_ptr<StatsSource>> OpenClientStats(const StatsAddress& address);

}  // namespace basin
