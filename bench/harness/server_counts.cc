#include "bench/harness/server_counts.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace basin::bench {

absl::StatusOr<ServerCounts> CountsOf(const std::string& text) {
  const nlohmann::json stats = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!stats.is_object() || !stats.contains("ps") || !stats["ps"].is_array())
    return absl::InternalError(absl::StrCat("the parameter servers' stats are not what is expected: ", text));
  ServerCounts counts;
  for (const nlohmann::json& ps : stats["ps"]) {
    const auto add = [&](const char* name, uint64_t& sum) -> absl::Status {
      if (!ps.is_object() || !ps.contains(name) || !ps[name].is_number_unsigned())
        return absl::InternalError(absl::StrCat("the parameter servers' stats have no count \"", name, "\": ", text));
      sum += ps[name].get<uint64_t>();
      return absl::OkStatus();
    };
    absl::Status status = add("applied", counts.applied);
    status.Update(add("shards", counts.shards));
    status.Update(add("rows", counts.rows));
    status.Update(add("dropped_gradients", counts.dropped_gradients));
    status.Update(add("tcp_connections", counts.tcp_connections));
    status.Update(add("shm_connections", counts.shm_connections));
    if (!status.ok()) return status;
  }
  return counts;
}

absl::Status CheckTransport(const ServerCounts& counts, const std::string& transport, bool alone) {
  if (transport != "tcp" && transport != "shm") return absl::OkStatus();
  const bool tcp = transport == "tcp";
  const uint64_t named = tcp ? counts.tcp_connections : counts.shm_connections;
  const uint64_t other = tcp ? counts.shm_connections : counts.tcp_connections;
  if (named > 0 && (other == 0 || !alone)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this was to go over ", transport, ", but the parameter servers have ", counts.tcp_connections,
                   " connections over TCP and ", counts.shm_connections,
                   " over shared memory; the figure is dropped. Shared memory needs servers and workers of one user in "
                   "one network namespace"));
}

}  // namespace basin::bench
