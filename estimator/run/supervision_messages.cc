// What the nodes say to the supervisor, and how it becomes events of RunState and pieces of the history.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "estimator/agent/steady_now.h"
#include "estimator/job/mpi_command.h"
#include "estimator/run/chunk_streams.h"
#include "estimator/run/run_limits.h"
#include "estimator/run/supervision.h"

namespace basin {
namespace {

using nlohmann::json;

std::string Compact(const json& fields) { return fields.dump(-1, ' ', false, json::error_handler_t::replace); }

// As people know the file, below the node's folder or the task's.
std::string NameOnNode(estimator::v1::StreamKind kind, const std::string& task, const std::string& path) {
  switch (kind) {
    case estimator::v1::OUTPUT:
      return absl::StrCat(task, "/outputs/", path);
    case estimator::v1::SCRIPT_LOG:
      return absl::StrCat(task, "/logs/", path);
    case estimator::v1::METRICS:
      return absl::StrCat("metrics of ", task);
    case estimator::v1::AGENT:
      return path;
    default:
      return absl::StrCat("log of ", task);
  }
}

}  // namespace

void Supervision::HandleLinkEvent(size_t index, const LinkEvent& event) {
  Node& node = nodes_[index];
  switch (event.kind) {
    case LinkEvent::kSpeaks:
      return SayHello(index);
    case LinkEvent::kMessage:
      return HandleMessage(index, event.message);
    case LinkEvent::kStored:
      node.link.reset();
      return Do(state_.OnProgramsSent(index, SteadyNow()));
    case LinkEvent::kEnded:
      break;
  }
  const std::unique_ptr<NodeLink> link = std::move(node.link);
  const bool spoke = link->speaks();
  PipeEnd end = link->Finish();
  node.sender.reset();
  node.printed = end.printed;
  if (event.programs_missing) return Do(state_.OnProgramsMissing(index, SteadyNow()));
  if (state_.JudgesLossOf(index)) HeedBatch();
  if (requeued_) return;
  std::string why = event.text;
  if (!spoke) {
    if (end.printed.empty()) end.printed = event.text;
    why = launcher_.Complaint({AgentRunId(run_), static_cast<uint32_t>(index), node.host}, end);
  } else if (const std::string said = LastLines(end.errors); !said.empty()) {
    absl::StrAppend(&why, ": ", said);
  }
  Do(state_.OnLost(index, why, SteadyNow()));
}

void Supervision::SayHello(size_t index) {
  ToAgent message;
  estimator::v1::Hello* hello = message.mutable_hello();
  hello->set_run_id(AgentRunId(run_));
  hello->set_node(static_cast<uint32_t>(index));
  hello->set_epoch((run_.epoch << kConnectionBits) + ++connections_);
  hello->set_token(token_);
  hello->set_lease_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.limits.lease)));
  hello->set_grace_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.limits.detach_grace)));
  hello->set_cancel_grace_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.limits.cancel_grace)));
  nodes_[index].link->Send(message);
}

