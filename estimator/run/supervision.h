// The supervisor's loop, for supervisor.cc alone.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "estimator/run/control_socket.h"
#include "estimator/run/interrupts.h"
#include "estimator/run/node_link.h"
#include "estimator/run/progress.h"
#include "estimator/run/snapshot_sender.h"
#include "estimator/run/supervisor.h"

namespace basin {

class Supervision {
 public:
  Supervision(const SupervisedRun& run, const RunFolder& folder, Launcher& launcher, RunHistory& history,
              const SuperviseOptions& options, std::string token);
  ~Supervision();
  Supervision(const Supervision&) = delete;
  Supervision& operator=(const Supervision&) = delete;

  RunOutcome Run(int signals, ControlSocket* control);

 private:
  using ToAgent = estimator::v1::ToAgent;
  using FromAgent = estimator::v1::FromAgent;
  using FileName = std::tuple<estimator::v1::StreamKind, uint32_t, std::string>;  // stream, task, path
  struct Node {
    TargetNode host;
    std::unique_ptr<NodeLink> link;
    std::string image;    // that it has for containers, for people
    std::string printed;  // what it said instead of the agent's first line
    estimator::v1::Welcome welcome;
    std::unique_ptr<SnapshotSender> sender;
    std::vector<int> ports;
    std::vector<uint32_t> avoid;
    uint64_t pings = 0;
    std::string mpi_version;
    // Files of which the history could not take the newest piece; they are whole on the node alone.
    std::set<FileName> unstored;
    bool is_collecting = false;  // asked for its outputs, and has not said that all have come
    bool keeps_folder = false;
  };

  // supervision.cc: the loop, and what RunState wants done.
  void Wait(int signals, const ControlSocket& control);
  void ServiceLinks();
  void SendSnapshots();
  void Do(std::vector<RunAction> actions);
  void DoForNode(const RunAction& action, std::vector<RunAction>* more);
  void DoForTask(const RunAction& action);
  void Open(size_t node, std::vector<RunAction>* more);
  void SendPrograms(size_t node, std::vector<RunAction>* more);
  void MakePlanNow(std::vector<RunAction>* more);
  ToAgent StartMessage(size_t task) const;
  // What mpirun will be started with; none without mpi.
  const PlannedTask* Mpirun() const;
  absl::Status CheckMpiVersions() const;
  void TellChanges();
  int ExitCode() const;
  void TellLastLines();

  // supervision_signals.cc: how a run is ended from outside.
  void ServiceSignals(int signals, ControlSocket* control);
  void Cancel(const std::string& why, Interrupts::Answer answer);
  // Asks the batch system, where there is one, whether it is ending the job; then the run ends as that says.
  void HeedBatch();
  // Ends the run where its folder was removed.
  void HeedRemoval();

  // supervision_messages.cc: what the nodes say.
  void HandleLinkEvent(size_t node, const LinkEvent& event);
  void SayHello(size_t node);
  void HandleMessage(size_t node, const FromAgent& message);
  void HandleWelcome(size_t node, const estimator::v1::Welcome& welcome);
  void HandleExited(const estimator::v1::TaskExited& exited);
  void HandleNotListening(size_t task);
  void HandleChunk(size_t node, const estimator::v1::FileChunk& chunk);
  void HandleDaemonWanted(const estimator::v1::DaemonWanted& wanted);
  void HandleCollected(size_t node, const estimator::v1::Collected& collected);
  // The node's folder is not removed, and the user told why and where it is.
  void KeepFolder(Node& node, const std::string& what);
  void NoteImage(size_t node, const std::string& image);
  // What preparations print on a node, as progress.
  void ShowPreparation(const Node& node, const std::string& text);
  bool KnownTask(size_t node, uint32_t task) const;
  void NoteStarted(size_t task, int pid);
  void NoteExited(size_t task, const TaskExit& exit);

  const SupervisedRun& run_;
  const RunFolder& folder_;
  Launcher& launcher_;
  RunHistory& history_;
  const SuperviseOptions& options_;
  const std::string token_;
  Plan plan_;
  RunState state_;
  Progress progress_;
  Interrupts interrupts_;
  RunRecord record_;
  std::vector<Node> nodes_;
  std::vector<int> ended_pids_;  // of the tasks in the attempt before, which an agent still tells of
  size_t chief_ = 0;             // whose outputs are the run's
  bool record_changed_ = false;
  bool batch_ends_ = false;  // the batch system ends the job, whose signals then say nothing new
  bool requeued_ = false;
  bool removal_told_ = false;
  uint64_t connections_ = 0;
  bool last_lines_told_ = false;
  std::string kept_on_nodes_;      // what stays there, and where; part of the run's reason
  bool outputs_unstored_ = false;  // some of it are outputs that could not be stored here
};

}  // namespace basin
