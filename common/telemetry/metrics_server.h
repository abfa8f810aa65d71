// The page /metrics.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace basin::telemetry {

class Registry;

// Serves GET /metrics from threads of its own (one that accepts, two that answer) until it is destroyed.
class MetricsServer final {
 public:
  // Listens on host:port; 0 takes a free port. `registry` outlives the server. ALREADY_EXISTS: the port is taken or the
  // host is not this machine's.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& host, uint16_t port,
                                                              const Registry& registry);
  ~MetricsServer();

  uint16_t port() const;

 private:
  struct State;
  explicit MetricsServer(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace basin::telemetry