void Supervision::HandleMessage(size_t index, const FromAgent& message) {
  const absl::Time now = SteadyNow();
  Node& node = nodes_[index];
  const auto refuse = [&](const std::string& why, bool wrong_input) {
    Do(state_.OnRefused(absl::StrCat("node ", node.host.name, ": ", why), wrong_input, now));
  };
  switch (message.body_case()) {
    case FromAgent::kWelcome:
      return HandleWelcome(index, message.welcome());
    case FromAgent::kInputsChecked: {
      std::string why;
      for (const estimator::v1::InputProblem& problem : message.inputs_checked().problems()) {
        absl::StrAppend(&why, why.empty() ? "" : "; ", "inputs: ", problem.name(), ": ", problem.problem());
      }
      return why.empty() ? Do(state_.OnStepDone(index, RunStep::kInputs, now)) : refuse(why, true);
    }
    case FromAgent::kSnapshotState: {
      const estimator::v1::SnapshotState& state = message.snapshot_state();
      return state.problem().empty() ? Do(state_.OnStepDone(index, RunStep::kSnapshot, now, state.have()))
                                     : refuse(state.problem(), false);
    }
    case FromAgent::kEnvironmentReady: {
      const std::string& problem = message.environment_ready().problem();
      if (problem.empty()) NoteImage(index, message.environment_ready().image());
      return problem.empty() ? Do(state_.OnStepDone(index, RunStep::kEnvironment, now)) : refuse(problem, false);
    }
    case FromAgent::kMpiChecked:
      node.mpi_version = message.mpi_checked().version();
      return message.mpi_checked().problem().empty() ? Do(state_.OnStepDone(index, RunStep::kMpi, now))
                                                     : refuse(message.mpi_checked().problem(), false);
    case FromAgent::kDaemonWanted:
      return HandleDaemonWanted(message.daemon_wanted());
    case FromAgent::kPortsHeld:
      if (!message.ports_held().problem().empty()) return refuse(message.ports_held().problem(), false);
      node.ports.assign(message.ports_held().ports().begin(), message.ports_held().ports().end());
      return Do(state_.OnStepDone(index, RunStep::kPorts, now));
    case FromAgent::kTaskStarted:
      if (!KnownTask(index, message.task_started().task())) return;
      NoteStarted(message.task_started().task(), message.task_started().pid());
      return Do(state_.OnStarted(message.task_started().task(), now));
    case FromAgent::kTaskExited:
      if (KnownTask(index, message.task_exited().task())) HandleExited(message.task_exited());
      return;
    case FromAgent::kTaskGone:
      if (KnownTask(index, message.task_gone().task())) Do(state_.OnGone(message.task_gone().task(), now));
      return;
    case FromAgent::kNotListening:
      if (KnownTask(index, message.not_listening().task())) HandleNotListening(message.not_listening().task());
      return;
    case FromAgent::kFileChunk:
      return HandleChunk(index, message.file_chunk());
    case FromAgent::kCollected:
      return HandleCollected(index, message.collected());
    case FromAgent::kGoodbye:
      node.link.reset();
      return Do(state_.OnGoodbye(index, now));
    case FromAgent::kRefused:
      return refuse(absl::StrCat("the agent refuses: ", message.refused().reason()), false);
    case FromAgent::kPong:
    case FromAgent::kCredit:
    case FromAgent::BODY_NOT_SET:
      return;
  }
}

void Supervision::HandleDaemonWanted(const estimator::v1::DaemonWanted& wanted) {
  for (size_t i = 0; i < plan_.tasks.size(); ++i) {
    if (plan_.tasks[i].place.name != TaskId{Role::kOrted, wanted.node()}) continue;
    plan_.tasks[i].argv = OrtedCommand(wanted.command());
    return Do(state_.OnDaemonWanted(i, SteadyNow()));
  }
}

void Supervision::NoteImage(size_t index, const std::string& image) {
  if (image.empty()) return;
  nodes_[index].image = image;
  history_.Journal(absl::Now(), "image", Compact({{"node", index}, {"image", image}}));
  for (const Node& other : nodes_) {
    if (other.image.empty() || other.image == image) continue;
    progress_.Clear();
    return Warn(absl::StrCat("the nodes do not have the same image: ", other.host.name, " has ", other.image, ", ",
                             nodes_[index].host.name, " has ", image,
                             "; pull it on both, or name it by its digest (NAME@sha256:...)"));
  }
}

void Supervision::ShowPreparation(const Node& node, const std::string& text) {
  if (state_.phase() != RunPhase::kPreparing) return;
  const size_t end = text.find_last_not_of("\r\n");
  if (end == std::string::npos) return;
  const size_t begin = text.find_last_of("\r\n", end);
  const std::string line = text.substr(begin == std::string::npos ? 0 : begin + 1, end - (begin + 1) + 1);
  progress_.ShowStep(absl::StrCat(node.host.name, ": ", line), SteadyNow());
}

bool Supervision::KnownTask(size_t node, uint32_t task) const {
  return task < plan_.tasks.size() && static_cast<size_t>(plan_.tasks[task].place.node) == node;
}

