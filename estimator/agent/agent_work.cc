#include "estimator/agent/agent_work.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "estimator/agent/agent_log.h"
#include "estimator/agent/input_check.h"
#include "estimator/agent/process_tree.h"
#include "estimator/agent/steady_now.h"

namespace basin {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(100);
constexpr absl::Duration kSweepEvery = absl::Milliseconds(10);
constexpr absl::Duration kMostInputCheck = absl::Seconds(60);

}  // namespace

AgentWork::AgentWork(const NodeFolder& folder, const Programs& programs, const Environment& inherited,
                     agent::Welcome welcome)
    : folder_(folder),
      programs_(programs),
      inherited_(inherited),
      welcome_(std::move(welcome)),
      snapshots_(folder.base),
      environment_(folder, programs, inherited, absl::Seconds(5)),
      tasks_({folder_, programs_, inherited_, environment_, snapshots_, ports_, streams_, shared_memory_path_,
              [this](const agent::FromAgent& message) { Tell(message); },
              [this](uint32_t rank) {
                if (mpi_door_) mpi_door_->AnswerRank(rank, 0, "");
              }}) {
  streams_.FollowFile(agent::AGENT, 0, absl::StrCat("agent-", folder_.node, ".txt"), folder_.AgentLog());
  streams_.FollowFile(agent::AGENT, 0, environment_.LogName(), environment_.LogPath());
}

void AgentWork::Connected(Channel* channel, absl::Duration cancel_grace, bool rejoined) {
  channel_ = channel;
  broken_ = absl::OkStatus();
  meter_ = CreditMeter();
  tasks_.set_grace(cancel_grace);
  agent::FromAgent message;
  *message.mutable_welcome() = welcome_;
  message.mutable_welcome()->set_rejoined(rejoined);
  tasks_.Report(message.mutable_welcome());
  Tell(message);
  // The one before may have been told, and have come to nothing with it.
  for (const agent::DaemonWanted& wanted : wanted_daemons_) {
    agent::FromAgent again;
    *again.mutable_daemon_wanted() = wanted;
    Tell(again);
  }
}

void AgentWork::Disconnected() {
  channel_ = nullptr;
  streams_.Stop();
  snapshots_.Abandon();
  collecting_.reset();
  outputs_.reset();
  input_check_.reset();
  mpi_check_.reset();
}

void AgentWork::Tell(const agent::FromAgent& message) {
  if (channel_ == nullptr || !broken_.ok()) return;  // a rejoining supervisor is told by Welcome
  broken_ = channel_->SendControl(message.SerializeAsString());
}

void AgentWork::SayGoodbye() {
  agent::FromAgent message;
  message.mutable_goodbye();
  Tell(message);
}

void AgentWork::Stored(uint64_t bytes) {
  if (const uint64_t credit = meter_.Stored(bytes); credit > 0) {
    agent::FromAgent message;
    message.mutable_credit()->set_bytes(credit);
    Tell(message);
  }
}

absl::Status AgentWork::Answer(absl::StatusOr<std::optional<agent::SnapshotState>> state) {
  BASIN_RETURN_IF_ERROR(state.status());
  if (*state) TellSnapshot(**state);
  return absl::OkStatus();
}

void AgentWork::TellSnapshot(const agent::SnapshotState& state) {
  // One that is neither there nor in trouble is only asked for.
  if (state.have() || !state.problem().empty()) {
    AgentLog(absl::StrCat("snapshot ", state.digest().substr(0, 16),
                          state.have() ? " is there" : absl::StrCat(" could not be stored: ", state.problem())));
  }
  agent::FromAgent message;
  *message.mutable_snapshot_state() = state;
  Tell(message);
}

void AgentWork::HoldPorts(const agent::HoldPorts& request) {
  PortRequest wanted{request.count(),
                     request.first(),
                     request.last(),
                     request.bind_address(),
                     {request.avoid().begin(), request.avoid().end()}};
  const absl::StatusOr<std::vector<uint32_t>> held = ports_.Hold(wanted);
  agent::FromAgent message;
  agent::PortsHeld& answer = *message.mutable_ports_held();
  AgentLog(ports_.address().note);
  if (held.ok()) {
    for (const uint32_t port : *held) answer.add_ports(port);
    if (!held->empty()) AgentLog(absl::StrCat("ports ", absl::StrJoin(*held, " ")));
  } else {
    answer.set_problem(std::string(held.status().message()));
    AgentLog(answer.problem());
  }
  Tell(message);
}

