// basin.h: waiting for calls, steps, inputs and the run's end.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "worker/client/abi_types.h"

namespace basin::abi {
namespace {

// REQUIRES: the call is done.
const ClientCore::Result& Taken(basin_call* call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(call->mutex) {
  if (!call->taken) {
    call->result = call->session->Take(call->id);
    call->taken = true;
  }
  return call->result;
}

absl::Status WaitCall(basin_call* call, double timeout_s) {
  if (call == nullptr) return absl::InvalidArgumentError("the call is NULL");
  BASIN_RETURN_IF_ERROR(CheckProcess(call->process));
  // Without the call's mutex: another thread may ask whether it is done, or wait for less long.
  BASIN_RETURN_IF_ERROR(call->session->WaitDone(call->id, call->lent, Deadline(timeout_s)));
  MutexLock lock(call->mutex);
  return Taken(call).status;
}

absl::Status WaitBarrier(basin_client* client, const char* name, double timeout_s) {
  BASIN_RETURN_IF_ERROR(CheckProcess(client));
  BASIN_RETURN_IF_ERROR(CheckName(name, "a barrier"));
  std::optional<CallId> call;
  {
    MutexLock lock(client->barriers_mutex);
    std::deque<CallId>& in_doubt = client->barriers_in_doubt[name];
    if (!in_doubt.empty()) {
      call = in_doubt.front();
      in_doubt.pop_front();
    }
  }
  if (!call) {
    call = client->session->Run([&](ClientCore& core, absl::Time now) { return core.Barrier(name, now); });
  }
  if (absl::Status status = client->session->WaitDone(*call, {}, Deadline(timeout_s)); !status.ok()) {
    MutexLock lock(client->barriers_mutex);
    client->barriers_in_doubt[name].push_front(*call);
    return status;
  }
  return client->session->Take(*call).status;
}

// Metrics' names together; what a ps shows of them is far less.
constexpr size_t kMaxMetricBytes = size_t{1} << 20;

absl::Status Step(basin_client* client, const char* const* names, const double* values, size_t count) {
  BASIN_RETURN_IF_ERROR(CheckProcess(client));
  if (count > 0 && (names == nullptr || values == nullptr))
    return absl::InvalidArgumentError("basin_step: names or values is NULL");
  std::vector<std::pair<std::string, double>> metrics;
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    BASIN_RETURN_IF_ERROR(CheckName(names[i], "a metric"));
    metrics.emplace_back(names[i], values[i]);
    bytes += metrics.back().first.size() + 16;
    if (bytes > kMaxMetricBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("the names of ", count, " metrics have more than ", kMaxMetricBytes, " bytes; send fewer"));
    }
  }
  uint64_t step = 0;
  absl::Time stepped;
  const absl::Status status = client->session->Run([&](ClientCore& core, absl::Time now) {
    core.Step(metrics, now);
    stepped = now;
    step = std::max<uint64_t>(core.run_state().global_step(), core.clock().value());
    return core.failure();
  });
  if (client->metrics != nullptr) {
    for (const auto& [name, value] : metrics) client->metrics->Add(name, value, step, stepped);
  }
  return status;
}

// ps 0's JSON with the other ps's own entries put into its list.
absl::StatusOr<std::string> JoinStats(const std::vector<std::string>& parts) {
  nlohmann::ordered_json joined;
  // Writing it out again recurses: what a ps sends must not decide how deep.
  bool deep = false;
  const auto shallow = [&deep](int depth, nlohmann::ordered_json::parse_event_t, nlohmann::ordered_json&) {
    deep = deep || depth > 32;
    return !deep;
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    nlohmann::ordered_json part = nlohmann::ordered_json::parse(parts[i], shallow, /*allow_exceptions=*/false);
    if (deep || part.is_discarded() || !part.contains("ps") || !part["ps"].is_array()) {
      return absl::InternalError(absl::StrCat("ps ", i, " sent stats that are not the JSON expected"));
    }
    if (i == 0) {
      joined = std::move(part);
    } else {
      for (auto& ps : part["ps"]) joined["ps"].push_back(std::move(ps));
    }
  }
  return joined.dump();
}

}  // namespace
}  // namespace basin::abi

using basin::ClientCore;
using basin::abi::Report;
using basin::abi::RunToEnd;

