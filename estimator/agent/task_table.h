// The tasks of a node: each gets its tree, its log, its port and a guard, and its end is told once, exactly.
#pragma once

#include <poll.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/unique_fd.h"
#include "estimator/agent/environment_preparation.h"
#include "estimator/agent/file_streams.h"
#include "estimator/agent/forked_work.h"
#include "estimator/agent/guarded_process.h"
#include "estimator/agent/messages.h"
#include "estimator/agent/node_folder.h"
#include "estimator/agent/output_sender.h"
#include "estimator/agent/port_holder.h"
#include "estimator/agent/snapshot_receiver.h"
#include "estimator/agent/task_command.h"

namespace basin {

inline constexpr uint32_t kMostTasks = 1024;

class TaskTable final {
 public:
  // What is around the tasks on this node; all of it outlives the table.
  struct Node {
    const NodeFolder& folder;
    const Programs& programs;
    const Environment& inherited;
    const EnvironmentPreparation& environment;
    const SnapshotReceiver& snapshots;
    PortHolder& ports;
    FileStreams& streams;
    const std::string& shared_memory;  // the run's folder there, once a task is an mpi_part
    std::function<void(const agent::FromAgent&)> tell;
    // An MPI rank has ended well: mpirun may know.
    std::function<void(uint32_t rank)> rank_is_done;
  };
  explicit TaskTable(Node node) : node_(std::move(node)) {}

  // From SIGTERM to SIGKILL for what tasks leave behind; for tasks started from now on.
  void set_grace(absl::Duration grace) { grace_ = grace; }

  // INVALID_ARGUMENT where the request is malformed, or the task is there already. Whatever else goes wrong is told as
  // the task's end. A task that is gone may be started again; one that is still to begin has got its order twice.
  absl::Status Start(const agent::StartTask& request);
  // mpirun has reached a rank, which begins now or once its tree is made. Why it cannot.
  absl::Status RankIsHere(const agent::RankHere& rank);
  // One whose tree is still being made ends at once, and one that was never started is told to be gone. No effect on a
  // task that is gone.
  void Signal(uint32_t task, bool kill);
  void SignalAll(bool kill);

  void AddWaits(std::vector<pollfd>* waits) const;
  // Goes on with whatever has happened. `strays_left`: processes of some task whose guard was killed still live, so
  // that no task's end can be told yet.
  void Advance(bool strays_left);
  // Tells of scripts that should listen by now and do not.
  void LookAtPorts(absl::Time now);
  // When LookAtPorts is due.
  absl::Time next_look_at_ports() const;
  // Tasks whose end waits for the strays.
  bool wants_sweep() const;
  bool all_gone() const;

  // Children of this process that belong here.
  void AddChildren(std::vector<pid_t>* pids) const;
  // What was started, has exited, is gone.
  void Report(agent::Welcome* welcome) const;
  std::vector<TaskOutputs> outputs() const;

 private:
  struct Task {
    agent::StartTask request;
    std::string name;  // "worker-1"
    std::string tree;
    std::optional<ForkedWork> making_tree;
    std::optional<ForkedWork> removing;  // its containers, where its guard could not
    std::optional<GuardedProcess> process;
    UniqueFd port_name;  // its port is no other run's as long as this is open
    std::optional<agent::TaskStarted> started;
    std::optional<agent::TaskExited> exited;
    absl::Time listens_by = absl::InfiniteFuture();  // then its port is looked at
    bool is_ready = false;                           // its tree is made, and it waits for mpirun
    std::optional<Environment> mpi;                  // mpirun has reached it, with this
    bool is_told = false;                            // `exited` was sent
    bool was_stopped = false;                        // by a signal that the supervisor ordered
    bool is_ended = false;                           // its guard is gone
    bool is_gone = false;                            // and nothing of it is left
  };

  absl::Status Check(const agent::StartTask& request) const;
  void MakeTree(Task* task);
  void TreeIsMade(Task* task);
  void Launch(Task* task);
  // The command that its guard is to start, without its paths.
  absl::StatusOr<GuardedCommand> CommandOf(const Task& task);
  // Whether no container of the task is left; begins to remove those that are.
  bool ContainersAreGone(Task* task);
  void Fail(Task* task, const std::string& problem);
  void Exited(Task* task, int code, int signal);
  void TellExit(Task* task);
  void TellGone(uint32_t number);
  std::string LogPath(const Task& task) const { return node_.folder.Logs() + "/" + task.name + ".txt"; }

  const Node node_;
  absl::Duration grace_ = absl::Seconds(5);
  int containers_ = 0;  // made, for their names
  std::map<uint32_t, Task> tasks_;
};

}  // namespace basin