void AgentWork::CheckInputs(const agent::CheckInputs& request, absl::Time now) {
  input_check_.reset();
  absl::StatusOr<ForkedWork> work =
      ForkedWork::Start([request] { return CheckInputsHere(request).SerializeAsString(); });
  if (work.ok()) {
    input_check_.emplace(InputCheck{request, *std::move(work), now + kMostInputCheck});
  } else {
    TellInputs(AllInputsFailed(request, absl::StrCat("it was not looked at: ", work.status().message())));
  }
}

void AgentWork::AdvanceInputCheck(absl::Time now) {
  if (!input_check_) return;
  const std::optional<absl::StatusOr<std::string>> text = input_check_->work.Poll();
  if (!text && now < input_check_->deadline) return;
  std::string problem;
  agent::InputsChecked checked;
  if (!text) {
    problem = absl::StrCat("its file system has not answered within ", absl::FormatDuration(kMostInputCheck));
  } else if (!text->ok()) {
    problem = absl::StrCat("it was not looked at to the end: ", text->status().message());
  } else if (!checked.ParseFromString(**text)) {
    problem = "what is wrong with the inputs is too much for one message; name fewer inputs";
  }
  if (!problem.empty()) checked = AllInputsFailed(input_check_->request, problem);
  input_check_.reset();
  TellInputs(checked);
}

void AgentWork::TellInputs(const agent::InputsChecked& checked) {
  agent::FromAgent message;
  *message.mutable_inputs_checked() = checked;
  Tell(message);
}

void AgentWork::AdvanceEnvironment() {
  if (const std::optional<agent::EnvironmentReady> ready = environment_.Poll()) {
    agent::FromAgent message;
    *message.mutable_environment_ready() = *ready;
    Tell(message);
  }
}

void AgentWork::CheckMpi(const agent::CheckMpi& request, absl::Time now) {
  TaskSurroundings around;
  around.paths = {programs_.folder, folder_.path, folder_.Token()};
  around.programs = programs_;
  if (!environment_.image()) {
    around.environment_prefix = environment_.ready().prefix();
    around.is_conda = environment_.is_conda();
  }
  absl::StatusOr<MpiCheck> check = MpiCheck::Start(request, inherited_, around, now);
  if (check.ok()) {
    mpi_check_.emplace(*std::move(check));
    return;
  }
  agent::FromAgent message;
  message.mutable_mpi_checked()->set_problem(std::string(check.status().message()));
  Tell(message);
}

absl::Status AgentWork::OpenMpiDoor() {
  if (mpi_door_) return absl::OkStatus();
  absl::StatusOr<SharedMemoryFolder> shared_memory = SharedMemoryFolder::Make();
  if (shared_memory.ok()) {
    shared_memory_.emplace(*std::move(shared_memory));
    shared_memory_path_ = shared_memory_->path();
  } else {
    AgentLog(absl::StrCat(shared_memory.status().message(), "; what ranks share goes to a file system instead"));
    BASIN_RETURN_IF_ERROR(MakeFolderIn(folder_, "shm"));
    shared_memory_path_ = folder_.path + "/shm";
  }
  BASIN_ASSIGN_OR_RETURN(MpiDoor door, MpiDoor::Open(folder_));
  mpi_door_.emplace(std::move(door));
  return absl::OkStatus();
}

