#include "ps/ps_metrics.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/telemetry/metrics.h"
#include "common/telemetry/metrics_server.h"

namespace basin {
namespace {

class Served final : public PsMetrics {
 public:
  Served(uint32_t ps, std::vector<std::shared_ptr<const LaneCounters>> lanes, std::shared_ptr<const BlockPool> pool,
         std::shared_ptr<const PsDevice> device)
      : lanes_(std::move(lanes)) {
    const std::string ps_text = absl::StrCat(ps);
    const telemetry::Labels of_ps = {{"ps", ps_text}};
    for (size_t lane = 0; lane < lanes_.size(); ++lane) {
      const telemetry::Labels labels = {{"ps", ps_text}, {"lane", absl::StrCat(lane)}};
      const auto total = [&](const char* name, const char* help, Counter LaneCounters::*counter, double unit = 1) {
        totals_.push_back({registry_.AddCounter(name, help, labels), &(lanes_[lane].get()->*counter), unit});
      };
      const auto gauge = [&](const char* name, const char* help, Counter LaneCounters::*counter) {
        gauges_.push_back({registry_.AddGauge(name, help, labels), &(lanes_[lane].get()->*counter)});
      };
      total("basin_ps_applied_total", "Pushes and assignments applied, one a shard.", &LaneCounters::applied);
      total("basin_ps_repeats_total", "Pushes that came again and were not applied again.", &LaneCounters::repeats);
      total("basin_ps_refused_total", "Entries of updates that were refused and changed nothing.",
            &LaneCounters::refused);
      total("basin_ps_refused_messages_total", "Messages answered with an error.", &LaneCounters::refused_messages);
      total("basin_ps_malformed_messages_total", "Messages that could not be read.", &LaneCounters::malformed);
      total("basin_ps_pulled_total", "Shards sent to clients.", &LaneCounters::pulled);
      total("basin_ps_received_bytes_total", "Bytes of messages received.", &LaneCounters::bytes_in);
      total("basin_ps_sent_bytes_total", "Bytes of messages sent.", &LaneCounters::bytes_out);
      total("basin_ps_shm_received_bytes_total", "Of the bytes received, those through shared memory.",
            &LaneCounters::shm_bytes_in);
      total("basin_ps_shm_sent_bytes_total", "Of the bytes sent, those through shared memory.",
            &LaneCounters::shm_bytes_out);
      gauge("basin_ps_tcp_connections", "Channels over TCP.", &LaneCounters::tcp_connections);
      gauge("basin_ps_shm_connections", "Channels over shared memory.", &LaneCounters::shm_connections);
      total("basin_ps_lane_busy_seconds_total", "Time the lane's thread was not waiting.", &LaneCounters::busy_us,
            1e-6);
      total("basin_ps_rows_evicted_total", "Rows of tables that made room or were not used.", &LaneCounters::evicted);
      total("basin_ps_gradients_dropped_total", "Gradients of keys that are not admitted yet, or found no room.",
            &LaneCounters::dropped_gradients);
      gauge("basin_ps_rows", "Rows of the lane's tables.", &LaneCounters::rows);
      gauge("basin_ps_row_candidates", "Keys that were pushed and are not admitted yet.",
            &LaneCounters::row_candidates);
      gauge("basin_ps_tables_bytes", "Memory of the lane's tables.", &LaneCounters::table_bytes);
      gauge("basin_ps_shards", "Shards of the lane.", &LaneCounters::shards);
      if (device != nullptr) {
        gauge("basin_ps_device_bytes", "Memory that the lane has taken of the device.", &LaneCounters::device_bytes);
        total("basin_ps_ipc_received_bytes_total", "Gradients and values that came through CUDA IPC.",
              &LaneCounters::ipc_bytes_in);
        total("basin_ps_ipc_sent_bytes_total", "Parameters that left through CUDA IPC.", &LaneCounters::ipc_bytes_out);
      }
      gauge("basin_ps_sessions", "Channels that have said Hello to the lane.", &LaneCounters::sessions);
      staleness_.push_back(registry_.AddHistogram("basin_ps_staleness_versions",
                                                  "Version at apply less version pulled, of each push to a shard.",
                                                  {0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 1024}, labels));
    }
    const auto of_lane0 = [&](const char* name, const char* help, Counter LaneCounters::*counter) {
      gauges_.push_back({registry_.AddGauge(name, help, of_ps), &(lanes_[0].get()->*counter)});
    };
    of_lane0("basin_ps_clients_alive", "Clients heard within dead-after.", &LaneCounters::clients_alive);
    if (ps == 0) {
      of_lane0("basin_global_step", "Steps of all workers together.", &LaneCounters::global_step);
      of_lane0("basin_min_clock", "Steps of the slowest living worker.", &LaneCounters::min_clock);
      of_lane0("basin_view", "Number of the announced membership.", &LaneCounters::view);
    }
    telemetry::Gauge mapped = registry_.AddGauge("basin_ps_blocks_bytes", "Memory of shards' blocks.", of_ps);
    telemetry::Gauge limit = registry_.AddGauge("basin_ps_blocks_limit_bytes",
                                                "Most memory that shards' blocks may take; 0: no limit.", of_ps);
    std::optional<telemetry::Gauge> lent;
    if (device != nullptr) {
      lent = registry_.AddGauge("basin_ps_device_lent_bytes", "Memory of the device that clients of this host use.",
                                {{"ps", ps_text}, {"device", device->name()}});
      telemetry::Gauge device_limit =
          registry_.AddGauge("basin_ps_device_limit_bytes", "Most memory that shards may take of the device.",
                             {{"ps", ps_text}, {"device", device->name()}});
      device_limit.Set(static_cast<double>(device->memory_limit_bytes()));
    }
    registry_.BeforeRendering([this, mapped, limit, lent, device, pool = std::move(pool)]() mutable {
      if (lent) lent->Set(static_cast<double>(device->lent_bytes()));
      for (Total& total : totals_) total.shown.AdvanceTo(static_cast<double>(total.counter->value()) * total.unit);
      for (Shown& gauge : gauges_) gauge.shown.Set(static_cast<double>(gauge.counter->value()));
      mapped.Set(static_cast<double>(pool->mapped_bytes()));
      limit.Set(static_cast<double>(pool->limit_bytes()));
    });
  }