void Supervision::HandleWelcome(size_t index, const estimator::v1::Welcome& welcome) {
  Node& node = nodes_[index];
  node.welcome = welcome;
  if (welcome.version() != BASIN_VERSION) {
    return Do(
        state_.OnRefused(absl::StrCat("node ", node.host.name, ": its agent is of Basin ", welcome.version(),
                                      ", this is ", BASIN_VERSION, "; use the same version on both, or let it be sent"),
                         false, SteadyNow()));
  }
  history_.Journal(absl::Now(), "node",
                   Compact({{"node", index},
                            {"host", node.host.name},
                            {"address", node.host.address},
                            {"host_name", welcome.host_name()},
                            {"folder", welcome.node_folder()},
                            {"version", welcome.version()},
                            {"machine", welcome.machine()},
                            {"libc", welcome.libc()},
                            {"cores", welcome.cores()},
                            {"memory_bytes", welcome.memory_bytes()},
                            {"gpus", std::vector<std::string>(welcome.gpus().begin(), welcome.gpus().end())},
                            {"rejoined", welcome.rejoined()}}));
  // The agent goes on with its files from where they are stored.
  ToAgent message;
  estimator::v1::StreamFiles* streams = message.mutable_stream_files();
  for (const RunHistory::StoredFile& file : history_.Stored()) {
    size_t task = 0;
    while (task < plan_.tasks.size() && !(plan_.tasks[task].place.name == file.task)) ++task;
    if (file.stream != RunStream::kAgent && !KnownTask(index, static_cast<uint32_t>(task))) continue;
    estimator::v1::FilePosition* position = streams->add_positions();
    position->set_stream(StreamKindOf(file.stream));
    position->set_task(file.stream == RunStream::kAgent ? 0 : static_cast<uint32_t>(task));
    position->set_path(file.path);
    position->set_offset(file.bytes);
  }
  node.link->Send(message);

  NodeReport report;
  report.rejoined = welcome.rejoined();
  // Of a start that is repeated, the agent may not yet know: then it tells of the processes of the attempt before.
  std::set<uint32_t> before;
  for (const estimator::v1::TaskStarted& started : welcome.started()) {
    if (!KnownTask(index, started.task())) continue;
    if (started.pid() != 0 && started.task() < ended_pids_.size() && ended_pids_[started.task()] == started.pid()) {
      before.insert(started.task());
      continue;
    }
    report.started.push_back(started.task());
    if (record_.tasks[started.task()].pid == 0) NoteStarted(started.task(), started.pid());
  }
  for (const estimator::v1::TaskExited& exited : welcome.exited()) {
    if (!KnownTask(index, exited.task()) || before.count(exited.task()) > 0) continue;
    const TaskExit exit = {exited.code(), exited.signal(), exited.port_taken()};
    report.exited.emplace_back(exited.task(), exit);
    if (!record_.tasks[exited.task()].exit) NoteExited(exited.task(), exit);
  }
  for (const estimator::v1::TaskGone& gone : welcome.gone()) {
    if (KnownTask(index, gone.task()) && before.count(gone.task()) == 0) report.gone.push_back(gone.task());
  }
  Do(state_.OnConnected(index, report, SteadyNow()));
}

void Supervision::NoteStarted(size_t task, int pid) {
  record_.tasks[task].pid = pid;
  record_changed_ = true;
}

void Supervision::NoteExited(size_t task, const TaskExit& exit) {
  record_.tasks[task].exit = exit;
  record_changed_ = true;
}

void Supervision::HandleExited(const estimator::v1::TaskExited& exited) {
  const TaskExit exit = {exited.code(), exited.signal(), exited.port_taken()};
  const PlacedTask& place = plan_.tasks[exited.task()].place;
  NoteExited(exited.task(), exit);
  if (!exit.ok() && state_.JudgesEndOf(exited.task())) HeedBatch();
  if (exit.port_taken) nodes_[place.node].avoid.push_back(static_cast<uint32_t>(place.port));
  Do(state_.OnExited(exited.task(), exit, SteadyNow(), exited.problem()));
}

