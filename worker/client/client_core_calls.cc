// ClientCore, third part: the calls that training code makes, but for updates.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "worker/client/client_core.h"
#include "worker/client/client_core_state.h"

namespace basin {
// ---- Calls ----

// A call's id: a serial number, counted up, above the slot that the call has in calls_. So a lookup is an index, ids of
// calls that were taken are known as such, and earlier calls have smaller ids.
constexpr int kSlotBits = 20;
constexpr CallId kSlotMask = (CallId{1} << kSlotBits) - 1;

ClientCore::Call& ClientCore::NewCall(std::string what, absl::Time now) {
  if (free_calls_.empty()) {
    BASIN_CHECK(calls_.size() <= kSlotMask);  // StartUpdate leaves room
    free_calls_.push_back(static_cast<uint32_t>(calls_.size()));
    calls_.emplace_back();
  }
  const uint32_t slot = free_calls_.back();
  free_calls_.pop_back();
  Call& call = calls_[slot];
  call = Call();
  call.in_use = true;
  call.id = next_serial_++ << kSlotBits | slot;
  call.what = std::move(what);
  call.since = now;
  call.clock = clock_;
  call.learning_rate = learning_rate_;
  if (!failure_.ok()) {
    call.done = true;
    call.result.status = failure_;
  }
  return call;
}

ClientCore::Call* ClientCore::FindCall(CallId id) {
  const CallId slot = id & kSlotMask;
  return id != 0 && slot < calls_.size() && calls_[slot].in_use && calls_[slot].id == id ? &calls_[slot] : nullptr;
}

size_t ClientCore::calls() const { return calls_.size() - free_calls_.size(); }

CallId ClientCore::OldestWaiting(absl::Time since_before) const {
  CallId oldest = 0;
  for (const Call& call : calls_) {
    if (call.in_use && !call.done && call.since < since_before && (oldest == 0 || call.id < oldest)) oldest = call.id;
  }
  return oldest;
}

bool ClientCore::done(CallId id) const {
  const Call* call = FindCall(id);
  return call == nullptr || call->done;
}

ClientCore::Result ClientCore::Take(CallId id) {
  Call* call = FindCall(id);
  if (call == nullptr) return Result{.status = absl::InternalError("the call's answer was taken before")};
  BASIN_CHECK(call->done);
  call->in_use = false;
  call->rows.reset();
  free_calls_.push_back(static_cast<uint32_t>(id & kSlotMask));
  return std::move(call->result);
}

void ClientCore::PartDone(CallId id, const absl::Status& status) {
  Call* found = FindCall(id);
  if (found == nullptr || found->done) return;
  Call& call = *found;
  call.result.status.Update(status);
  if (--call.parts > 0) return;
  call.done = true;
  if (call.rows) RowsDone(call);
  if (call.staleness_count > 0)
    call.result.staleness_mean = call.staleness_sum / static_cast<double>(call.staleness_count);
  for (auto& [ps, json] : call.stats) call.result.stats.push_back(std::move(json));
  if (call.is_update) UpdateDone(id);
}

void ClientCore::UpdateDone(CallId id) {
  --unfinished_updates_;
  for (Deferred& deferred : deferred_) {
    if (id < deferred.call) --deferred.updates_before;
  }
  ReleaseDeferred(last_now_);
}

void ClientCore::Fail(const absl::Status& status) {
  if (!failure_.ok()) return;
  failure_ = status;
  connect_call_.reset();
  for (Call& call : calls_) {
    if (!call.in_use || call.done) continue;
    call.done = true;
    call.result.status = status;
  }
  for (auto& channel : channels_) {
    channel->pending.clear();
    channel->updates_pending = 0;
    channel->open = Open();
    if (channel->state != Channel::State::kIdle) {
      actions_.push_back({.kind = ClientAction::Kind::kClose, .channel = channel->id});
    }
    channel->state = Channel::State::kClosed;
  }
  unfinished_updates_ = 0;
  deferred_.clear();
  later_pulls_.clear();
  waiting_.clear();
  for (auto& table : tables_) table->waiting.clear();
  landed_.clear();
  bytes_in_flight_ = 0;
}

std::string ClientCore::WaitingFor(CallId id, absl::Time now) const {
  const Call* found = FindCall(id);
  if (found == nullptr || found->done) return "";
  const Call& call = *found;
  const auto is_of_call = [id](const UpdateEntry& entry) { return entry.call == id; };
  std::vector<std::string> whom;
  for (const auto& channel : channels_) {
    const bool connecting =
        connect_call_ == id && channel->state != Channel::State::kReady && channel->state != Channel::State::kIdle;
    bool asked = std::any_of(channel->open.entries.begin(), channel->open.entries.end(), is_of_call);
    for (const auto& [request, pending] : channel->pending) {
      asked = asked || pending.call == id || std::any_of(pending.entries.begin(), pending.entries.end(), is_of_call);
    }
    if (!connecting && !asked) continue;
    if (channel->state == Channel::State::kReady) {
      whom.push_back(absl::StrCat(PsName(*channel), ", ", SecondsText(now - call.since)));
    } else {
      whom.push_back(
          absl::StrCat(PsName(*channel), ", ", SecondsText(now - channel->down_since), ": ",
                       channel->last_reason.ok() ? "dialled, no answer yet" : channel->last_reason.message()));
    }
    if (whom.size() == 3) break;
  }
  if (whom.empty() && !deferred_.empty() && !call.is_update)
    return absl::StrCat(call.what, ": waiting for pushes to be acknowledged, ", SecondsText(now - call.since));
  for (const LaterPull& pull : later_pulls_) {
    if (whom.empty() && pull.call == id)
      whom.push_back(absl::StrCat("the first values of \"", VariableOf(pull.entries[0].shard),
                                  "\", which the chief assigns, ", SecondsText(now - call.since)));
  }
  for (auto at = waiting_.begin(); at != waiting_.end() && whom.empty(); ++at) {
    const auto is_its = [id](const Waiting& waiting) { return waiting.entry.call == id; };
    if (std::any_of(at->second.begin(), at->second.end(), is_its))
      whom.push_back(absl::StrCat("its turn, or the device, for its part of \"", VariableOf(ShardId(at->first)), "\", ",
                                  SecondsText(now - call.since)));
  }
  for (auto at = tables_.begin(); at != tables_.end() && whom.empty(); ++at) {
    const auto is_its = [id](const std::pair<CallId, size_t>& waiting) { return waiting.first == id; };
    if (std::any_of((*at)->waiting.begin(), (*at)->waiting.end(), is_its)) {
      whom.push_back(absl::StrCat("its turn, or the device, for its rows of \"",
                                  spec_->model().tables(static_cast<int>(at - tables_.begin())).name(), "\", ",
                                  SecondsText(now - call.since)));
    }
  }
  return absl::StrCat(call.what, ": waiting for ", absl::StrJoin(whom, "; "));
}

CallId ClientCore::NextInput(const std::string& name, absl::Time now) {
  Call& call = NewCall(absl::StrCat("next input of \"", name, "\""), now);
  if (call.done) return call.id;
  call.parts = 1;
  wire::v1::NextInput request;
  request.set_name(name);
  request.set_number(++input_number_[name]);
  SendControl(*channels_[0], wire::Kind::kNextInput, request.SerializeAsString(), call.id, now);
  return call.id;
}

CallId ClientCore::InputDone(const std::string& name, uint64_t piece, absl::Time now) {
  Call& call = NewCall(absl::StrCat("input \"", name, "\" piece ", piece, " done"), now);
  if (call.done) return call.id;
  call.parts = 1;
  wire::v1::InputDone request;
  request.set_name(name);
  request.set_piece(piece);
  deferred_.push_back({call.id, unfinished_updates_, wire::Kind::kInputDone, request.SerializeAsString()});
  Flush(now);
  ReleaseDeferred(now);
  return call.id;
}

CallId ClientCore::Finish(const std::string& failure, absl::Time now) {
  Call& call = NewCall("finish", now);
  if (call.done) return call.id;
  call.parts = 1;
  wire::v1::Finish request;
  request.set_is_chief(options_.is_chief);
  request.set_failure(failure);
  deferred_.push_back({call.id, unfinished_updates_, wire::Kind::kFinish, request.SerializeAsString()});
  Flush(now);
  ReleaseDeferred(now);
  return call.id;
}

void ClientCore::ReleaseDeferred(absl::Time now) {
  while (!deferred_.empty() && deferred_.front().updates_before == 0) {
    Deferred request = std::move(deferred_.front());
    deferred_.pop_front();
    SendControl(*channels_[0], request.kind, request.body, request.call, now);
  }
}

CallId ClientCore::Barrier(const std::string& name, absl::Time now) {
  Call& call = NewCall(absl::StrCat("barrier \"", name, "\""), now);
  if (call.done) return call.id;
  call.parts = 1;
  wire::v1::Barrier request;
  request.set_name(name);
  request.set_number(++barrier_number_[name]);
  SendControl(*channels_[0], wire::Kind::kBarrier, request.SerializeAsString(), call.id, now);
  return call.id;
}

CallId ClientCore::Stats(absl::Time now) {
  Call& call = NewCall("stats", now);
  if (call.done) return call.id;
  for (auto& channel : channels_) {
    if (channel->lane.value() != 0) continue;
    ++call.parts;
    SendControl(*channel, wire::Kind::kStats, wire::v1::Stats().SerializeAsString(), call.id, now);
  }
  return call.id;
}

CallId ClientCore::AskDeviceBlocks(const std::string& device_id, uint64_t bytes, absl::Time now) {
  Call& call = NewCall("device blocks", now);
  if (call.done) return call.id;
  wire::v1::DeviceBlock request;
  request.set_device_id(device_id);
  request.set_bytes(bytes);
  call.parts = 1;  // held until all are asked
  for (auto& channel : channels_) {
    if (device_id.empty() || channel->device_id != device_id) continue;
    ++call.parts;
    SendControl(*channel, wire::Kind::kDeviceBlock, request.SerializeAsString(), call.id, now);
  }
  PartDone(call.id, absl::OkStatus());
  return call.id;
}

void ClientCore::UseDeviceBlock(uint32_t channel) { channels_[channel]->uses_block = true; }

std::vector<std::string> ClientCore::TablesBesideBlocks() const {
  std::vector<std::string> names;
  for (uint32_t table = 0; table < tables_.size(); ++table) {
    const auto is_beside = [table](const auto& channel) {
      return channel->uses_block && !channel->tables_on_device.contains(table);
    };
    if (std::any_of(channels_.begin(), channels_.end(), is_beside)) {
      names.push_back(spec_->model().tables(static_cast<int>(table)).name());
    }
  }
  return names;
}

CallId ClientCore::Goodbye(absl::Time now, bool blocks_closed) {
  Call& call = NewCall("goodbye", now);
  if (call.done) return call.id;
  wire::v1::Goodbye request;
  request.set_run_finished(run_state_.finished());
  request.set_device_block_closed(blocks_closed);
  for (auto& channel : channels_) {
    if (channel->state != Channel::State::kReady) continue;
    ++call.parts;
    SendControl(*channel, wire::Kind::kGoodbye, request.SerializeAsString(), call.id, now);
  }
  if (call.parts == 0) call.done = true;
  return call.id;
}

void ClientCore::Step(const std::vector<std::pair<std::string, double>>& metrics, absl::Time now) {
  if (!failure_.ok()) return;
  clock_ = clock_.next();
  wire::v1::Step step;
  step.set_clock(clock_.value());
  for (const auto& [name, value] : metrics) {
    auto* metric = step.add_metrics();
    metric->set_name(name);
    metric->set_value(value);
  }
  if (staleness_count_ > 0) step.set_staleness_mean(staleness_sum_ / static_cast<double>(staleness_count_));
  step.set_staleness_max(staleness_max_);
  staleness_sum_ = 0;
  staleness_count_ = staleness_max_ = 0;
  SendControl(*channels_[0], wire::Kind::kStep, step.SerializeAsString(), 0, now);
}

}  // namespace basin