  absl::Status Listen(const std::string& host, uint16_t port) {
    BASIN_ASSIGN_OR_RETURN(server_, telemetry::MetricsServer::Start(host, port, registry_));
    return absl::OkStatus();
  }

  std::function<void(uint64_t)> StalenessOf(size_t lane) override {
    return [histogram = staleness_[lane]](uint64_t staleness) mutable {
      histogram.Observe(static_cast<double>(staleness));
    };
  }
  uint16_t port() const override { return server_->port(); }

 private:
  struct Total {
    telemetry::Counter shown;
    const Counter* counter;
    double unit;
  };
  struct Shown {
    telemetry::Gauge shown;
    const Counter* counter;
  };

  const std::vector<std::shared_ptr<const LaneCounters>> lanes_;
  telemetry::Registry registry_;
  std::vector<Total> totals_;
  std::vector<Shown> gauges_;
  std::vector<telemetry::Histogram> staleness_;
  std::unique_ptr<telemetry::MetricsServer> server_;  // last: it ends first
};

}  // namespace

absl::StatusOr<std::unique_ptr<PsMetrics>> PsMetrics::Serve(const std::string& host, uint16_t port, uint32_t ps,
                                                            std::vector<std::shared_ptr<const LaneCounters>> lanes,
                                                            std::shared_ptr<const BlockPool> pool,
                                                            std::shared_ptr<const PsDevice> device) {
  auto served = std::make_unique<Served>(ps, std::move(lanes), std::move(pool), std::move(device));
  BASIN_RETURN_IF_ERROR(served->Listen(host, port));
  return served;
}

}  // namespace basin
