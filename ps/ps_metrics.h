// What /metrics shows of a ps.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ps/block.h"
#include "ps/device/ps_device.h"
#include "ps/lane_counters.h"

namespace basin {

class PsMetrics {
 public:
  virtual ~PsMetrics() = default;
  // For LaneCoreOptions::on_staleness of this lane.
  virtual std::function<void(uint64_t)> StalenessOf(size_t lane) = 0;
  virtual uint16_t port() const = 0;

  // Serves on `host`:`port` (0: any free one) until it is destroyed. `device` may be none.
  static absl::StatusOr<std::unique_ptr<PsMetrics>> Serve(const std::string& host, uint16_t port, uint32_t ps,
                                                          std::vector<std::shared_ptr<const LaneCounters>> lanes,
                                                          std::shared_ptr<const BlockPool> pool,
                                                          std::shared_ptr<const PsDevice> device);
};

}  // namespace basin
