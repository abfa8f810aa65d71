// What a run does next: which nodes to reach, prepare and leave, which tasks to start and stop, and what the run has
// come to. A pure decider: events and the time go in, actions come out. The time is one that never jumps (SteadyNow).
//
//   NotStarted -> Starting -> Provisioning -> Preparing -> Running -> Finalizing -> Completed | Failed
//                     \------------\-------------\-----------\------> CancelRequested -> Canceled
//   NotResponding stands in for any of them while a node that may return is out of reach.
//
// A node: reached (Basin's programs are sent where it lacks them), inputs checked, snapshot there, environment built,
// ports held; each step waits for the one before on the same node only. When all nodes are ready the plan is made and
// the tasks start.
//
// Running ends when the chief has ended with 0 or, without a chief, all workers have. Then the evaluator has a minute
// to finish, then the ps (which end by themselves once the run is finished) and other workers ten seconds, before they
// get SIGTERM. Where nothing is left of all others, basin-ps has only a second: whom it served has said goodbye, and
// workers that never spoke to it never will. None of that changes the outcome, nor does it when meanwhile a ps that is
// a script ends badly, or a worker beside such a ps and a chief. Where all basin-ps and the exporting worker have ended
// before another worker or the evaluator came (a very short training), those have ten seconds. A task that ends
// otherwise than with 0, before it was told to stop, fails the run: all others are stopped. But where its port was
// taken by a stranger within the first minute, the whole start is repeated with other ports. In the end every node
// hands over its outputs and is left.
//
// With mpi: mpirun is started with the workers, which are its ranks, and its daemon on each other node once it has
// asked for it (OnDaemonWanted). They are stopped when no worker is left, for a rank does not outlive its daemon. What
// may only follow from something else (mpirun or a daemon that ends badly, a rank that has lost its daemon) fails the
// run after cause_wait, unless what it follows from is known before.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cluster_spec/cluster_spec.h"
#include "estimator/run/run_phase.h"

namespace basin {

struct RunTask {
  TaskId name;
  size_t node = 0;
  bool ends_with_run = true;  // a ps that is basin-ps: it ends by itself, with 0, once the run is over
};

struct RunNode {
  std::string name;  // for people
  bool needs_ports = true;
};

// What a node must have before the plan is made; the same for all nodes.
struct RunNeeds {
  bool inputs = false;
  bool snapshot = false;
  bool environment = false;
  bool mpi = false;
};

struct RunAction {
  enum Kind {
    // Of node `index`. Each but kPing, kBye and kDrop is answered by its event.
    kOpen,          // start its agent, or reach the one there: OnConnected, OnProgramsMissing or OnLost
    kSendPrograms,  // OnProgramsSent or OnLost
    kCheckInputs,   // OnStepDone or OnRefused, as the next five
    kOfferSnapshot,
    kSendSnapshot,
    kPrepare,
    kCheckMpi,
    kHoldPorts,
    kPing,
    kCollect,  // OnCollected
    kBye,      // OnGoodbye
    kDrop,     // close the connection, without an event
    // Of the run.
    kMakePlan,  // OnPlanned or OnRefused
    kFinish,
    // Of task `index`.
    kStart,
    kTerm,
    kKill
  };
  Kind kind;
  size_t index = 0;
};

// What a node is asked before the plan is made, by what answers it: kOfferSnapshot and kSendSnapshot are both
// kSnapshot.
enum class RunStep { kInputs, kSnapshot, kEnvironment, kMpi, kPorts };

struct RunLimits {
  absl::Duration cancel_grace = absl::Seconds(5);  // from SIGTERM to SIGKILL
  absl::Duration evaluator_linger = absl::Seconds(60);
  absl::Duration ps_linger = absl::Seconds(10);
  absl::Duration ps_farewell = absl::Seconds(1);  // where nobody is left who could speak to them
  absl::Duration cause_wait = absl::Seconds(2);
  absl::Duration max_duration = absl::InfiniteDuration();  // from the first start of the tasks
  absl::Duration ping = absl::Seconds(5);
  absl::Duration lease = absl::Seconds(30);            // without a byte: the node is out of reach
  absl::Duration detach_grace = absl::ZeroDuration();  // for a node out of reach to return; 0: an attached run
  absl::Duration open_limit = absl::Seconds(60);       // for a node to answer for the first time
  absl::Duration goodbye_limit = absl::Seconds(10);
  absl::Duration port_retry_window = absl::Minutes(1);
  int most_port_retries = 3;
  size_t most_opening = 8;  // connections being made at once
};

// What a node said when it was reached.
struct NodeReport {
  bool rejoined = false;  // an agent of this run was there already
  std::vector<size_t> started;
  std::vector<std::pair<size_t, TaskExit>> exited;
  std::vector<size_t> gone;
};

struct PhaseChange {
  RunPhase phase;
  absl::Time time;
  std::string reason;
};

class RunState {
 public:
  RunState(std::vector<RunTask> tasks, std::vector<RunNode> nodes, const RunNeeds& needs, const RunLimits& limits);

