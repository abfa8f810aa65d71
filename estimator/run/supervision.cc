#include "estimator/run/supervision.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "estimator/agent/steady_now.h"
#include "estimator/run/run_limits.h"
#include "estimator/run/send_programs.h"

namespace basin {
namespace {


std::vector<RunTask> TasksOf(const Plan& plan) {
  std::vector<RunTask> tasks;
  for (const PlannedTask& task : plan.tasks) {
    tasks.push_back({task.place.name, static_cast<size_t>(task.place.node), task.takes_listener});
  }
  return tasks;
}

// Of a job whose scripts bring their own parameter server: whom the others meet at its port, as in TensorFlow.
bool Serves(Role role) { return role == Role::kPs || role == Role::kWorker; }

std::vector<RunNode> NodesOf(const SupervisedRun& run) {
  std::vector<RunNode> nodes;
  for (const TargetNode& host : run.target.nodes) nodes.push_back({host.name, false});
  for (const PlannedTask& task : run.plan.tasks) nodes[task.place.node].needs_ports |= task.place.port != 0;
  return nodes;
}

}  // namespace

Supervision::Supervision(const SupervisedRun& run, const RunFolder& folder, Launcher& launcher, RunHistory& history,
                         const SuperviseOptions& options, std::string token)
    : run_(run),
      folder_(folder),
      launcher_(launcher),
      history_(history),
      options_(options),
      token_(std::move(token)),
      plan_(run.plan),
      state_(TasksOf(run.plan), NodesOf(run),
             {!run.job.inputs.empty(), run.snapshot != nullptr, !run.environment_spec.empty(), Mpirun() != nullptr},
             options.limits),
      progress_(options.terminal_width),
      record_(run.record),
      nodes_(run.target.nodes.size()) {
  for (size_t i = 0; i < nodes_.size(); ++i) nodes_[i].host = run.target.nodes[i];
  if (record_.tasks.size() != plan_.tasks.size()) {
    record_.tasks.clear();
    for (const PlannedTask& task : plan_.tasks) {
      record_.tasks.emplace_back();
      record_.tasks.back().name = task.place.name;
      record_.tasks.back().host = nodes_[task.place.node].host.name;
    }
  }
  chief_ = ChiefTask(plan_);
  history_.TellBy([this](const std::string& line) {
    progress_.Clear();
    Warn(line);
  });
}

Supervision::~Supervision() { history_.TellBy(nullptr); }

RunOutcome Supervision::Run(int signals, ControlSocket* control) {
  history_.Record(absl::Now(), record_);
  Do(run_.resumed ? state_.OnResume(run_.begun + (SteadyNow() - absl::Now()), SteadyNow())
                  : state_.OnBegin(SteadyNow()));
  if (run_.resumed && run_.begun != absl::InfiniteFuture() && options_.open_stats) {
    progress_.Begin(options_.open_stats(plan_), SteadyNow());
  }
  if (options_.cancel) Do(state_.OnCancel(SteadyNow(), "canceled by basin cancel"));
  while (!state_.finished() && !requeued_) {
    progress_.Show(SteadyNow());
    Wait(signals, *control);
    ServiceLinks();
    SendSnapshots();
    ServiceSignals(signals, control);
    Do(state_.OnTime(SteadyNow()));
    if (record_changed_) {
      record_changed_ = false;
      history_.Record(absl::Now(), record_);
    }
    history_.OnTime(absl::Now());
    HeedRemoval();
  }
  if (requeued_) return {RunPhase::kQueued, 0, history_.record(), progress_.last_step()};
  return {state_.phase(), ExitCode(), history_.record(), progress_.last_step()};
}

void Supervision::Wait(int signals, const ControlSocket& control) {
  std::vector<pollfd> waits = {{signals, POLLIN, 0}};
  control.AddWaits(&waits);
  absl::Time deadline = std::min(state_.NextDeadline(), progress_.next());
  for (const Node& node : nodes_) {
    if (!node.link) continue;
    node.link->AddWaits(&waits);
    deadline = std::min(deadline, node.link->NextDeadline());
  }
  const absl::Duration left = std::min(deadline - SteadyNow(), history_.NextDeadline() - absl::Now());
  const int limit = left == absl::InfiniteDuration()
                        ? -1
                        : static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(left) + 1, 0, 60'000));
  poll(waits.data(), waits.size(), limit);
}

void Supervision::ServiceLinks() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (!nodes_[i].link) continue;
    std::vector<LinkEvent> events;
    const NodeLink* link = nodes_[i].link.get();
    // Part of a message counts too, and what the link keeps to itself: over a slow line little else may come for long.
    if (nodes_[i].link->Service(SteadyNow(), &events)) state_.OnHeard(i, SteadyNow());
    for (const LinkEvent& event : events) {
      if (nodes_[i].link.get() != link) break;  // an event before has ended it
      HandleLinkEvent(i, event);
    }
    Node& node = nodes_[i];
    if (node.link && node.link->sends_programs()) {
      progress_.ShowTransfer(absl::StrCat(node.host.name, ": Basin's programs"), node.link->programs_sent(),
                             /*total=*/0, SteadyNow());
    }
  }
}

