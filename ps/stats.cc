// The JSON of docs/wire.md "Stats".
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cluster_spec/json_text.h"
#include "ps/coordinator.h"
#include "ps/lane_core.h"
#include "ps/presence.h"
#include "ps/run_spec.h"
#include "ps/shard_device.h"

namespace basin {
namespace {

std::string Number(double value) { return std::isfinite(value) ? absl::StrFormat("%.9g", value) : "null"; }

absl::string_view RoleName(wire::v1::Role role) {
  switch (role) {
    case wire::v1::ROLE_CHIEF:
      return "chief";
    case wire::v1::ROLE_WORKER:
      return "worker";
    case wire::v1::ROLE_EVALUATOR:
      return "evaluator";
    default:
      return "observer";
  }
}

std::string ClientJson(const Client& client, const Coordinator* coordinator, absl::Time now) {
  const Coordinator::Progress progress =
      coordinator != nullptr ? coordinator->ProgressOf(client, now) : Coordinator::Progress();
  const absl::string_view state = progress.done || client.state == Client::State::kGone ? "done"
                                  : client.alive()                                      ? "alive"
                                                                                        : "dead";
  std::vector<std::string> metrics;
  for (const auto& [name, value] : progress.metrics)
    metrics.push_back(absl::StrCat(JsonQuote(name), ": ", Number(value)));
  return absl::StrCat(
      "{\"role\": \"", RoleName(client.role), "\", \"index\": ", client.index, ", \"host\": ", JsonQuote(client.host),
      ", \"pid\": ", client.pid, ", \"incarnation\": ", client.incarnation.value(), ", \"state\": \"", state,
      "\", \"clock\": ", progress.clock.value(), ", \"lag\": ", progress.lag,
      ", \"staleness_mean\": ", Number(progress.staleness_mean), ", \"staleness_max\": ", progress.staleness_max,
      ", \"steps_per_s\": ", Number(progress.steps_per_s), ", \"metrics\": {", absl::StrJoin(metrics, ", "),
      "}, \"last_heard_s\": ", Number(absl::ToDoubleSeconds(now - client.last_heard)),
      ", \"waiting_for\": ", JsonQuote(progress.waiting_for.empty() ? client.waiting_for : progress.waiting_for), "}");
}

std::string InputJson(const InputQueue& queue) {
  return absl::StrCat("{\"name\": ", JsonQuote(queue.input().name()), ", \"epoch\": ", queue.epoch(),
                      ", \"epochs\": ", queue.input().epochs(), ", \"pieces_done\": ", queue.done(),
                      ", \"pieces_leased\": ", queue.leased(), ", \"pieces_total\": ", queue.total(), "}");
}

}  // namespace

std::string LaneCore::StatsJson(absl::Time now) const {
  uint64_t shards = 0, applied = 0, refused = 0, bytes_in = 0, bytes_out = 0;
  uint64_t device_bytes = 0, ipc_bytes_in = 0, ipc_bytes_out = 0;
  uint64_t rows = 0, table_bytes = 0, evicted = 0, dropped = 0;
  uint64_t tcp_connections = 0, shm_connections = 0, shm_bytes_in = 0, shm_bytes_out = 0;
  const auto add = [&](const LaneCounters& lane) {
    shards += lane.shards.value();
    device_bytes += lane.device_bytes.value();
    ipc_bytes_in += lane.ipc_bytes_in.value();
    ipc_bytes_out += lane.ipc_bytes_out.value();
    applied += lane.applied.value();
    refused += lane.refused.value();
    bytes_in += lane.bytes_in.value();
    bytes_out += lane.bytes_out.value();
    rows += lane.rows.value();
    table_bytes += lane.table_bytes.value();
    evicted += lane.evicted.value();
    dropped += lane.dropped_gradients.value();
    tcp_connections += lane.tcp_connections.value();
    shm_connections += lane.shm_connections.value();
    shm_bytes_in += lane.shm_bytes_in.value();
    shm_bytes_out += lane.shm_bytes_out.value();
  };
  if (options_.all_lanes.empty()) add(*counters_);
  for (const auto& lane : options_.all_lanes) add(*lane);

  const RunModel* model = coordinator_ ? coordinator_->model() : model_.get();
  const wire::v1::RunState run_state = State();
  std::string json =
      absl::StrCat("{\"run\": ", JsonQuote(run_id_), ", \"state\": \"",
                   run_over()         ? "finished"
                   : model != nullptr ? "training"
                                      : "waiting",
                   "\", \"global_step\": ", run_state.global_step(), ", \"min_clock\": ", run_state.min_clock(),
                   ", \"view\": ", run_state.view(), ", \"uptime_s\": ",
                   Number(options_.started == absl::UnixEpoch() ? 0 : absl::ToDoubleSeconds(now - options_.started)));
  const double progress = coordinator_ ? coordinator_->progress() : -1;
  absl::StrAppend(&json, ", \"progress\": ", progress < 0 ? "null" : Number(progress));
  absl::StrAppend(&json, ", \"model\": {\"variables\": ", model != nullptr ? model->spec().model().variables_size() : 0,
                  ", \"tables\": ", model != nullptr ? model->spec().model().tables_size() : 0,
                  ", \"elements\": ", model != nullptr ? model->elements() : 0,
                  ", \"bytes\": ", model != nullptr ? model->bytes_of_parameters() : 0, "}");
  absl::StrAppend(&json, ", \"ps\": [{\"index\": ", options_.ordinal.value(),
                  ", \"address\": ", JsonQuote(options_.address), ", \"lanes\": ", options_.lanes,
                  ", \"device\": ", JsonQuote(options_.device ? options_.device->name() : "cpu"),
                  ", \"device_bytes\": ", device_bytes,
                  ", \"device_lent_bytes\": ", options_.device ? options_.device->lent_bytes() : 0,
                  ", \"ipc_bytes_in\": ", ipc_bytes_in, ", \"ipc_bytes_out\": ", ipc_bytes_out,
                  ", \"shards\": ", shards, ", \"applied\": ", applied, ", \"refused\": ", refused,
                  ", \"bytes_in\": ", bytes_in, ", \"bytes_out\": ", bytes_out, ", \"rows\": ", rows,
                  ", \"table_bytes\": ", table_bytes, ", \"evicted\": ", evicted, ", \"dropped_gradients\": ", dropped,
                  ", \"tcp_connections\": ", tcp_connections, ", \"shm_connections\": ", shm_connections,
                  ", \"shm_bytes_in\": ", shm_bytes_in, ", \"shm_bytes_out\": ", shm_bytes_out, "}]");
  std::vector<std::string> clients, inputs;
  if (coordinator_) {
    for (const auto& [key, client] : presence_->clients())
      clients.push_back(ClientJson(client, coordinator_.get(), now));
    for (const auto& [name, queue] : coordinator_->inputs()) inputs.push_back(InputJson(queue));
  }
  absl::StrAppend(&json, ", \"clients\": [", absl::StrJoin(clients, ", "), "], \"inputs\": [",
                  absl::StrJoin(inputs, ", "), "]}");
  return json;
}

}  // namespace basin
