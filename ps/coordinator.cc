#include "ps/coordinator.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "ps/coordinator_task.h"
#include "ps/mutants.h"

namespace basin {
namespace {

std::string Ago(absl::Duration duration) { return absl::StrCat(absl::ToInt64Seconds(duration), " s ago"); }

}  // namespace

Answer RefusalAnswer(wire::PeerId peer, uint64_t request, const absl::Status& status) {
  wire::v1::Refusal refusal;
  refusal.set_code(static_cast<int>(status.code()));
  refusal.set_message(std::string(status.message()));
  return {peer, request, wire::Kind::kError, refusal.SerializeAsString()};
}

Coordinator::Coordinator(CoordinatorOptions options, const Presence& presence)
    : options_(std::move(options)), presence_(presence) {}
Coordinator::~Coordinator() = default;

void Coordinator::Send(wire::PeerId peer, uint64_t request, wire::Kind kind, std::string body) {
  answers_.push_back({peer, request, kind, std::move(body)});
}

void Coordinator::Refuse(const Session& session, uint64_t request, const absl::Status& status) {
  answers_.push_back(RefusalAnswer(session.peer, request, status));
}

void Coordinator::SendRunState(wire::PeerId peer, uint64_t request) {
  Send(peer, request, wire::Kind::kRunState, run_state().SerializeAsString());
}

std::string Coordinator::Who(const Session& session) const {
  return absl::StrCat(Sentence(session.role, session.index), " (", session.host, ", pid ", session.pid, ")");
}

Coordinator::Task& Coordinator::TaskOf(const ClientKey& key) { return tasks_[key]; }

const Coordinator::Task* Coordinator::FindTask(const ClientKey& key) const {
  const auto at = tasks_.find(key);
  return at == tasks_.end() ? nullptr : &at->second;
}

// ---- Membership ----

absl::StatusOr<Incarnation> Coordinator::Claim(const wire::v1::Hello& hello, absl::Time now) {
  const ClientKey key = KeyOf(hello.role(), hello.index(), hello.client_id());
  const Client* holder = presence_.Find(key);
  const std::string task = Sentence(hello.role(), hello.index());
  if (hello.incarnation() != 0) {
    if (holder != nullptr && holder->incarnation.value() == hello.incarnation() &&
        holder->client_id == hello.client_id()) {
      return holder->incarnation;
    }
    if (holder != nullptr && holder->incarnation.value() >= hello.incarnation()) {
      return absl::AbortedError(absl::StrCat(task, " was replaced by the process ", holder->pid, " on ", holder->host,
                                             "; this one is no longer part of the run"));
    }
    return absl::InvalidArgumentError(absl::StrCat(task, ": incarnation ", hello.incarnation(),
                                                   " was never given out; the last is ", last_incarnation_));
  }
  if (holder != nullptr && holder->client_id == hello.client_id()) return holder->incarnation;
  if (holder != nullptr && holder->alive() && now - holder->last_heard < presence_.dead_after()) {
    return absl::AlreadyExistsError(absl::StrCat(task, " is running already: pid ", holder->pid, " on ", holder->host,
                                                 ", last heard ", Ago(now - holder->last_heard),
                                                 "; stop it, or start this process as another task"));
  }
  if (BASIN_MUTANT(kReuseIncarnation) && holder != nullptr) return holder->incarnation;
  return Incarnation(++last_incarnation_);
}

void Coordinator::OnArrived(const Client& client, absl::Time now) {
  CountView();
  if (client.role == wire::v1::ROLE_OBSERVER) return;
  Task& task = TaskOf(client.key);
  if (task.incarnation != client.incarnation) {
    if (task.incarnation.value() != 0) {
      for (auto& [name, queue] : inputs_) {
        queue.Return(task.incarnation);
        queue.Forget(task.incarnation);
      }
      notes_.push_back(
          absl::StrCat(Sentence(client.role, client.index), " was replaced by pid ", client.pid, " on ", client.host));
    }
    task.StartLife(client.incarnation, now);
    parked_declares_.erase(client.key);
  }
  task.done = false;
  ReleaseInputs();
  ReleaseBarriers();
}

void Coordinator::OnRevived(const Client& client, absl::Time) {
  CountView();
  if (client.role != wire::v1::ROLE_OBSERVER) {
    notes_.push_back(absl::StrCat(Sentence(client.role, client.index), " is heard again (pid ", client.pid, " on ",
                                  client.host, ")"));
  }
  ReleaseInputs();
}

void Coordinator::OnDead(const Client& client, absl::Time now) {
  if (client.role != wire::v1::ROLE_OBSERVER) {
    notes_.push_back(absl::StrCat(Sentence(client.role, client.index), " (pid ", client.pid, " on ", client.host,
                                  ") was not heard for ", absl::ToInt64Seconds(now - client.last_heard),
                                  " s and counts as dead"));
  }
  MemberLeft(client);
}

void Coordinator::OnGone(const Client& client, absl::Time) { MemberLeft(client); }

void Coordinator::MemberLeft(const Client& client) {
  CountView();
  if (client.role == wire::v1::ROLE_OBSERVER) {
    parked_declares_.erase(client.key);
    return;
  }
  for (auto& [name, queue] : inputs_) queue.Return(client.incarnation);
  ReleaseInputs();
  ReleaseBarriers();
}

// ---- State ----

uint64_t Coordinator::global_step() const {
  uint64_t sum = 0;
  for (const auto& [key, task] : tasks_) {
    if (task.trains(key)) sum += task.clock();
  }
  return sum;
}

uint64_t Coordinator::min_clock() const {
  std::optional<uint64_t> least;
  for (const auto& [key, client] : presence_.clients()) {
    const Task* task = FindTask(key);
    if (!client.alive() || !client.trains() || task == nullptr || task->done) continue;
    least = std::min(least.value_or(task->clock()), task->clock());
  }
  return least.value_or(0);
}

wire::v1::RunState Coordinator::run_state() const {
  wire::v1::RunState state;
  state.set_view(view_.value());
  state.set_global_step(global_step());
  state.set_min_clock(min_clock());
  const uint64_t max_steps = model_ ? model_->spec().model().max_steps() : 0;
  state.set_stop(finished_ || (max_steps != 0 && state.global_step() >= max_steps));
  state.set_finished(finished_);
  state.set_failure(failure_);
  return state;
}

Coordinator::Progress Coordinator::ProgressOf(const Client& client, absl::Time now) const {
  Progress out;
  const Task* task = FindTask(client.key);
  if (task == nullptr) return out;
  out.clock = StepClock(task->clock());
  if (client.trains()) out.lag = task->clock() - std::min(task->clock(), min_clock());
  out.staleness_mean = task->staleness_mean;
  out.staleness_max = task->staleness_max;
  out.steps_per_s = task->StepsPerSecond(now);
  out.done = task->done;
  out.metrics = task->metrics;
  for (const auto& [name, numbers] : task->parked_inputs) {
    if (!numbers.empty()) out.waiting_for = absl::StrCat("a piece of input \"", name, "\"");
  }
  for (const auto& [at, parked] : task->parked_barriers) {
    std::vector<std::string> late;
    for (const auto& [key, other] : presence_.clients()) {
      const Task* member = FindTask(key);
      if (member != nullptr && other.alive() && other.trains() && !member->done &&
          member->Asked(at.first) < at.second) {
        late.push_back(Sentence(other.role, other.index));
      }
    }
    out.waiting_for = absl::StrCat("barrier \"", at.first,
                                   "\": ", late.empty() ? "tasks that have not come yet" : absl::StrJoin(late, ", "));
  }
  if (parked_declares_.contains(client.key)) out.waiting_for = "the chief to declare the model";
  return out;
}

double Coordinator::progress() const {
  if (finished_) return 1;
  if (!model_) return 0;
  if (const uint64_t max_steps = model_->spec().model().max_steps(); max_steps != 0) {
    return std::min(1.0, static_cast<double>(global_step()) / static_cast<double>(max_steps));
  }
  uint64_t done = 0, total = 0;
  for (const auto& [name, queue] : inputs_) {
    done += queue.done();
    total += queue.total();
  }
  return total == 0 ? -1 : static_cast<double>(done) / static_cast<double>(total);
}

// ---- Requests ----

bool Coordinator::OnRequest(const Session& session, wire::Kind kind, uint64_t request, absl::string_view body,
                            absl::Time now) {
  const bool trainers_only =
      kind == wire::Kind::kNextInput || kind == wire::Kind::kInputDone || kind == wire::Kind::kBarrier;
  const bool tasks_only = kind == wire::Kind::kStep || kind == wire::Kind::kFinish;
  if ((trainers_only && !session.trains()) || (tasks_only && session.role == wire::v1::ROLE_OBSERVER)) {
    Refuse(session, request,
           absl::PermissionDeniedError(
               absl::StrCat(Sentence(session.role, session.index), " may not send ", wire::Name(kind))));
    return true;
  }
  const auto with = [&](auto proto, auto carry_out) {
    if (!proto.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
      Refuse(session, request,
             absl::InvalidArgumentError(
                 absl::StrCat("malformed message: the body of ", wire::Name(kind), " cannot be read")));
      return false;
    }
    carry_out(proto);
    return true;
  };
  switch (kind) {
    case wire::Kind::kDeclare:
      return with(wire::v1::Declare(), [&](const auto& declare) { Declare(session, request, declare); });
    case wire::Kind::kStep:
      return with(wire::v1::Step(), [&](const auto& step) { Step(session, request, step, now); });
    case wire::Kind::kNextInput:
      return with(wire::v1::NextInput(), [&](const auto& next) { NextInput(session, request, next); });
    case wire::Kind::kInputDone:
      return with(wire::v1::InputDone(), [&](const auto& done) { InputDone(session, request, done); });
    case wire::Kind::kBarrier:
      return with(wire::v1::Barrier(), [&](const auto& barrier) { Barrier(session, request, barrier); });
    case wire::Kind::kFinish:
      return with(wire::v1::Finish(), [&](const auto& finish) { Finish(session, request, finish); });
    default:
      Refuse(session, request,
             absl::InvalidArgumentError(absl::StrCat("the coordinator does not take ", wire::Name(kind))));
      return true;
  }
}

// ---- The model ----

void Coordinator::Declare(const Session& session, uint64_t request, const wire::v1::Declare& declare) {
  ParkedDeclare parked{.at = {session.peer, request},
                       .who = Who(session),
                       .model = Canonical(declare.model()),
                       .observer = session.role == wire::v1::ROLE_OBSERVER};
  if (!session.is_chief) {
    parked_declares_.erase(session.key());
    const bool complete = model_ && Covers(model_->spec().model(), parked.model);
    const absl::Status same =
        model_ ? Compare(model_->spec().model(), parked.model, parked.who, /*loose=*/true) : absl::OkStatus();
    if (complete || !same.ok() || finished_) return AnswerDeclare(parked);
    if (static_cast<size_t>(parked.model.variables_size()) > kMaxVariables ||
        static_cast<size_t>(parked.model.tables_size()) > kMaxTables) {
      return Refuse(session, request,
                    absl::InvalidArgumentError(absl::StrCat("the model has more than ", kMaxVariables,
                                                            " variables or more than ", kMaxTables, " tables")));
    }
    parked_declares_.emplace(session.key(), std::move(parked));
    return;
  }
  if (absl::Status status = CheckModel(declare.model()); !status.ok()) return Refuse(session, request, status);
  if (model_) {
    if (absl::Status status = Compare(model_->spec().model(), parked.model, parked.who, /*loose=*/false);
        !status.ok()) {
      return Refuse(session, request, status);
    }
  }
  absl::StatusOr<RunModel> made =
      model_ ? model_->Extended(parked.model) : RunModel::Make(options_.run_id, options_.ps_count, parked.model);
  if (!made.ok()) return Refuse(session, request, made.status());
  if (made->bytes().size() > kMaxFrameBytes / 2) {
    // Declared and Install carry it within frame 0.
    return Refuse(session, request,
                  absl::ResourceExhaustedError(absl::StrCat("the model's description has ", made->bytes().size(),
                                                            " bytes, at most ", kMaxFrameBytes / 2,
                                                            " fit a message; use fewer variables or shorter names")));
  }
  const bool changed = !model_ || made->hash() != model_->hash();
  model_ = *std::move(made);
  if (changed) {
    notes_.push_back(absl::StrCat(parked.who, " declared the model: ", model_->spec().model().variables_size(),
                                  " variables, ", model_->elements(), " elements, ",
                                  model_->placement().shards().size(), " shards, ",
                                  model_->spec().model().tables_size(), " tables"));
  }
  for (const wire::v1::Input& input : model_->spec().model().inputs()) inputs_.try_emplace(input.name(), input);
  AnswerDeclare(parked);
  for (auto at = parked_declares_.begin(); at != parked_declares_.end();) {
    if (!Covers(model_->spec().model(), at->second.model)) {
      ++at;
      continue;
    }
    AnswerDeclare(at->second);
    at = parked_declares_.erase(at);
  }
}

void Coordinator::AnswerDeclare(const ParkedDeclare& parked) {
  if (!model_) {
    answers_.push_back(RefusalAnswer(parked.at.peer, parked.at.request,
                                     absl::FailedPreconditionError("the run ended before a model was declared")));
    return;
  }
  absl::Status status = Compare(model_->spec().model(), parked.model, parked.who, /*loose=*/true);
  if (const wire::v1::Model& spec = model_->spec().model(), &said = parked.model; status.ok() && !Covers(spec, said)) {
    status = absl::FailedPreconditionError(absl::StrCat("the run ended; its model has ", spec.variables_size(),
                                                        " variables, ", spec.tables_size(), " tables and ",
                                                        spec.inputs_size(), " inputs, this one ", said.variables_size(),
                                                        ", ", said.tables_size(), " and ", said.inputs_size()));
  }
  if (!status.ok()) {
    answers_.push_back(RefusalAnswer(parked.at.peer, parked.at.request, status));
    return;
  }
  wire::v1::Declared declared;
  declared.set_spec(model_->bytes());
  declared.set_spec_hash(model_->hash());
  Send(parked.at.peer, parked.at.request, wire::Kind::kDeclared, declared.SerializeAsString());
}

}  // namespace basin