  // Each event returns what to do now, in order.
  std::vector<RunAction> OnBegin(absl::Time now);
  // Instead of OnBegin: a new supervisor goes on with a run whose tasks have started at `begun`; infinite future: they
  // had not, and then the run fails once its nodes are reached.
  std::vector<RunAction> OnResume(absl::Time begun, absl::Time now);

  std::vector<RunAction> OnProgramsMissing(size_t node, absl::Time now);
  std::vector<RunAction> OnProgramsSent(size_t node, absl::Time now);
  std::vector<RunAction> OnConnected(size_t node, const NodeReport& report, absl::Time now);
  // Any byte counts.
  void OnHeard(size_t node, absl::Time now);
  // The connection has ended, or could not be made.
  std::vector<RunAction> OnLost(size_t node, const std::string& why, absl::Time now);
  // The node has done what it was asked; nothing where that is not what it was asked last. `have`: of kOfferSnapshot
  // alone, whether the snapshot is there already.
  std::vector<RunAction> OnStepDone(size_t node, RunStep step, absl::Time now, bool have = true);
  // The run cannot be: of a node's step or of the plan. `wrong_input`: the user's to mend (exit code 2).
  std::vector<RunAction> OnRefused(const std::string& why, bool wrong_input, absl::Time now);
  std::vector<RunAction> OnPlanned(absl::Time now);
  std::vector<RunAction> OnCollected(size_t node, absl::Time now);
  std::vector<RunAction> OnGoodbye(size_t node, absl::Time now);

  std::vector<RunAction> OnStarted(size_t task, absl::Time now);
  // mpirun wants a daemon, which is `task`. May come again.
  std::vector<RunAction> OnDaemonWanted(size_t task, absl::Time now);
  // `problem`: why it could not be started, where that was so.
  std::vector<RunAction> OnExited(size_t task, TaskExit exit, absl::Time now, const std::string& problem = "");
  // Nothing of the task is left, also of what it had started. Comes after OnExited; without one the task is lost.
  std::vector<RunAction> OnGone(size_t task, absl::Time now);
  // The first call cancels, the next kills and gives up nodes out of reach, the third leaves outputs where they are.
  std::vector<RunAction> OnCancel(absl::Time now, const std::string& why);
  std::vector<RunAction> OnTime(absl::Time now);

  // When OnTime is due next; InfiniteFuture where it is not.
  absl::Time NextDeadline() const;

  RunPhase phase() const;
  bool finished() const { return stage_ >= RunPhase::kCompleted; }
  // Whether all is being brought to an end before its time.
  bool stopping() const { return failed_ || stage_ == RunPhase::kCancelRequested; }
  // Whether a bad end of the task, or the loss of the node, says something of the run: nobody has asked for it.
  bool JudgesEndOf(size_t task) const;
  bool JudgesLossOf(size_t node) const { return !stopping() && !nodes_[node].gone && !nodes_[node].leaving; }
  bool failed() const { return failed_; }
  // The task whose end failed the run.
  std::optional<size_t> failed_task() const { return failed_task_; }
  // Why it failed or was canceled; empty otherwise.
  const std::string& reason() const { return reason_; }
  // How often the start was repeated.
  int retries() const { return retries_; }
  // Of `basin submit`: 0 completed; 2 where a task said that its input is wrong; otherwise 1.
  int exit_code() const;
  // The changes of state since the last call.
  std::vector<PhaseChange> TakeChanges();