void Supervision::HandleNotListening(size_t task) {
  const PlacedTask& place = plan_.tasks[task].place;
  const std::string name = absl::StrCat(Name(place.name.role), "/", place.name.index);
  history_.Journal(absl::Now(), "not_listening",
                   Compact({{"role", Name(place.name.role)}, {"index", place.name.index}, {"port", place.port}}));
  progress_.Clear();
  Warn(absl::StrCat(place.name.Sentence(), " runs, but does not listen on its port, ", place.host, ":", place.port,
                    ", ", absl::ToInt64Seconds(options_.listen_limit),
                    " s after its start: whoever needs it there waits; see ", "basin logs ", run_.record.run_id,
                    " --task ", name));
}

void Supervision::HandleChunk(size_t index, const estimator::v1::FileChunk& chunk) {
  if (chunk.stream() != estimator::v1::AGENT && !KnownTask(index, chunk.task())) return;
  const TaskId task = chunk.stream() == estimator::v1::AGENT ? TaskId{} : plan_.tasks[chunk.task()].place.name;
  const FilePiece piece = PieceOf(chunk, task, chunk.task() == chief_);
  if (piece.stream == RunStream::kAgent && absl::StartsWith(chunk.path(), "environment-")) {
    ShowPreparation(nodes_[index], chunk.data());
  }
  const FileName file = {chunk.stream(), chunk.task(), chunk.path()};
  if (history_.Store(piece).ok()) {
    nodes_[index].unstored.erase(file);
  } else {
    nodes_[index].unstored.insert(file);
  }
  if (!chunk.data().empty()) nodes_[index].link->Stored(chunk.data().size());
}

void Supervision::HandleCollected(size_t index, const estimator::v1::Collected& collected) {
  Node& node = nodes_[index];
  node.is_collecting = false;
  std::vector<std::string> stays;
  for (const auto& [stream, task, path] : node.unstored) {
    // Of a run that was removed, outputs alone are worth a folder that stays.
    if (history_.IsRemoved() && stream != estimator::v1::OUTPUT) continue;
    outputs_unstored_ = outputs_unstored_ || stream == estimator::v1::OUTPUT;
    const std::string owner = stream == estimator::v1::AGENT ? "" : plan_.tasks[task].place.name.Name();
    stays.push_back(absl::StrCat(NameOnNode(stream, owner, path), " (could not be stored here)"));
  }
  const uint64_t count =
      stays.size() + std::max<uint64_t>(collected.left_out_count(), static_cast<uint64_t>(collected.left_out_size()));
  stays.insert(stays.end(), collected.left_out().begin(), collected.left_out().end());
  history_.Journal(absl::Now(), "outputs",
                   Compact({{"node", index},
                            {"files", collected.files()},
                            {"bytes", collected.bytes()},
                            {"left_out", stays},
                            {"left_out_count", count}}));
  if (count > 0) {
    const std::string named = history_.IsRemoved()    ? ""
                              : count == stays.size() ? "; the journal names all"
                                                      : absl::StrCat("; the journal names ", stays.size());
    KeepFolder(node, absl::StrCat(count, count == 1 ? " file (" : " files (", stays.empty() ? "" : stays[0],
                                  count > 1 ? absl::StrCat(", ...", named, ")") : ")"));
  }
  const std::optional<size_t> failed = state_.failed_task();
  if (failed && static_cast<size_t>(plan_.tasks[*failed].place.node) == index) TellLastLines();
  Do(state_.OnCollected(index, SteadyNow()));
}

void Supervision::KeepFolder(Node& node, const std::string& what) {
  node.keeps_folder = true;
  history_.Journal(absl::Now(), "kept",
                   Compact({{"host", node.host.name},
                            {"folder", node.welcome.node_folder()},
                            {"local", run_.target.kind == TargetKind::kLocal}}));
  const std::string kept = absl::StrCat("not stored here: ", what, "; kept on node ", node.host.name, " in ",
                                        node.welcome.node_folder(), ", which is yours to remove");
  absl::StrAppend(&kept_on_nodes_, kept_on_nodes_.empty() ? "" : "; ", kept);
  progress_.Clear();
  Warn(kept);
}

}  // namespace basin
