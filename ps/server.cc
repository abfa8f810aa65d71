#include "ps/server.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// Lanes other than 0 do not hear who is dead; once lane 0 has ended, they wait so long for Goodbyes.
constexpr absl::Duration kOtherLanesGrace = absl::Seconds(2);

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options, const Listen& listen) {
  BASIN_CHECK(options.view.self_ps && options.lanes >= 1);
  const ClusterView& view = options.view;
  auto server = std::unique_ptr<Server>(new Server());
  const bool is_ps0 = view.self_ps->value() == 0;
  server->run_id_ = options.run_id.empty() && is_ps0 ? SecretHex(8) : options.run_id;

  std::vector<std::unique_ptr<wire::Listener>> listeners;
  std::vector<std::string> addresses;
  for (uint32_t lane = 0; lane < options.lanes; ++lane) {
    absl::StatusOr<std::unique_ptr<wire::Listener>> listener = listen(lane);
    if (!listener.ok()) return listener.status();
    addresses.push_back(lane == 0 ? "" : (*listener)->address());
    listeners.push_back(*std::move(listener));
  }
  server->address_ = listeners[0]->address();

  std::vector<std::shared_ptr<const LaneCounters>> all_counters;
  for (uint32_t lane = 0; lane < options.lanes; ++lane) {
    server->counters_.push_back(std::make_shared<LaneCounters>());
    all_counters.push_back(server->counters_.back());
  }
  const std::shared_ptr<BlockPool> pool = BlockPool::Make(options.memory_limit_bytes);
  if (options.metrics_port) {
    BASIN_ASSIGN_OR_RETURN(server->metrics_,
                           PsMetrics::Serve(options.metrics_host, *options.metrics_port, view.self_ps->value(),
                                            all_counters, pool, options.device));
  }

  LaneCoreOptions core;
  core.ordinal = *view.self_ps;
  core.lanes = options.lanes;
  core.ps_count = view.knows_all_ps ? static_cast<uint32_t>(view.ps.size()) : 0;
  core.ps_incarnation = SecretU64() | 1;
  core.run_id = server->run_id_;
  core.token = options.token;
  core.host = options.host;
  core.pid = static_cast<uint64_t>(getpid());
  core.lane_addresses = addresses;
  core.address = view.self_address.empty() ? server->address_ : view.self_address;
  core.trainers = view.trainers();
  if (!core.trainers.empty()) core.chief = view.chief;
  core.heartbeat = options.heartbeat;
  core.dead_after = options.dead_after;
  core.finish_grace = options.finish_grace;
  core.pool = pool;
  core.all_lanes = all_counters;
  core.started = SteadyNow();
  for (uint32_t lane = 0; lane < options.lanes; ++lane) {
    LaneCoreOptions own = core;
    own.lane = LaneIndex(lane);
    own.counters = server->counters_[lane];
    if (options.device) {
      BASIN_ASSIGN_OR_RETURN(own.device, options.device->MakeLane());
      own.counters->device_bytes.Set(own.device->bytes());
    }
    if (server->metrics_) own.on_staleness = server->metrics_->StalenessOf(lane);
    std::function<void()> on_finished;
    if (lane == 0) on_finished = [fd = &server->finished_] { fd->Wake(); };
    const auto on_failed = [server = server.get()](absl::Status failure) {
      {
        MutexLock lock(server->mutex_);
        if (server->failure_.ok()) server->failure_ = std::move(failure);
      }
      server->finished_.Wake();
    };
    server->lanes_.push_back(
        std::make_unique<LaneThread>(std::move(listeners[lane]), std::move(own), std::move(on_finished), on_failed));
  }
  for (auto& lane : server->lanes_) lane->Start();
  return server;
}

Server::~Server() {
  for (auto& lane : lanes_) lane->End(absl::InfinitePast());
  for (auto& lane : lanes_) lane->Join();
}

void Server::End() {
  const absl::Time until = SteadyNow() + (run_over() ? kOtherLanesGrace : absl::ZeroDuration());
  for (auto& lane : lanes_) lane->End(until);
  for (auto& lane : lanes_) lane->Join();
}

absl::Status Server::failure() const {
  MutexLock lock(mutex_);
  return failure_;
}

std::optional<uint16_t> Server::metrics_port() const {
  return metrics_ ? std::optional<uint16_t>(metrics_->port()) : std::nullopt;
}

std::string Server::Summary() const {
  uint64_t applied = 0, refused = 0, shards = 0, in = 0, out = 0, ipc_in = 0, ipc_out = 0;
  for (const auto& lane : counters_) {
    applied += lane->applied.value();
    refused += lane->refused.value();
    shards += lane->shards.value();
    in += lane->bytes_in.value();
    out += lane->bytes_out.value();
    ipc_in += lane->ipc_bytes_in.value();
    ipc_out += lane->ipc_bytes_out.value();
  }
  constexpr double kMiB = 1 << 20;
  std::string summary =
      absl::StrFormat("%d updates applied to %d shards, %d refused, %.1f MiB in, %.1f MiB out", applied, shards,
                      refused, static_cast<double>(in) / kMiB, static_cast<double>(out) / kMiB);
  if (ipc_in + ipc_out > 0) {
    absl::StrAppendFormat(&summary, ", and within the GPU %.1f MiB in, %.1f MiB out",
                          static_cast<double>(ipc_in) / kMiB, static_cast<double>(ipc_out) / kMiB);
  }
  return summary;
}

}  // namespace basin