void AgentWork::AdvanceMpi(absl::Time now) {
  if (mpi_check_) {
    if (const std::optional<agent::MpiChecked> checked = mpi_check_->Poll(now)) {
      mpi_check_.reset();
      AgentLog(checked->problem().empty() ? checked->version() : checked->problem());
      agent::FromAgent message;
      *message.mutable_mpi_checked() = *checked;
      Tell(message);
    }
  }
  if (!mpi_door_) return;
  for (const agent::MpiCall& call : mpi_door_->Poll()) {
    if (call.has_rank()) {
      const absl::Status status =
          is_stopping_ ? absl::CancelledError("the run is over") : tasks_.RankIsHere(call.rank());
      if (!status.ok()) mpi_door_->AnswerRank(call.rank().rank(), 1, std::string(status.message()));
      continue;
    }
    const auto same = [&call](const agent::DaemonWanted& one) { return one.node() == call.daemon().node(); };
    if (std::any_of(wanted_daemons_.begin(), wanted_daemons_.end(), same)) {
      mpi_door_->AnswerDaemon(call.daemon().node(), "its daemon has been asked for already");
      continue;
    }
    wanted_daemons_.push_back(call.daemon());
    AgentLog(absl::StrCat("mpirun wants its daemon on node ", call.daemon().node()));
    agent::FromAgent message;
    *message.mutable_daemon_wanted() = call.daemon();
    Tell(message);
  }
}

