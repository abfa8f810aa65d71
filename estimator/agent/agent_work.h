// What an agent does for the supervisor that it listens to: it carries out messages and tells what happens.
#pragma once

#include <poll.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/environment_preparation.h"
#include "estimator/agent/file_streams.h"
#include "estimator/agent/forked_work.h"
#include "estimator/agent/messages.h"
#include "estimator/agent/mpi_check.h"
#include "estimator/agent/mpi_door.h"
#include "estimator/agent/node_folder.h"
#include "estimator/agent/output_sender.h"
#include "estimator/agent/port_holder.h"
#include "estimator/agent/programs.h"
#include "estimator/agent/shared_memory_folder.h"
#include "estimator/agent/snapshot_receiver.h"
#include "estimator/agent/task_command.h"
#include "estimator/agent/task_table.h"

namespace basin {

class AgentWork final {
 public:
  // `folder` outlives it. `welcome` holds the node's facts.
  AgentWork(const NodeFolder& folder, const Programs& programs, const Environment& inherited, agent::Welcome welcome);
  AgentWork(const AgentWork&) = delete;

  // A supervisor's connection begins: it is welcomed, and told what there is. `channel` lives until Disconnected.
  void Connected(Channel* channel, absl::Duration cancel_grace, bool rejoined);
  void Disconnected();
  // The channel cannot be used any more.
  const absl::Status& broken() const { return broken_; }

  // INVALID_ARGUMENT where the message is malformed or out of order: this connection is then of no more use.
  absl::Status Handle(const agent::ToAgent& message);
  // Set once the supervisor has said that the run is over.
  const std::optional<agent::Bye>& bye() const { return bye_; }
  void SayGoodbye();

  void AddWaits(std::vector<pollfd>* waits) const;
  // Goes on with whatever has happened, and sends as much of the streams as the supervisor has room for.
  void Advance(absl::Time now);
  // When Advance has something to do without an event.
  absl::Time next() const;

  // SIGTERM, or SIGKILL, to everything; nothing new is started.
  void StopAll(bool kill);
  // Nothing is left but this process.
  bool idle() const;

 private:
  void Tell(const agent::FromAgent& message);
  bool SweepStrays(absl::Time now);
  void PumpStreams(absl::Time now);
  bool SendChunk(const agent::FileChunk& chunk);
  void HoldPorts(const agent::HoldPorts& request);
  absl::Status Answer(absl::StatusOr<std::optional<agent::SnapshotState>> state);
  void TellSnapshot(const agent::SnapshotState& state);
  void Stored(uint64_t bytes);
  void CheckInputs(const agent::CheckInputs& request, absl::Time now);
  void AdvanceInputCheck(absl::Time now);
  void TellInputs(const agent::InputsChecked& checked);
  void AdvanceEnvironment();
  void CheckMpi(const agent::CheckMpi& request, absl::Time now);
  void AdvanceMpi(absl::Time now);
  absl::Status OpenMpiDoor();

  const NodeFolder& folder_;
  const Programs programs_;
  const Environment inherited_;
  agent::Welcome welcome_;
  PortHolder ports_;
  SnapshotReceiver snapshots_;
  EnvironmentPreparation environment_;
  FileStreams streams_;
  std::string shared_memory_path_;  // before the tasks, which look at it
  TaskTable tasks_;
  std::optional<MpiDoor> mpi_door_;  // once a task is part of an mpi run
  std::optional<SharedMemoryFolder> shared_memory_;
  std::optional<MpiCheck> mpi_check_;                // under way
  std::vector<agent::DaemonWanted> wanted_daemons_;  // by mpirun

  Channel* channel_ = nullptr;
  absl::Status broken_;
  CreditMeter meter_;
  bool is_stopping_ = false;
  bool strays_left_ = false;
  std::optional<agent::Bye> bye_;
  absl::Time next_look_ = absl::InfinitePast();
  agent::StreamFiles has_;  // what the supervisor said last
  std::optional<agent::CollectOutputs> collecting_;
  bool is_drained_ = false;  // a last look at the streams was taken, for `collecting_`
  std::optional<OutputSender> outputs_;
  struct InputCheck {
    agent::CheckInputs request;
    ForkedWork work;
    absl::Time deadline;
  };
  std::optional<InputCheck> input_check_;  // under way
};

}  // namespace basin