void Supervision::SendSnapshots() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    while (node.sender && node.link && node.link->CanSendData()) {
      absl::StatusOr<SnapshotSender::Part> part = node.sender->Next();
      if (!part.ok()) {
        node.sender.reset();
        Do(state_.OnRefused(std::string(part.status().message()), false, SteadyNow()));
        break;
      }
      // Entries are data too: control would overtake the bytes of the file before.
      node.link->SendData(part->message, part->data_bytes);
      progress_.ShowTransfer(absl::StrCat(node.host.name, ": snapshot"), node.sender->sent_bytes(),
                             run_.snapshot->tree.bytes, SteadyNow());
      if (node.sender->done()) node.sender.reset();
    }
  }
}

// Actions that fail at once are events again, which may ask for more: until all is quiet.
void Supervision::Do(std::vector<RunAction> actions) {
  // The run is the next supervisor's: what becomes of its processes here says nothing of it.
  if (requeued_) return;
  for (size_t i = 0; i < actions.size(); ++i) {
    const RunAction action = actions[i];
    std::vector<RunAction> more;
    switch (action.kind) {
      case RunAction::kStart:
      case RunAction::kTerm:
      case RunAction::kKill:
        DoForTask(action);
        break;
      case RunAction::kMakePlan:
        MakePlanNow(&more);
        break;
      case RunAction::kFinish:
        record_.ended = absl::Now();
        break;
      default:
        DoForNode(action, &more);
    }
    actions.insert(actions.end(), more.begin(), more.end());
  }
  TellChanges();
}

void Supervision::DoForTask(const RunAction& action) {
  Node& node = nodes_[plan_.tasks[action.index].place.node];
  if (!node.link || !node.link->speaks()) return;  // RunState says it again when the node returns
  ToAgent message;
  if (action.kind == RunAction::kStart) {
    message = StartMessage(action.index);
  } else {
    message.mutable_signal_task()->set_task(static_cast<uint32_t>(action.index));
    message.mutable_signal_task()->set_kill(action.kind == RunAction::kKill);
  }
  node.link->Send(message);
}

const PlannedTask* Supervision::Mpirun() const {
  for (const PlannedTask& task : run_.plan.tasks) {
    if (task.place.name.role == Role::kMpirun) return &task;
  }
  return nullptr;
}

// mpirun and its daemons understand each other within one version alone.
absl::Status Supervision::CheckMpiVersions() const {
  for (const Node& node : nodes_) {
    if (node.mpi_version == nodes_[0].mpi_version) continue;
    return absl::FailedPreconditionError(absl::StrCat("node ", nodes_[0].host.name, " has ", nodes_[0].mpi_version,
                                                      ", node ", node.host.name, " has ", node.mpi_version,
                                                      "; mpirun needs the same on all nodes: install it there"));
  }
  return absl::OkStatus();
}

Supervision::ToAgent Supervision::StartMessage(size_t task) const {
  const PlannedTask& planned = plan_.tasks[task];
  ToAgent message;
  estimator::v1::StartTask* start = message.mutable_start_task();
  start->set_task(static_cast<uint32_t>(task));
  start->set_role(std::string(Name(planned.place.name.role)));
  start->set_index(planned.place.name.index);
  for (const std::string& word : planned.argv) start->add_argv(word);
  const auto add = [start](const std::pair<std::string, std::string>& variable) {
    estimator::v1::Variable* out = start->add_environment();
    out->set_name(variable.first);
    out->set_value(variable.second);
  };
  const Role role = planned.place.name.role;
  const bool starts_ranks = role == Role::kMpirun || role == Role::kOrted;
  if (starts_ranks) start->set_mpi_part(estimator::v1::StartTask::LAUNCHER);
  if (planned.is_rank) start->set_mpi_part(estimator::v1::StartTask::RANK);
  for (const auto& variable : run_.secrets) {
    if (!starts_ranks) add(variable);
  }
  for (const auto& variable : planned.environment) add(variable);
  start->set_port(static_cast<uint32_t>(planned.place.port));
  start->set_takes_listener(planned.takes_listener);
  if (run_.job.script_parameter_server && Serves(planned.place.name.role)) {
    start->set_listens_within_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.listen_limit)));
  }
  start->set_in_container(!planned.image.empty());
  if (run_.snapshot != nullptr && planned.uses_snapshot) start->set_snapshot_digest(run_.snapshot->tree.digest);
  for (const std::string& line : plan_.setup) start->add_setup(line);
  return message;
}

