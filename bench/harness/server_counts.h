// What the parameter servers say of themselves, in their stats, that a figure must agree with. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace basin::bench {

// Over all ps.
struct ServerCounts {
  uint64_t applied = 0;  // updates of shards and of buckets of rows
  uint64_t shards = 0;   // of dense variables
  uint64_t rows = 0, dropped_gradients = 0;
  uint64_t tcp_connections = 0, shm_connections = 0;  // now
};

// Of the JSON of basin_stats. INTERNAL where it is not what is expected.
absl::StatusOr<ServerCounts> CountsOf(const std::string& stats);

// OK, or FAILED_PRECONDITION: a figure named for `transport` ("tcp", "shm"; "auto" promises nothing) did not go that
// way. While the clients are connected. `alone`: nobody else uses the servers, so that there are no other connections.
absl::Status CheckTransport(const ServerCounts& counts, const std::string& transport, bool alone);

}  // namespace basin::bench
