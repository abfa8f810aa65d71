#include "estimator/run/run_state.h"

#include <signal.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "estimator/job/mpi_command.h"

namespace basin {

RunState::RunState(std::vector<RunTask> tasks, std::vector<RunNode> nodes, const RunNeeds& needs,
                   const RunLimits& limits)
    : needs_(needs), limits_(limits) {
  for (const RunTask& task : tasks) {
    tasks_.emplace_back();
    tasks_.back().name = task.name;
    tasks_.back().node = task.node;
    tasks_.back().ends_with_run = task.name.role == Role::kPs && task.ends_with_run;
    has_ranks_ = has_ranks_ || StartsRanks(tasks_.back());
  }
  // A worker of TensorFlow's may well end with an error once its chief is gone.
  const bool has_own_ps = std::any_of(tasks_.begin(), tasks_.end(), [](const Task& task) {
    return task.name.role == Role::kPs && !task.ends_with_run;
  });
  const bool has_chief = HasChief();
  for (Task& task : tasks_) {
    const Role role = task.name.role;
    task.only_serves = has_own_ps && (role == Role::kPs || (role == Role::kWorker && has_chief));
  }
  for (RunNode& node : nodes) {
    nodes_.emplace_back();
    nodes_.back().name = std::move(node.name);
    nodes_.back().needs_ports = node.needs_ports;
  }
}

std::vector<RunAction> RunState::OnBegin(absl::Time now) {
  Actions actions;
  SetStage(RunPhase::kStarting, "", now);
  OpenMore(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnResume(absl::Time begun, absl::Time now) {
  Actions actions;
  resumed_ = true;
  begun_ = begun;
  planned_ = begun != absl::InfiniteFuture();
  for (Task& task : tasks_) task.asked = task.started = planned_;
  for (Node& node : nodes_) {
    if (planned_) node.step = Step::kReady;
    node.was_connected = true;
    node.lost_at = now;
    node.reopen_at = now;
  }
  cancel_at_ = planned_ ? begun_ + limits_.max_duration : absl::InfiniteFuture();
  SetStage(planned_ ? RunPhase::kRunning : RunPhase::kStarting, "a new supervisor reaches the nodes", now);
  OpenMore(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnPlanned(absl::Time now) {
  Actions actions;
  if (stopping()) return actions;
  planned_ = true;
  begun_ = now;
  if (cancel_at_ == absl::InfiniteFuture()) cancel_at_ = now + limits_.max_duration;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    if (tasks_[i].name.role == Role::kOrted) continue;
    tasks_[i].asked = true;
    actions.push_back({RunAction::kStart, i});
  }
  return actions;
}

std::vector<RunAction> RunState::OnDaemonWanted(size_t task, absl::Time) {
  Task& one = tasks_[task];
  if (!planned_ || stopping() || stage_ >= RunPhase::kFinalizing || one.asked) return {};
  one.asked = true;
  return {{RunAction::kStart, task}};
}

std::vector<RunAction> RunState::OnRefused(const std::string& why, bool wrong_input, absl::Time now) {
  Actions actions;
  if (!stopping()) wrong_input_ = wrong_input;
  Fail(why, now, &actions);
  Advance(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnStarted(size_t task, absl::Time now) {
  NoteStarted(task, now);
  return {};
}

std::vector<RunAction> RunState::OnExited(size_t task, TaskExit exit, absl::Time now, const std::string& problem) {
  Actions actions;
  NoteExited(task, exit, problem, now, &actions);
  Advance(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnGone(size_t task, absl::Time now) {
  Actions actions;
  NoteGone(task, now, &actions);
  Advance(now, &actions);
  return actions;
}

void RunState::NoteStarted(size_t task, absl::Time now) {
  tasks_[task].started = true;
  const bool all = std::all_of(tasks_.begin(), tasks_.end(), [](const Task& one) { return one.started; });
  if (all && !stopping() && stage_ < RunPhase::kRunning) SetStage(RunPhase::kRunning, "all tasks have started", now);
}

void RunState::NoteExited(size_t task, TaskExit exit, const std::string& problem, absl::Time now, Actions* actions) {
  Task& one = tasks_[task];
  if (one.exit) return;
  const bool judged = JudgesEndOf(task);
  one.exit = exit;
  if (!exit.ok() && judged) {
    std::string why = WhyOf(one, problem);
    // Whoever took the run over has neither its snapshot nor its secrets, without which no start is repeated.
    if (exit.port_taken) {
      absl::StrAppend(&why, resumed_ ? "; its port was taken; submit again" : "; another process listens on its port");
    }
    if (exit.port_taken && !resumed_ && retries_ < limits_.most_port_retries &&
        now < begun_ + limits_.port_retry_window && repeat_why_.empty()) {
      ++retries_;
      repeat_why_ = absl::StrCat(why, ": the start is repeated with other ports (", retries_, " of ",
                                 limits_.most_port_retries, ")");
      StopAll(now, actions);
    } else if (const int suspicion = Suspicion(one); suspicion > 0 && problem.empty()) {
      // Ranks done, nothing that mpirun or a daemon does changes the outcome.
      if (StartsRanks(one) && TrainingDone()) return;
      if (!suspect_ || suspicion > Suspicion(tasks_[*suspect_])) suspect_ = task;
      suspect_until_ = std::min(suspect_until_, now + limits_.cause_wait);
    } else {
      failed_task_ = task;
      Fail(why, now, actions);
    }
  }
}

bool RunState::JudgesEndOf(size_t task) const {
  const Task& one = tasks_[task];
  const bool is_needed = !one.only_serves || stage_ != RunPhase::kFinalizing;
  return !one.exit && !one.told_to_stop && is_needed && !stopping();
}

bool RunState::StartsRanks(const Task& task) {
  return task.name.role == Role::kMpirun || task.name.role == Role::kOrted;
}

void RunState::NameSuspect(absl::Time now, Actions* actions) {
  suspect_until_ = absl::InfiniteFuture();
  if (stopping() || TrainingDone()) return;
  failed_task_ = suspect_;
  Fail(WhyOf(tasks_[*suspect_], ""), now, actions);
}

std::string RunState::WhyOf(const Task& task, const std::string& problem) const {
  if (!problem.empty()) return absl::StrCat(task.name.Sentence(), " could not be started: ", problem);
  const bool is_elsewhere = nodes_.size() > 1 || has_ranks_;
  return absl::StrCat(task.name.Sentence(), " ", task.exit->Text(),
                      is_elsewhere ? absl::StrCat(" on ", nodes_[task.node].name) : "");
}

// How likely a bad end is the cause of others, where it may follow from them; 0 where it may not. SIGKILL comes from
// outside.
int RunState::Suspicion(const Task& task) const {
  if (!has_ranks_ || task.exit->signal == SIGKILL) return 0;
  if (StartsRanks(task)) return task.name.role == Role::kOrted ? 3 : 2;
  return task.exit->signal == 0 && task.exit->code == kLostDaemonCode ? 1 : 0;
}

void RunState::NoteGone(size_t task, absl::Time now, Actions* actions) {
  Task& one = tasks_[task];
  one.gone = true;
  if (!one.exit && !one.told_to_stop && !stopping()) {
    failed_task_ = task;
    Fail(absl::StrCat(one.name.Sentence(), " was lost: its guard ended without a report"), now, actions);
  }
}

std::vector<RunAction> RunState::OnCancel(absl::Time now, const std::string& why) {
  Actions actions;
  if (finished()) return actions;
  if (closing_) {
    leave_outputs_ = true;
    CloseNodes(now, &actions);
  } else if (stopping()) {
    KillAll(&actions);
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].connected || nodes_[i].gone) continue;
      actions.push_back({RunAction::kDrop, i});
      GiveUp(i, "it is out of reach while the run is killed", now, &actions);
    }
  } else {
    reason_ = why;
    cancel_at_ = absl::InfiniteFuture();
    repeat_why_.clear();
    SetStage(RunPhase::kCancelRequested, why, now);
    StopAll(now, &actions);
  }
  Advance(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnTime(absl::Time now) {
  Actions actions;
  if (finished()) return actions;
  for (size_t i = 0; i < nodes_.size(); ++i) NodeTime(i, now, &actions);
  if (now >= cancel_at_) {
    cancel_at_ = absl::InfiniteFuture();
    if (!stopping() && stage_ < RunPhase::kFinalizing) {
      const Actions more = OnCancel(
          now, absl::StrCat("max_run_duration_seconds (", absl::ToInt64Seconds(limits_.max_duration), ") is over"));
      actions.insert(actions.end(), more.begin(), more.end());
    }
  }
  if (now >= suspect_until_) NameSuspect(now, &actions);
  if (now >= kill_at_) KillAll(&actions);
  OpenMore(now, &actions);
  Advance(now, &actions);
  return actions;
}

absl::Time RunState::NextDeadline() const {
  if (finished()) return absl::InfiniteFuture();
  absl::Time next = std::min({cancel_at_, evaluator_until_, ps_until_, suspect_until_, kill_at_});
  // Where no more may be opened at once, the end of one that is being opened comes first.
  const bool may_open = Opening() < limits_.most_opening;
  for (const Node& node : nodes_) {
    if (node.gone) continue;
    next = std::min({next, node.open_until, node.leave_until, GraceEnd(node)});
    if (node.connected) next = std::min({next, node.next_ping, node.heard + limits_.lease});
    if (may_open && !node.connected && !node.opening && MayReturn(node)) next = std::min(next, node.reopen_at);
  }
  return next;
}

RunPhase RunState::phase() const {
  if (finished() || stage_ == RunPhase::kNotStarted || stopping()) return stage_;
  const bool out_of_reach = std::any_of(nodes_.begin(), nodes_.end(), [](const Node& node) {
    return !node.gone && !node.connected && node.lost_at != absl::InfiniteFuture();
  });
  return out_of_reach ? RunPhase::kNotResponding : stage_;
}

int RunState::exit_code() const {
  if (stage_ == RunPhase::kCompleted) return kExitOk;
  if (wrong_input_) return kExitUsage;
  if (failed_task_) {
    const std::optional<TaskExit>& exit = tasks_[*failed_task_].exit;
    if (exit && exit->signal == 0 && exit->code == kExitUsage && !exit->port_taken) return kExitUsage;
  }
  return kExitFailed;
}

std::vector<PhaseChange> RunState::TakeChanges() {
  std::vector<PhaseChange> taken;
  taken.swap(changes_);
  return taken;
}

void RunState::SetStage(RunPhase stage, const std::string& reason, absl::Time now) {
  stage_ = stage;
  NoteChange(reason, now);
}

void RunState::NoteChange(const std::string& reason, absl::Time now) {
  if (phase() == told_) return;
  told_ = phase();
  changes_.push_back({told_, now, reason});
}

bool RunState::HasChief() const {
  return std::any_of(tasks_.begin(), tasks_.end(), [](const Task& task) { return task.name.role == Role::kChief; });
}

bool RunState::TrainingDone() const {
  const Role trainer = HasChief() ? Role::kChief : Role::kWorker;
  return std::all_of(tasks_.begin(), tasks_.end(), [trainer](const Task& task) {
    return task.name.role != trainer || (task.exit && task.exit->ok());
  });
}

bool RunState::ServersHaveEnded() const {
  size_t ended = 0;
  for (const Task& task : tasks_) {
    if (!task.ends_with_run) continue;
    if (!task.exit || !task.exit->ok() || task.told_to_stop) return false;
    ++ended;
  }
  // The one that exports may still be at work long after.
  const auto chief = std::find_if(tasks_.begin(), tasks_.end(), [](const Task& task) {
    return task.name.role == Role::kChief || task.name.role == Role::kWorker;
  });
  return ended > 0 && chief != tasks_.end() && chief->exit && chief->exit->ok();
}

// Also of what the others had started, which may have been at work for them.
bool RunState::OnlyServersAreLeft() const {
  return std::all_of(tasks_.begin(), tasks_.end(),
                     [](const Task& task) { return task.ends_with_run || task.gone || !task.asked; });
}

bool RunState::AnyLeft(Role role) const {
  return std::any_of(tasks_.begin(), tasks_.end(),
                     [role](const Task& task) { return task.name.role == role && !task.exit && !task.gone; });
}

bool RunState::AllTasksGone() const {
  return std::all_of(tasks_.begin(), tasks_.end(), [](const Task& task) { return task.gone || !task.asked; });
}

void RunState::Stop(size_t task, Actions* actions) {
  Task& one = tasks_[task];
  if (one.told_to_stop || one.gone || !one.asked) return;
  one.told_to_stop = true;
  actions->push_back({RunAction::kTerm, task});
}

void RunState::StopAll(absl::Time now, Actions* actions) {
  for (size_t i = 0; i < tasks_.size(); ++i) {
    if (!StartsRanks(tasks_[i])) Stop(i, actions);
  }
  launchers_may_go_ = true;
  StopLaunchers(actions);
  evaluator_until_ = ps_until_ = suspect_until_ = absl::InfiniteFuture();
  kill_at_ = std::min(kill_at_, now + limits_.cancel_grace);
}

// They have nothing of their own to end in order.
void RunState::StopLaunchers(Actions* actions) {
  const bool any_left = std::any_of(tasks_.begin(), tasks_.end(),
                                    [](const Task& task) { return !StartsRanks(task) && task.asked && !task.gone; });
  if (!launchers_may_go_ || any_left) return;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    Task& one = tasks_[i];
    if (!StartsRanks(one) || one.told_to_stop || one.gone || !one.asked) continue;
    one.told_to_stop = true;
    actions->push_back({RunAction::kKill, i});
  }
}

void RunState::KillAll(Actions* actions) {
  killing_ = true;
  kill_at_ = absl::InfiniteFuture();
  for (size_t i = 0; i < tasks_.size(); ++i) {
    if (tasks_[i].gone || !tasks_[i].asked) continue;
    tasks_[i].told_to_stop = true;
    actions->push_back({RunAction::kKill, i});
  }
}

void RunState::ForgetTasksOf(size_t node) {
  for (Task& task : tasks_) {
    if (task.node == node) task.gone = task.told_to_stop = true;
  }
}

void RunState::Fail(const std::string& why, absl::Time now, Actions* actions) {
  if (stopping() || finished()) return;
  failed_ = true;
  reason_ = why;
  repeat_why_.clear();
  cancel_at_ = absl::InfiniteFuture();
  SetStage(RunPhase::kFinalizing, why, now);
  StopAll(now, actions);
}

void RunState::RepeatStart(absl::Time now, Actions* actions) {
  plan_asked_ = planned_ = killing_ = servers_ended_ = launchers_may_go_ = false;
  suspect_.reset();
  kill_at_ = absl::InfiniteFuture();
  for (Task& task : tasks_) {
    task.asked = task.started = task.gone = task.told_to_stop = false;
    task.exit.reset();
  }
  for (size_t i = 0; i < nodes_.size(); ++i) {
    // The one before the ports: what it made is still there. Of an agent that is new, nothing is.
    if (nodes_[i].step == Step::kReady && nodes_[i].needs_ports) nodes_[i].step = Step::kEnvironment;
    if (nodes_[i].connected) NextStep(i, actions);
  }
  AfterSteps(now, actions);
}

void RunState::Advance(absl::Time now, Actions* actions) {
  if (finished() || stage_ == RunPhase::kNotStarted) return;
  StopLaunchers(actions);
  if (suspect_until_ != absl::InfiniteFuture() && AllTasksGone()) NameSuspect(now, actions);  // nothing more comes
  if (!closing_ && AllTasksGone() && (planned_ || stopping())) {
    if (!repeat_why_.empty() && !stopping()) {
      const std::string why = std::move(repeat_why_);
      repeat_why_.clear();
      SetStage(RunPhase::kPreparing, why, now);
      return RepeatStart(now, actions);
    }
    closing_ = true;
    kill_at_ = evaluator_until_ = ps_until_ = cancel_at_ = absl::InfiniteFuture();
    if (!stopping() && stage_ != RunPhase::kFinalizing) SetStage(RunPhase::kFinalizing, "all tasks have ended", now);
  }
  if (closing_) {
    CloseNodes(now, actions);
    if (!std::all_of(nodes_.begin(), nodes_.end(), [](const Node& node) { return node.gone; })) return;
    SetStage(failed_                                ? RunPhase::kFailed
             : stage_ == RunPhase::kCancelRequested ? RunPhase::kCanceled
                                                    : RunPhase::kCompleted,
             reason_, now);
    actions->push_back({RunAction::kFinish});
    return;
  }
  const bool servers_ended = planned_ && !stopping() && repeat_why_.empty() && ServersHaveEnded();
  if (planned_ && !stopping() && repeat_why_.empty() && stage_ < RunPhase::kFinalizing &&
      (TrainingDone() || (servers_ended && stage_ == RunPhase::kRunning))) {
    SetStage(RunPhase::kFinalizing, "the training has ended", now);
    cancel_at_ = absl::InfiniteFuture();
    evaluator_until_ = now + limits_.evaluator_linger;
  }
  if (stage_ != RunPhase::kFinalizing || failed_) return;
  if (servers_ended && !servers_ended_) {
    // Whoever came too late waits for servers that are gone.
    servers_ended_ = true;
    if (evaluator_until_ != absl::InfiniteFuture()) {
      evaluator_until_ = std::min(evaluator_until_, now + limits_.ps_linger);
    }
  }
  // The evaluator reads from the ps, so their time begins when it is done.
  if (evaluator_until_ != absl::InfiniteFuture() && (now >= evaluator_until_ || !AnyLeft(Role::kEvaluator))) {
    for (size_t i = 0; i < tasks_.size(); ++i) {
      if (tasks_[i].name.role == Role::kEvaluator && !tasks_[i].exit) Stop(i, actions);
    }
    evaluator_until_ = absl::InfiniteFuture();
    // What does not end by itself is not waited for.
    const bool ends_by_itself = std::any_of(tasks_.begin(), tasks_.end(), [](const Task& task) {
      return !task.exit && !task.gone && (task.ends_with_run || task.name.role != Role::kPs);
    });
    ps_until_ = ends_by_itself ? now + limits_.ps_linger : now;
  }
  if (ps_until_ != absl::InfiniteFuture() && OnlyServersAreLeft()) {
    ps_until_ = std::min(ps_until_, now + limits_.ps_farewell);
  }
  if (now >= ps_until_) StopAll(now, actions);
}

}  // namespace basin