void Supervision::DoForNode(const RunAction& action, std::vector<RunAction>* more) {
  Node& node = nodes_[action.index];
  if (action.kind == RunAction::kOpen) return Open(action.index, more);
  if (action.kind == RunAction::kSendPrograms) return SendPrograms(action.index, more);
  if (action.kind == RunAction::kDrop) {
    node.sender.reset();
    return node.link.reset();
  }
  if (!node.link || !node.link->speaks()) return;  // its end is on the way
  ToAgent message;
  switch (action.kind) {
    case RunAction::kCheckInputs:
      for (const JobInput& input : run_.job.inputs) {
        estimator::v1::Input* out = message.mutable_check_inputs()->add_inputs();
        out->set_name(input.name);
        out->set_path(input.path);
      }
      break;
    case RunAction::kOfferSnapshot:
      message = OfferOf(*run_.snapshot);
      break;
    case RunAction::kSendSnapshot:
      node.sender = std::make_unique<SnapshotSender>(run_.snapshot);
      return;
    case RunAction::kPrepare:
      message.mutable_prepare_environment()->set_spec(run_.environment_spec);
      message.mutable_prepare_environment()->set_container(run_.container);
      break;
    case RunAction::kCheckMpi: {
      estimator::v1::CheckMpi* check = message.mutable_check_mpi();
      for (const auto& [name, value] : Mpirun()->environment) {
        estimator::v1::Variable* variable = check->add_environment();
        variable->set_name(name);
        variable->set_value(value);
      }
      for (const std::string& line : run_.plan.setup) check->add_setup(line);
      break;
    }
    case RunAction::kHoldPorts: {
      estimator::v1::HoldPorts* hold = message.mutable_hold_ports();
      for (const PlannedTask& task : run_.plan.tasks) {
        const bool here = static_cast<size_t>(task.place.node) == action.index && task.place.port != 0;
        if (here) hold->set_count(hold->count() + 1);
      }
      hold->set_first(static_cast<uint32_t>(run_.job.ports.first));
      hold->set_last(static_cast<uint32_t>(run_.job.ports.last));
      hold->set_bind_address(node.host.address);
      for (const uint32_t port : node.avoid) hold->add_avoid(port);
      break;
    }
    case RunAction::kPing:
      message.mutable_ping()->set_number(++node.pings);
      break;
    case RunAction::kCollect:
      node.is_collecting = true;
      message.mutable_collect_outputs()->set_limit_bytes(kOutputsLimit);
      break;
    case RunAction::kBye:
      if (node.is_collecting) KeepFolder(node, "outputs");
      message.mutable_bye()->set_keep_folder(node.keeps_folder);
      break;
    default:
      return;
  }
  node.link->Send(message);
}

void Supervision::Open(size_t index, std::vector<RunAction>* more) {
  Node& node = nodes_[index];
  node.link.reset();
  node.sender.reset();
  absl::StatusOr<AgentPipe> pipe = launcher_.Open({AgentRunId(run_), static_cast<uint32_t>(index), node.host});
  if (pipe.ok()) {
    node.link = std::make_unique<NodeLink>(*pipe);
    return;
  }
  *more = state_.OnLost(index, std::string(pipe.status().message()), SteadyNow());
}

void Supervision::SendPrograms(size_t index, std::vector<RunAction>* more) {
  Node& node = nodes_[index];
  node.link.reset();
  absl::StatusOr<ProgramsTransfer> transfer =
      launcher_.SendPrograms({AgentRunId(run_), static_cast<uint32_t>(index), node.host}, node.printed);
  if (!transfer.ok()) {
    *more =
        state_.OnRefused(absl::StrCat("node ", node.host.name, ": ", transfer.status().message()), false, SteadyNow());
    return;
  }
  progress_.Clear();
  Info(SendingPrograms(node.host, *transfer));
  node.link = std::make_unique<NodeLink>(*std::move(transfer));
}