extern "C" {

int32_t basin_call_wait(basin_call* call, double timeout_s, basin_status* status) {
  return Report(basin::abi::WaitCall(call, timeout_s), status);
}

int32_t basin_call_done(basin_call* call) {
  if (call == nullptr || !basin::abi::CheckProcess(call->process).ok()) return 1;
  return call->session->Done(call->id, call->lent) ? 1 : 0;
}

void basin_call_staleness(basin_call* call, double* mean, uint64_t* max) {
  if (mean != nullptr) *mean = 0;
  if (max != nullptr) *max = 0;
  if (basin_call_done(call) == 0 || call == nullptr || !basin::abi::CheckProcess(call->process).ok()) return;
  basin::MutexLock lock(call->mutex);
  const ClientCore::Result& result = basin::abi::Taken(call);
  if (mean != nullptr) *mean = result.staleness_mean;
  if (max != nullptr) *max = result.staleness_max;
}

void basin_call_free(basin_call* call) {
  // In a fork's child nothing may be touched, as in basin_close.
  if (call == nullptr || !basin::abi::CheckProcess(call->process).ok()) return;
  basin::abi::WaitCall(call, -1).IgnoreError();
  delete call;
}

int32_t basin_set_learning_rate(basin_client* client, float learning_rate, basin_status* status) {
  if (const absl::Status checked = basin::abi::CheckProcess(client); !checked.ok()) return Report(checked, status);
  if (std::isinf(learning_rate) || learning_rate < 0) {
    return Report(absl::InvalidArgumentError(
                      absl::StrCat("learning rate ", learning_rate, "; expected 0 or more, or NaN for the rule's own")),
                  status);
  }
  client->session->Run([&](ClientCore& core, absl::Time) {
    core.SetLearningRate(learning_rate);
    return true;
  });
  return Report(absl::OkStatus(), status);
}

int32_t basin_step(basin_client* client, const char* const* names, const double* values, size_t count,
                   basin_status* status) {
  return Report(basin::abi::Step(client, names, values, count), status);
}

int32_t basin_next_input(basin_client* client, const char* name, basin_piece* piece, basin_status* status) {
  ClientCore::Result result;
  absl::Status outcome = basin::abi::CheckName(name, "an input");
  if (piece == nullptr) outcome = absl::InvalidArgumentError("basin_next_input: piece is NULL");
  if (outcome.ok()) {
    outcome = RunToEnd(client, absl::InfiniteFuture(), &result,
                       [&](ClientCore& core, absl::Time now) { return core.NextInput(name, now); });
  }
  basin_piece known = {};
  known.end = result.piece.end ? 1 : 0;
  known.piece = result.piece.piece;
  known.epoch = result.piece.epoch;
  known.begin = result.piece.begin;
  known.end_item = result.piece.end_item;
  basin::abi::FillKnown(known, piece);
  return Report(outcome, status);
}

int32_t basin_input_done(basin_client* client, const char* name, uint64_t piece, basin_status* status) {
  if (const absl::Status named = basin::abi::CheckName(name, "an input"); !named.ok()) return Report(named, status);
  ClientCore::Result result;
  return Report(RunToEnd(client, absl::InfiniteFuture(), &result,
                         [&](ClientCore& core, absl::Time now) { return core.InputDone(name, piece, now); }),
                status);
}

int32_t basin_barrier(basin_client* client, const char* name, double timeout_s, basin_status* status) {
  return Report(basin::abi::WaitBarrier(client, name, timeout_s), status);
}

void basin_get_run_state(basin_client* client, basin_run_state* state) {
  basin_run_state known = {};
  if (basin::abi::CheckProcess(client).ok()) {
    const basin::wire::v1::RunState heard =
        client->session->Run([](ClientCore& core, absl::Time) { return core.run_state(); });
    known.view = heard.view();
    known.global_step = heard.global_step();
    known.min_clock = heard.min_clock();
    known.stop = heard.stop() ? 1 : 0;
    known.finished = heard.finished() ? 1 : 0;
  }
  basin::abi::FillKnown(known, state);
}

int32_t basin_wait_finished(basin_client* client, double timeout_s, basin_status* status) {
  if (const absl::Status checked = basin::abi::CheckProcess(client); !checked.ok()) return Report(checked, status);
  return Report(client->session->WaitFinished(basin::abi::Deadline(timeout_s)), status);
}

int32_t basin_finish(basin_client* client, const char* failure, basin_status* status) {
  ClientCore::Result result;
  // Before the run may end: whoever reads the file may do so as soon as it has.
  if (basin::abi::CheckProcess(client).ok() && client->metrics != nullptr) client->metrics->Flush(absl::Now());
  return Report(
      RunToEnd(client, absl::InfiniteFuture(), &result,
               [&](ClientCore& core, absl::Time now) { return core.Finish(failure == nullptr ? "" : failure, now); }),
      status);
}

int32_t basin_stats(basin_client* client, char** json, basin_status* status) {
  if (json == nullptr) return Report(absl::InvalidArgumentError("basin_stats: json is NULL"), status);
  *json = nullptr;
  ClientCore::Result result;
  const absl::Status outcome = RunToEnd(client, absl::InfiniteFuture(), &result,
                                        [](ClientCore& core, absl::Time now) { return core.Stats(now); });
  if (!outcome.ok()) return Report(outcome, status);
  const absl::StatusOr<std::string> joined = basin::abi::JoinStats(result.stats);
  if (joined.ok()) {
    *json = static_cast<char*>(std::malloc(joined->size() + 1));
    if (*json == nullptr) return Report(absl::ResourceExhaustedError("no memory for the stats"), status);
    std::memcpy(*json, joined->c_str(), joined->size() + 1);
  }
  return Report(joined.status(), status);
}

}  // extern "C"