 private:
  using Actions = std::vector<RunAction>;
  struct Task {
    TaskId name;
    size_t node = 0;
    bool ends_with_run = true;
    bool only_serves = false;  // a script that is of no use once the training has ended
    bool asked = false;        // its start was ordered
    bool started = false;
    bool gone = false;
    bool told_to_stop = false;
    std::optional<TaskExit> exit;
  };
  enum class Step { kReach, kInputs, kOffer, kSnapshot, kEnvironment, kMpi, kPorts, kReady };
  struct Node {
    std::string name;
    bool needs_ports = true;
    Step step = Step::kReach;
    bool opening = false;  // programs being sent count
    bool sending_programs = false;
    bool programs_sent = false;
    bool connected = false;
    bool was_connected = false;
    bool collecting = false;
    bool leaving = false;
    bool gone = false;
    absl::Time heard = absl::InfinitePast();
    absl::Time next_ping = absl::InfiniteFuture();
    absl::Time open_until = absl::InfiniteFuture();
    absl::Time leave_until = absl::InfiniteFuture();
    absl::Time lost_at = absl::InfiniteFuture();    // since when it is out of reach
    absl::Time reopen_at = absl::InfiniteFuture();  // when to try next
    absl::Duration pause = absl::Seconds(1);
    std::string why_lost;
  };

  // Tasks (run_state.cc).
  void NoteStarted(size_t task, absl::Time now);
  void NoteExited(size_t task, TaskExit exit, const std::string& problem, absl::Time now, Actions* actions);
  void NoteGone(size_t task, absl::Time now, Actions* actions);
  bool HasChief() const;
  static bool StartsRanks(const Task& task);
  std::string WhyOf(const Task& task, const std::string& problem) const;
  int Suspicion(const Task& task) const;
  void NameSuspect(absl::Time now, Actions* actions);
  bool TrainingDone() const;
  bool ServersHaveEnded() const;
  bool OnlyServersAreLeft() const;
  bool AnyLeft(Role role) const;
  bool AllTasksGone() const;
  void StopAll(absl::Time now, Actions* actions);
  void Stop(size_t task, Actions* actions);
  void StopLaunchers(Actions* actions);
  void KillAll(Actions* actions);
  void ForgetTasksOf(size_t node);
  void Fail(const std::string& why, absl::Time now, Actions* actions);
  void RepeatStart(absl::Time now, Actions* actions);
  // Goes on with the end of the run as far as it can.
  void Advance(absl::Time now, Actions* actions);
  void SetStage(RunPhase stage, const std::string& reason, absl::Time now);
  void NoteChange(const std::string& reason, absl::Time now);

  // Nodes (run_state_nodes.cc).
  void OpenMore(absl::Time now, Actions* actions);
  void Open(size_t node, absl::Time now, Actions* actions);
  void TakeReport(size_t node, const NodeReport& report, absl::Time now, Actions* actions);
  void NextStep(size_t node, Actions* actions);
  void AfterSteps(absl::Time now, Actions* actions);
  void Lose(size_t node, const std::string& why, absl::Time now, Actions* actions);
  void GiveUp(size_t node, const std::string& why, absl::Time now, Actions* actions);
  void NodeTime(size_t node, absl::Time now, Actions* actions);
  void Leave(size_t node, absl::Time now, Actions* actions);
  void CloseNodes(absl::Time now, Actions* actions);
  bool MayReturn(const Node& node) const;
  size_t Opening() const;
  absl::Time GraceEnd(const Node& node) const;
  static std::optional<RunStep> AskedOf(const Node& node);

  const RunNeeds needs_;
  const RunLimits limits_;
  std::vector<Task> tasks_;
  std::vector<Node> nodes_;
  RunPhase stage_ = RunPhase::kNotStarted;
  RunPhase told_ = RunPhase::kNotStarted;  // the newest of changes_
  std::vector<PhaseChange> changes_;
  bool resumed_ = false;
  bool plan_asked_ = false;
  bool planned_ = false;  // tasks have been started, in this attempt
  bool failed_ = false;
  bool wrong_input_ = false;
  bool killing_ = false;
  bool servers_ended_ = false;
  bool closing_ = false;  // no task is left: outputs come in, nodes are left
  bool leave_outputs_ = false;
  bool has_ranks_ = false;         // with mpi
  bool launchers_may_go_ = false;  // as soon as no other task is left
  std::optional<size_t> suspect_;  // whose bad end may have another cause
  std::string repeat_why_;         // not empty: everything is stopped to start anew
  int retries_ = 0;
  std::optional<size_t> failed_task_;
  std::string reason_;
  absl::Time begun_ = absl::InfiniteFuture();
  absl::Time cancel_at_ = absl::InfiniteFuture();
  absl::Time evaluator_until_ = absl::InfiniteFuture();
  absl::Time ps_until_ = absl::InfiniteFuture();
  absl::Time suspect_until_ = absl::InfiniteFuture();
  absl::Time kill_at_ = absl::InfiniteFuture();
};

}  // namespace basin