void Supervision::MakePlanNow(std::vector<RunAction>* more) {
  PlanFacts facts;
  facts.run_id = run_.record.run_id;
  for (const Node& node : nodes_) {
    NodeFacts one;
    one.host = node.host.address;
    one.free_ports = node.ports;
    one.gpus.assign(node.welcome.gpus().begin(), node.welcome.gpus().end());
    one.gpu_problem = node.welcome.gpu_problem();
    facts.nodes.push_back(std::move(one));
  }
  absl::StatusOr<Plan> plan = MakePlan(run_.job, facts);
  if (const absl::Status same = CheckMpiVersions(); !same.ok()) plan = same;
  if (!plan.ok()) {
    const bool wrong_input = ExitCodeFor(plan.status()) == kExitUsage;
    *more = state_.OnRefused(std::string(plan.status().message()), wrong_input, SteadyNow());
    return;
  }
  plan_ = *std::move(plan);
  if (const absl::Status written = folder_.WritePlan(PlanToJson(plan_)); !written.ok()) {
    // Without it nobody could take the run over.
    *more = state_.OnRefused(std::string(written.message()), false, SteadyNow());
    return;
  }
  history_.Journal(absl::Now(), "plan", nlohmann::json({{"attempt", state_.retries() + 1}}).dump());
  ended_pids_.assign(plan_.tasks.size(), 0);
  for (size_t i = 0; i < plan_.tasks.size(); ++i) {
    ended_pids_[i] = record_.tasks[i].pid;
    const PlacedTask& place = plan_.tasks[i].place;
    record_.tasks[i].address = place.port == 0 ? "" : absl::StrCat(place.host, ":", place.port);
    record_.tasks[i].pid = 0;
    record_.tasks[i].exit.reset();
  }
  *more = state_.OnPlanned(SteadyNow());
}

void Supervision::TellChanges() {
  for (const PhaseChange& change : state_.TakeChanges()) {
    progress_.Clear();
    const RunPhase before = record_.phase;
    record_.phase = change.phase;
    record_.reason = change.reason;
    if (state_.finished()) {
      record_.exit_code = ExitCode();
      if (!kept_on_nodes_.empty()) {
        absl::StrAppend(&record_.reason, record_.reason.empty() ? "" : "; ", kept_on_nodes_);
      }
    }
    record_changed_ = false;
    history_.Record(absl::Now(), record_);
    if (change.phase == RunPhase::kRunning && before < RunPhase::kRunning && options_.open_stats) {
      progress_.Begin(options_.open_stats(plan_), change.time);
    }
    if (change.phase == RunPhase::kPreparing && before == RunPhase::kRunning) {
      progress_.End();
      Warn(change.reason);
    }
    if (change.phase == RunPhase::kNotResponding) Warn(absl::StrCat("the run is not responding: ", change.reason));
    if (before == RunPhase::kNotResponding && !state_.finished()) {
      Info(absl::StrCat("the run is ", RunPhaseName(change.phase), " again: ", change.reason));
    }
    if (change.phase == RunPhase::kFinalizing || change.phase == RunPhase::kCancelRequested) progress_.End();
    if (change.phase == RunPhase::kFinalizing && state_.failed()) {
      Error(absl::StrCat(state_.reason(), state_.failed_task() ? "; the other tasks are stopped" : ""));
    }
    if (options_.on_phase) options_.on_phase(change.phase);
  }
  if (state_.finished()) TellLastLines();
}

// What ran to its end and whose outputs could not be stored here is work that failed, for whoever goes on with them.
int Supervision::ExitCode() const {
  return state_.exit_code() == kExitOk && outputs_unstored_ ? kExitFailed : state_.exit_code();
}

// Once: when the log has come in, or nothing more will.
void Supervision::TellLastLines() {
  if (!state_.failed_task() || last_lines_told_) return;
  last_lines_told_ = true;
  const std::string log = folder_.LogPath(plan_.tasks[*state_.failed_task()].place.name);
  const std::vector<std::string> lines = LastLines(log, kShownLogLines);
  Info(absl::StrCat("last lines of ", log, lines.empty() ? " (empty)" : ":"));
  for (const std::string& line : lines) Info(absl::StrCat("  ", line));
}

}  // namespace basin
