// The coordinator, second part: clocks, inputs, barriers, the end of the run.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "ps/coordinator.h"
#include "ps/coordinator_task.h"
#include "ps/mutants.h"

namespace basin {
namespace {

constexpr size_t kMaxMetrics = 64;
constexpr size_t kMaxBarriers = 4096;
// Requests of one client that wait here: more than it has a use for.
constexpr size_t kMaxParked = 1024;
// The rate is over so many steps, or so long.
constexpr size_t kRateSamples = 64;
constexpr absl::Duration kRateWindow = absl::Seconds(10);

}  // namespace

void Coordinator::Task::StartLife(Incarnation life, absl::Time now) {
  earlier_steps += life_clock;
  incarnation = life;
  life_clock = 0;
  metrics.clear();
  samples.clear();
  barrier_asked.clear();
  parked_barriers.clear();
  parked_inputs.clear();
  Sample(now);
}

void Coordinator::Task::Sample(absl::Time now) {
  samples.emplace_back(now, clock());
  while (samples.size() > kRateSamples || (samples.size() > 2 && now - samples[1].first > kRateWindow))
    samples.pop_front();
}

double Coordinator::Task::StepsPerSecond(absl::Time now) const {
  if (samples.size() < 2) return 0;
  // Until now, not until the last step: a stalled worker's rate goes down.
  const double seconds = absl::ToDoubleSeconds(now - samples.front().first);
  const auto steps = static_cast<double>(clock() - samples.front().second);
  return seconds <= 0 ? 0 : steps / seconds;
}

void Coordinator::Step(const Session& session, uint64_t request, const wire::v1::Step& step, absl::Time now) {
  Task& task = TaskOf(session.key());
  if (step.clock() > task.life_clock || BASIN_MUTANT(kClockGoesBack)) {
    const bool was_stopped = run_state().stop();
    // A bound, so that the sum of all tasks' clocks cannot overflow.
    if (step.clock() > (uint64_t{1} << 40)) {
      return Refuse(
          session, request,
          absl::InvalidArgumentError(absl::StrCat("clock ", step.clock(), " is more steps than any run has")));
    }
    task.life_clock = step.clock();
    task.Sample(now);
    for (const wire::v1::Metric& metric : step.metrics()) {
      if (metric.name().size() > kMaxNameBytes) continue;
      if (task.metrics.size() < kMaxMetrics || task.metrics.contains(metric.name()))
        task.metrics[metric.name()] = metric.value();
    }
    if (std::isfinite(step.staleness_mean())) task.staleness_mean = step.staleness_mean();
    task.staleness_max = std::max(task.staleness_max, step.staleness_max());
    if (!was_stopped && run_state().stop()) {
      notes_.push_back(absl::StrCat("max_steps is reached at global step ", global_step()));
      ReleaseInputs();
    }
  }
  SendRunState(session.peer, request);
}

// ---- Inputs ----

void Coordinator::NextInput(const Session& session, uint64_t request, const wire::v1::NextInput& next) {
  const auto at = inputs_.find(next.name());
  if (at == inputs_.end()) {
    return Refuse(session, request,
                  absl::InvalidArgumentError(
                      absl::StrCat("input \"", next.name(), "\" is not in the run's model; declare it first")));
  }
  Task& task = TaskOf(session.key());
  std::map<uint64_t, ParkedRequest>& parked = task.parked_inputs[next.name()];
  if (const auto same = parked.find(next.number()); same != parked.end()) {
    same->second = {session.peer, request};  // asked again on another channel
    return;
  }
  if (parked.size() >= kMaxParked) {
    return Refuse(session, request,
                  absl::ResourceExhaustedError(absl::StrCat("input \"", next.name(), "\": ", parked.size(),
                                                            " requests of this client wait already")));
  }
  // Behind one that waits, the next number waits as well.
  if (!parked.empty() && next.number() == parked.rbegin()->first + 1) {
    parked[next.number()] = {session.peer, request};
    return;
  }
  const bool stop = run_state().stop();
  absl::StatusOr<std::optional<wire::v1::InputPiece>> piece;
  if (stop) {
    absl::StatusOr<wire::v1::InputPiece> end = at->second.End(session.incarnation, next.number());
    if (end.ok()) {
      end->set_error(failure_);
      piece = std::optional(*std::move(end));
    } else {
      piece = end.status();
    }
  } else {
    piece = at->second.Next(session.incarnation, next.number());
  }
  if (!piece.ok()) return Refuse(session, request, piece.status());
  if (*piece) {
    Send(session.peer, request, wire::Kind::kInputPiece, (*piece)->SerializeAsString());
  } else {
    parked[next.number()] = {session.peer, request};
  }
}

void Coordinator::InputDone(const Session& session, uint64_t request, const wire::v1::InputDone& done) {
  const auto at = inputs_.find(done.name());
  if (at == inputs_.end()) {
    return Refuse(session, request,
                  absl::InvalidArgumentError(
                      absl::StrCat("input \"", done.name(), "\" is not in the run's model; declare it first")));
  }
  if (absl::Status status = at->second.Done(session.incarnation, done.piece()); !status.ok())
    return Refuse(session, request, status);
  SendRunState(session.peer, request);
  ReleaseInputs();
}

// Answers what was parked and can be answered now: pieces came back, all are done, or the run stops.
void Coordinator::ReleaseInputs() {
  const bool stop = run_state().stop();
  for (auto& [key, task] : tasks_) {
    const Client* client = presence_.Find(key);
    // A dead client would only hold the lease; its requests wait until it is heard again.
    if (client == nullptr || (!client->alive() && !stop)) continue;
    for (auto& [name, parked] : task.parked_inputs) {
      const auto queue = inputs_.find(name);
      if (queue == inputs_.end()) continue;
      while (!parked.empty()) {
        const auto [number, at] = *parked.begin();
        if (stop) {
          absl::StatusOr<wire::v1::InputPiece> end = queue->second.End(task.incarnation, number);
          if (end.ok()) {
            end->set_error(failure_);
            Send(at.peer, at.request, wire::Kind::kInputPiece, end->SerializeAsString());
          } else {
            answers_.push_back(RefusalAnswer(at.peer, at.request, end.status()));
          }
        } else {
          const absl::StatusOr<std::optional<wire::v1::InputPiece>> piece =
              queue->second.Next(task.incarnation, number);
          if (piece.ok() && !*piece) break;
          if (piece.ok()) {
            Send(at.peer, at.request, wire::Kind::kInputPiece, (*piece)->SerializeAsString());
          } else {
            answers_.push_back(RefusalAnswer(at.peer, at.request, piece.status()));
          }
        }
        parked.erase(parked.begin());
      }
    }
  }
}

// ---- Barriers ----

bool Coordinator::BarrierComplete(const std::string& name, uint64_t number) const {
  size_t late = 0;
  for (const auto& [key, client] : presence_.clients()) {
    if (!client.alive() || !client.trains()) continue;
    const Task* task = FindTask(key);
    if (task != nullptr && !task->done && task->Asked(name) < number) ++late;
  }
  for (const TaskId& trainer : options_.trainers) {
    const auto role = trainer.role == Role::kChief ? wire::v1::ROLE_CHIEF : wire::v1::ROLE_WORKER;
    if (presence_.Find(KeyOf(role, trainer.index, "")) == nullptr) ++late;
  }
  return late == 0 || (BASIN_MUTANT(kBarrierReleasesEarly) && late == 1);
}

void Coordinator::Barrier(const Session& session, uint64_t request, const wire::v1::Barrier& barrier) {
  if (barrier.name().size() > kMaxNameBytes) {
    return Refuse(session, request,
                  absl::InvalidArgumentError(absl::StrCat("a barrier's name has at most ", kMaxNameBytes, " bytes")));
  }
  Task& task = TaskOf(session.key());
  const uint64_t asked = task.Asked(barrier.name());
  if (barrier.number() == 0 || barrier.number() > asked + 1) {
    return Refuse(session, request,
                  absl::OutOfRangeError(absl::StrCat("barrier \"", barrier.name(), "\": number ", barrier.number(),
                                                     ", expected ", asked + 1)));
  }
  const auto released = barriers_released_.find(barrier.name());
  if (finished_ || (released != barriers_released_.end() && barrier.number() <= released->second)) {
    task.barrier_asked[barrier.name()] = std::max(asked, barrier.number());
    return SendRunState(session.peer, request);
  }
  if (released == barriers_released_.end()) {
    if (barriers_released_.size() >= kMaxBarriers) {
      return Refuse(session, request,
                    absl::ResourceExhaustedError(
                        absl::StrCat("more than ", kMaxBarriers, " names of barriers; use the same names again")));
    }
    barriers_released_[barrier.name()] = 0;
  }
  const auto key = std::pair(barrier.name(), barrier.number());
  if (!task.parked_barriers.contains(key) && task.parked_barriers.size() >= kMaxParked) {
    return Refuse(session, request,
                  absl::ResourceExhaustedError(absl::StrCat("barrier \"", barrier.name(), "\": ", kMaxParked,
                                                            " of this client's barriers wait already")));
  }
  task.barrier_asked[barrier.name()] = std::max(asked, barrier.number());
  task.parked_barriers[key] = {session.peer, request};
  ReleaseBarriers();
}

void Coordinator::ReleaseBarriers() {
  for (auto& [key, task] : tasks_) {
    for (auto at = task.parked_barriers.begin(); at != task.parked_barriers.end();) {
      const auto& [name, number] = at->first;
      uint64_t& released = barriers_released_[name];
      if (number > released && !finished_ && !BarrierComplete(name, number)) {
        ++at;
        continue;
      }
      if (!finished_) released = std::max(released, number);
      SendRunState(at->second.peer, at->second.request);
      at = task.parked_barriers.erase(at);
    }
  }
}

// ---- The end ----

void Coordinator::Finish(const Session& session, uint64_t request, const wire::v1::Finish& finish) {
  Task& task = TaskOf(session.key());
  if (!task.done) {
    task.done = true;
    CountView();
    for (auto& [name, queue] : inputs_) queue.Return(session.incarnation);
  }
  if (session.is_chief && !finished_) {
    finished_ = true;
    failure_ = finish.failure();
    notes_.push_back(failure_.empty() ? absl::StrCat(Who(session), " ended the run at global step ", global_step())
                                      : absl::StrCat(Who(session), " ended the run, it failed: ", failure_));
    for (auto& [key, parked] : parked_declares_) AnswerDeclare(parked);
    parked_declares_.clear();
  } else if (!session.is_chief && !finish.failure().empty()) {
    notes_.push_back(absl::StrCat(Who(session), " failed: ", finish.failure()));
  }
  SendRunState(session.peer, request);
  ReleaseInputs();
  ReleaseBarriers();
}

}  // namespace basin
