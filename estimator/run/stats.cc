#include "estimator/run/stats.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace basin {
namespace {
using Json = nlohmann::json;

void Get(const Json& object, const char* name, std::string* out) {
  const auto found = object.find(name);
  if (found != object.end() && found->is_string()) *out = found->get<std::string>();
}
void Get(const Json& object, const char* name, int64_t* out) {
  const auto found = object.find(name);
  if (found != object.end() && found->is_number()) *out = found->get<int64_t>();
}
void Get(const Json& object, const char* name, int* out) {
  int64_t value = *out;
  Get(object, name, &value);
  *out = static_cast<int>(value);
}
void Get(const Json& object, const char* name, double* out) {
  const auto found = object.find(name);
  if (found != object.end() && found->is_number()) *out = found->get<double>();
}
const Json& Part(const Json& object, const char* name) {
  static const Json* none = new Json();
  const auto found = object.find(name);
  return found == object.end() ? *none : *found;
}

ClientStats ParseClient(const Json& json) {
  ClientStats client;
  Get(json, "role", &client.role);
  Get(json, "index", &client.index);
  Get(json, "host", &client.host);
  Get(json, "pid", &client.pid);
  Get(json, "state", &client.state);
  Get(json, "clock", &client.clock);
  Get(json, "lag", &client.lag);
  Get(json, "staleness_mean", &client.staleness_mean);
  Get(json, "staleness_max", &client.staleness_max);
  Get(json, "steps_per_s", &client.steps_per_s);
  Get(json, "last_heard_s", &client.last_heard_s);
  Get(json, "waiting_for", &client.waiting_for);
  if (const Json& metrics = Part(json, "metrics"); metrics.is_object()) {
    for (const auto& [name, value] : metrics.items()) {
      if (value.is_number()) client.metrics[name] = value.get<double>();
    }
  }
  return client;
}
}  // namespace

absl::StatusOr<ClusterStats> ParseStats(absl::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("stats of the cluster: expected a JSON object, found ", text.size(), " bytes that are none"));
  }
  ClusterStats stats;
  Get(json, "run", &stats.run);
  Get(json, "state", &stats.state);
  Get(json, "global_step", &stats.global_step);
  Get(json, "min_clock", &stats.min_clock);
  Get(json, "view", &stats.view);
  Get(json, "uptime_s", &stats.uptime_s);
  if (const Json& progress = Part(json, "progress"); progress.is_number()) {
    stats.progress = std::clamp(progress.get<double>(), 0.0, 1.0);
  }
  if (const Json& model = Part(json, "model"); model.is_object()) {
    Get(model, "variables", &stats.variables);
    Get(model, "tables", &stats.tables);
    Get(model, "elements", &stats.elements);
    Get(model, "bytes", &stats.model_bytes);
  }
  for (const Json& one : Part(json, "ps")) {
    if (!one.is_object()) continue;
    PsStats ps;
    Get(one, "index", &ps.index);
    Get(one, "address", &ps.address);
    Get(one, "device", &ps.device);
    Get(one, "device_bytes", &ps.device_bytes);
    Get(one, "lanes", &ps.lanes);
    Get(one, "shards", &ps.shards);
    Get(one, "applied", &ps.applied);
    Get(one, "refused", &ps.refused);
    Get(one, "bytes_in", &ps.bytes_in);
    Get(one, "bytes_out", &ps.bytes_out);
    Get(one, "rows", &ps.rows);
    Get(one, "table_bytes", &ps.table_bytes);
    Get(one, "evicted", &ps.evicted);
    Get(one, "dropped_gradients", &ps.dropped_gradients);
    stats.ps.push_back(ps);
  }
  for (const Json& one : Part(json, "clients")) {
    if (one.is_object()) stats.clients.push_back(ParseClient(one));
  }
  for (const Json& one : Part(json, "inputs")) {
    if (!one.is_object()) continue;
    InputStats input;
    Get(one, "name", &input.name);
    Get(one, "epoch", &input.epoch);
    Get(one, "epochs", &input.epochs);
    Get(one, "pieces_done", &input.pieces_done);
    Get(one, "pieces_leased", &input.pieces_leased);
    Get(one, "pieces_total", &input.pieces_total);
    stats.inputs.push_back(input);
  }
  return stats;
}

TrainingSummary Summarize(const ClusterStats& stats) {
  TrainingSummary summary;
  double losses = 0, staleness = 0;
  int with_loss = 0, trainers = 0;
  for (const ClientStats& client : stats.clients) {
    const auto metric = [&client](const char* name) -> std::optional<double> {
      const auto found = client.metrics.find(name);
      return found == client.metrics.end() ? std::nullopt : std::optional<double>(found->second);
    };
    if (client.role == "evaluator") {
      if (const auto accuracy = metric("test_accuracy")) summary.test_accuracy = accuracy;
      if (const auto auc = metric("test_auc")) summary.test_auc = auc;
    }
    if (!client.waiting_for.empty() && summary.waiting.empty()) {
      summary.waiting = absl::StrCat(client.role, " ", client.index, " waits for ", client.waiting_for);
    }
    if (!client.trains() || client.state != "alive") continue;
    ++trainers;
    staleness += client.staleness_mean;
    summary.staleness_max = std::max(summary.staleness_max, client.staleness_max);
    summary.steps_per_s += client.steps_per_s;
    if (const auto examples = metric("examples_per_s")) {
      summary.examples_per_s = summary.examples_per_s.value_or(0) + *examples;
    }
    if (const auto loss = metric("loss")) {
      losses += *loss;
      ++with_loss;
    }
  }
  if (with_loss > 0) summary.loss = losses / with_loss;
  if (trainers > 0) summary.staleness_mean = staleness / trainers;
  return summary;
}

}  // namespace basin