absl::Status AgentWork::Handle(const agent::ToAgent& message) {
  const absl::Time now = SteadyNow();
  switch (message.body_case()) {
    case agent::ToAgent::kPing: {
      agent::FromAgent answer;
      answer.mutable_pong()->set_number(message.ping().number());
      Tell(answer);
      return absl::OkStatus();
    }
    case agent::ToAgent::kCheckInputs:
      CheckInputs(message.check_inputs(), now);
      return absl::OkStatus();
    case agent::ToAgent::kOfferSnapshot:
      return Answer(std::optional(snapshots_.Offer(message.offer_snapshot())));
    case agent::ToAgent::kTreeEntry:
      return Answer(snapshots_.Entry(message.tree_entry()));
    case agent::ToAgent::kTreeData:
      BASIN_RETURN_IF_ERROR(Answer(snapshots_.Data(message.tree_data().data())));
      Stored(message.tree_data().data().size());
      return absl::OkStatus();
    case agent::ToAgent::kTreeEnd:
      return Answer(snapshots_.End());
    case agent::ToAgent::kPrepareEnvironment:
      if (const auto ready = environment_.Prepare(message.prepare_environment())) {
        agent::FromAgent answer;
        *answer.mutable_environment_ready() = *ready;
        Tell(answer);
      }
      return absl::OkStatus();
    case agent::ToAgent::kHoldPorts:
      HoldPorts(message.hold_ports());
      return absl::OkStatus();
    case agent::ToAgent::kCheckMpi:
      CheckMpi(message.check_mpi(), now);
      return absl::OkStatus();
    case agent::ToAgent::kStartTask:
      if (message.start_task().mpi_part() != agent::StartTask::MPI_PART_UNSPECIFIED) BASIN_RETURN_IF_ERROR(OpenMpiDoor());
      return is_stopping_ ? absl::OkStatus() : tasks_.Start(message.start_task());
    case agent::ToAgent::kSignalTask:
      tasks_.Signal(message.signal_task().task(), message.signal_task().kill());
      return absl::OkStatus();
    case agent::ToAgent::kStreamFiles:
      has_ = message.stream_files();
      streams_.Begin(has_);
      next_look_ = now;
      return absl::OkStatus();
    case agent::ToAgent::kCollectOutputs:
      if (!streams_.active()) streams_.Begin(has_);
      collecting_ = message.collect_outputs();
      is_drained_ = false;
      outputs_.reset();
      return absl::OkStatus();
    case agent::ToAgent::kCredit:
      channel_->AddCredit(message.credit().bytes());
      return absl::OkStatus();
    case agent::ToAgent::kBye:
      bye_ = message.bye();
      return absl::OkStatus();
    case agent::ToAgent::kHello:
      return absl::InvalidArgumentError("a second Hello on one connection");
    case agent::ToAgent::BODY_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a message of a kind that this agent does not know");
}

bool AgentWork::SendChunk(const agent::FileChunk& chunk) {
  agent::FromAgent message;
  *message.mutable_file_chunk() = chunk;
  broken_ = channel_->SendData(message.SerializeAsString(), chunk.data().size());
  if (broken_.ok()) broken_ = channel_->Flush();
  return broken_.ok();
}

void AgentWork::PumpStreams(absl::Time now) {
  if (channel_ == nullptr || !broken_.ok() || !streams_.active()) return;
  const bool may_drain = collecting_ && tasks_.all_gone();
  if (may_drain && !is_drained_) {
    streams_.Look(now, /*everything=*/true);
    is_drained_ = true;
  } else if (now >= next_look_) {
    streams_.Look(now, /*everything=*/false);
    next_look_ = now + kLookEvery;
  }
  while (channel_->CanSendData()) {
    std::optional<agent::FileChunk> chunk = streams_.Next();
    if (!chunk && may_drain) {
      if (!outputs_) outputs_.emplace(tasks_.outputs(), collecting_->limit_bytes(), has_, streams_.NotTold());
      chunk = outputs_->Next();
      if (!chunk) {
        agent::FromAgent message;
        *message.mutable_collected() = outputs_->collected();
        Tell(message);
        collecting_.reset();
        outputs_.reset();
        return;
      }
    }
    if (!chunk || !SendChunk(*chunk)) return;
  }
}

void AgentWork::AddWaits(std::vector<pollfd>* waits) const {
  tasks_.AddWaits(waits);
  snapshots_.AddWaits(waits);
  for (const int fd : {environment_.status_fd(), environment_.removing_fd()}) {
    if (fd >= 0) waits->push_back({fd, POLLIN, 0});
  }
  if (input_check_) waits->push_back({input_check_->work.fd(), POLLIN, 0});
  if (mpi_check_) waits->push_back({mpi_check_->fd(), POLLIN, 0});
  if (mpi_door_) mpi_door_->AddWaits(waits);
}

bool AgentWork::SweepStrays(absl::Time now) {
  std::vector<pid_t> known;
  tasks_.AddChildren(&known);
  snapshots_.AddChildren(&known);
  for (const pid_t pid : {environment_.guard(), environment_.removing()}) {
    if (pid != 0) known.push_back(pid);
  }
  if (input_check_) known.push_back(input_check_->work.pid());
  if (mpi_check_) known.push_back(mpi_check_->pid());
  bool found = false;
  for (const ProcessRef& child : Children(getpid())) {
    if (std::find(known.begin(), known.end(), child.pid) != known.end() || IsGivenUp(child, now)) continue;
    found = true;
    for (const ProcessRef& below : Descendants(child.pid)) SignalProcess(below, SIGKILL);
    SignalProcess(child, SIGKILL);
  }
  return found;
}

void AgentWork::Advance(absl::Time now) {
  AdvanceInputCheck(now);
  AdvanceEnvironment();
  AdvanceMpi(now);
  if (std::optional<agent::SnapshotState> state = snapshots_.Poll()) TellSnapshot(*state);
  tasks_.Advance(/*strays_left=*/true);  // ends are told below, once nothing of them is left
  if (tasks_.wants_sweep() || strays_left_ || is_stopping_) {
    strays_left_ = SweepStrays(now);
    tasks_.Advance(strays_left_);
  }
  tasks_.LookAtPorts(now);
  PumpStreams(now);
}

absl::Time AgentWork::next() const {
  absl::Time next =
      std::min(input_check_ ? input_check_->deadline : absl::InfiniteFuture(), tasks_.next_look_at_ports());
  if (mpi_check_) next = std::min(next, mpi_check_->deadline());
  if (streams_.active()) next = std::min(next, next_look_);
  if (strays_left_) next = std::min(next, SteadyNow() + kSweepEvery);
  return next;
}

void AgentWork::StopAll(bool kill) {
  is_stopping_ = true;
  tasks_.SignalAll(kill);
  input_check_.reset();
  mpi_check_.reset();
  if (kill) {
    environment_.Kill();
  } else {
    environment_.Terminate();
  }
}

bool AgentWork::idle() const { return tasks_.all_gone() && !environment_.running() && !strays_left_; }

}  // namespace basin
