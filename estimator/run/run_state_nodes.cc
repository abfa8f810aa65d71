// The nodes' part of RunState.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "estimator/run/run_state.h"

namespace basin {
namespace {

constexpr absl::Duration kMostPause = absl::Seconds(15);

std::string Seconds(absl::Duration duration) { return absl::StrCat(absl::ToInt64Seconds(duration), " s"); }

}  // namespace

std::vector<RunAction> RunState::OnProgramsMissing(size_t index, absl::Time now) {
  Actions actions;
  Node& node = nodes_[index];
  if (node.gone || node.connected) return actions;
  // Where its agent had been reached, sending them anew helps nobody: it is out of reach until its grace is over.
  if (node.was_connected) return OnLost(index, "Basin's programs are not found there any more", now);
  if (stopping() || node.programs_sent) {
    actions.push_back({RunAction::kDrop, index});
    GiveUp(index,
           node.programs_sent ? "Basin's programs were sent, and are still not found there"
                              : "it has none of Basin's programs",
           now, &actions);
    OpenMore(now, &actions);
    Advance(now, &actions);
    return actions;
  }
  node.sending_programs = true;
  node.open_until = absl::InfiniteFuture();  // as long as the network needs; the launcher's own limits hold
  actions.push_back({RunAction::kSendPrograms, index});
  AfterSteps(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnProgramsSent(size_t index, absl::Time now) {
  Actions actions;
  Node& node = nodes_[index];
  if (node.gone || !node.sending_programs) return actions;
  node.sending_programs = node.opening = false;
  node.programs_sent = true;
  if (stopping()) {
    GiveUp(index, "it is no longer needed", now, &actions);
    OpenMore(now, &actions);
    Advance(now, &actions);
  } else {
    Open(index, now, &actions);
  }
  return actions;
}

std::vector<RunAction> RunState::OnConnected(size_t index, const NodeReport& report, absl::Time now) {
  Actions actions;
  Node& node = nodes_[index];
  if (node.gone) return actions;
  const bool returned = node.was_connected;
  node.connected = node.was_connected = true;
  node.opening = false;
  node.heard = now;
  node.next_ping = now + limits_.ping;
  node.open_until = node.lost_at = node.reopen_at = absl::InfiniteFuture();
  node.pause = absl::Seconds(1);
  if (returned) NoteChange(absl::StrCat("node ", node.name, " answers again"), now);
  TakeReport(index, report, now, &actions);
  // What an agent that is new has been told by nobody: it begins with the first step.
  if (!report.rejoined && !resumed_) node.step = Step::kReach;
  if (closing_) {
    node.collecting = false;
    Leave(index, now, &actions);
  } else if (resumed_ && !planned_ && !stopping()) {
    Fail("its supervisor ended before the tasks had started; submit the job again", now, &actions);
  } else if (!stopping() && !planned_ && node.step != Step::kReady) {
    // What was asked last may have been lost with the connection; asking again changes nothing.
    const bool ports_only = node.step == Step::kPorts;
    node.step = ports_only ? Step::kEnvironment : Step::kReach;
    NextStep(index, &actions);
  }
  OpenMore(now, &actions);
  AfterSteps(now, &actions);
  Advance(now, &actions);
  return actions;
}

void RunState::TakeReport(size_t index, const NodeReport& report, absl::Time now, Actions* actions) {
  const Node& node = nodes_[index];
  const bool has_tasks = std::any_of(tasks_.begin(), tasks_.end(), [index](const Task& task) {
    return task.node == index && task.asked && !task.gone;
  });
  if (!report.rejoined) {
    if (!has_tasks) return;
    ForgetTasksOf(index);
    Fail(absl::StrCat("node ", node.name, ": the agent of this run has ended, and its tasks with it"), now, actions);
    return;
  }
  // What it tells of tasks that have not been ordered since is of the attempt before.
  for (const size_t task : report.started) {
    if (tasks_[task].asked) NoteStarted(task, now);
  }
  for (const auto& [task, exit] : report.exited) {
    if (tasks_[task].asked) NoteExited(task, exit, "", now, actions);
  }
  for (const size_t task : report.gone) {
    if (tasks_[task].asked) NoteGone(task, now, actions);
  }
  for (size_t i = 0; i < tasks_.size(); ++i) {
    Task& task = tasks_[i];
    if (task.node != index || !task.asked || task.gone) continue;
    if (std::find(report.started.begin(), report.started.end(), i) == report.started.end()) {
      // The order to start it was lost.
      if (task.told_to_stop) {
        task.gone = true;
      } else if (resumed_) {
        NoteExited(i, {127, 0}, "its supervisor ended before it was started", now, actions);
        task.gone = true;
      } else {
        actions->push_back({RunAction::kStart, i});
      }
    } else if (task.told_to_stop) {
      actions->push_back({killing_ || StartsRanks(task) ? RunAction::kKill : RunAction::kTerm, i});
    }
  }
}

void RunState::OnHeard(size_t node, absl::Time now) { nodes_[node].heard = std::max(nodes_[node].heard, now); }

std::vector<RunAction> RunState::OnLost(size_t index, const std::string& why, absl::Time now) {
  Actions actions;
  Lose(index, why, now, &actions);
  OpenMore(now, &actions);
  Advance(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnStepDone(size_t index, RunStep step, absl::Time now, bool have) {
  Actions actions;
  Node& node = nodes_[index];
  if (stopping() || !node.connected || node.step == Step::kReady) return actions;
  // An answer to what was asked over the connection before may come late.
  if (step != AskedOf(node)) return actions;
  if (node.step == Step::kOffer && !have) {
    node.step = Step::kSnapshot;
    actions.push_back({RunAction::kSendSnapshot, index});
  } else {
    NextStep(index, &actions);
  }
  AfterSteps(now, &actions);
  return actions;
}

std::vector<RunAction> RunState::OnCollected(size_t index, absl::Time now) {
  Actions actions;
  if (!nodes_[index].collecting) return actions;
  nodes_[index].collecting = false;
  nodes_[index].leaving = true;
  nodes_[index].leave_until = now + limits_.goodbye_limit;
  actions.push_back({RunAction::kBye, index});
  return actions;
}

std::vector<RunAction> RunState::OnGoodbye(size_t index, absl::Time now) {
  Actions actions;
  if (!nodes_[index].leaving) return OnLost(index, "its agent has left", now);  // nobody has told it to
  nodes_[index].gone = true;
  Advance(now, &actions);
  return actions;
}

size_t RunState::Opening() const {
  return static_cast<size_t>(
      std::count_if(nodes_.begin(), nodes_.end(), [](const Node& node) { return node.opening && !node.gone; }));
}

void RunState::OpenMore(absl::Time now, Actions* actions) {
  size_t opening = Opening();
  for (size_t i = 0; i < nodes_.size() && opening < limits_.most_opening; ++i) {
    Node& node = nodes_[i];
    if (node.connected || node.opening || node.gone) continue;
    const bool first = !node.was_connected && !stopping() && !closing_;
    if (!first && !(MayReturn(node) && now >= node.reopen_at)) continue;
    Open(i, now, actions);
    ++opening;
  }
}

void RunState::Open(size_t index, absl::Time now, Actions* actions) {
  Node& node = nodes_[index];
  node.opening = true;
  node.reopen_at = absl::InfiniteFuture();
  node.open_until = now + limits_.open_limit;
  actions->push_back({RunAction::kOpen, index});
}

// A node that had been reached, while its agent may still be waiting.
bool RunState::MayReturn(const Node& node) const {
  return node.was_connected && node.lost_at != absl::InfiniteFuture() &&
         (limits_.detach_grace > absl::ZeroDuration() || resumed_);
}

// Since when its grace is over; infinite where it is not waited for.
absl::Time RunState::GraceEnd(const Node& node) const {
  // Without a grace (of a run taken over) the first loss is the last.
  const bool waits = !node.gone && !node.connected && MayReturn(node) && limits_.detach_grace > absl::ZeroDuration();
  return waits ? node.lost_at + limits_.detach_grace : absl::InfiniteFuture();
}

std::optional<RunStep> RunState::AskedOf(const Node& node) {
  switch (node.step) {
    case Step::kInputs:
      return RunStep::kInputs;
    case Step::kOffer:
    case Step::kSnapshot:
      return RunStep::kSnapshot;
    case Step::kEnvironment:
      return RunStep::kEnvironment;
    case Step::kMpi:
      return RunStep::kMpi;
    case Step::kPorts:
      return RunStep::kPorts;
    case Step::kReach:
    case Step::kReady:
      break;
  }
  return std::nullopt;
}

void RunState::NextStep(size_t index, Actions* actions) {
  Node& node = nodes_[index];
  while (node.step != Step::kReady) {
    node.step = static_cast<Step>(static_cast<int>(node.step) + 1);
    const std::pair<Step, std::pair<bool, RunAction::Kind>> steps[] = {
        {Step::kInputs, {needs_.inputs, RunAction::kCheckInputs}},
        {Step::kOffer, {needs_.snapshot, RunAction::kOfferSnapshot}},
        {Step::kEnvironment, {needs_.environment, RunAction::kPrepare}},
        {Step::kMpi, {needs_.mpi, RunAction::kCheckMpi}},
        {Step::kPorts, {node.needs_ports, RunAction::kHoldPorts}}};
    for (const auto& [step, what] : steps) {
      if (step != node.step || !what.first) continue;
      actions->push_back({what.second, index});
      return;
    }
  }
}

// The run's stage follows the slowest node.
void RunState::AfterSteps(absl::Time now, Actions* actions) {
  if (stopping() || plan_asked_ || planned_ || closing_ || !repeat_why_.empty()) return;
  const auto all = [this](auto condition) { return std::all_of(nodes_.begin(), nodes_.end(), condition); };
  if (stage_ == RunPhase::kStarting &&
      all([](const Node& node) { return node.was_connected || node.sending_programs || node.programs_sent; })) {
    SetStage(RunPhase::kProvisioning, "all nodes answer", now);
  }
  if (stage_ == RunPhase::kProvisioning && all([](const Node& node) { return node.step >= Step::kEnvironment; })) {
    SetStage(RunPhase::kPreparing, "every node has what the run reads", now);
  }
  if (stage_ == RunPhase::kPreparing &&
      all([](const Node& node) { return node.step == Step::kReady && node.connected; })) {
    plan_asked_ = true;
    actions->push_back({RunAction::kMakePlan});
  }
}

void RunState::Lose(size_t index, const std::string& why, absl::Time now, Actions* actions) {
  Node& node = nodes_[index];
  if (node.gone) return;
  const bool was_connected = node.connected;
  node.connected = node.opening = node.sending_programs = node.collecting = false;
  node.open_until = absl::InfiniteFuture();
  node.why_lost = why;
  if (node.leaving) {
    node.gone = true;
    return;
  }
  if (node.was_connected && node.lost_at == absl::InfiniteFuture()) node.lost_at = now;
  if (!MayReturn(node)) {
    GiveUp(index, was_connected ? absl::StrCat("the connection ended: ", why) : why, now, actions);
    return;
  }
  if (now >= node.lost_at + limits_.detach_grace) {
    GiveUp(index, absl::StrCat("no answer for ", Seconds(now - node.lost_at), ": ", why), now, actions);
    return;
  }
  node.reopen_at = now + node.pause;
  node.pause = std::min(2 * node.pause, kMostPause);
  NoteChange(absl::StrCat("node ", node.name, ": ", why), now);
}

void RunState::GiveUp(size_t index, const std::string& why, absl::Time now, Actions* actions) {
  Node& node = nodes_[index];
  node.gone = true;
  node.connected = node.opening = node.sending_programs = false;
  ForgetTasksOf(index);
  Fail(absl::StrCat("node ", node.name, ": ", why), now, actions);
}

void RunState::NodeTime(size_t index, absl::Time now, Actions* actions) {
  Node& node = nodes_[index];
  if (node.gone) return;
  if (now >= node.leave_until) {
    actions->push_back({RunAction::kDrop, index});
    node.gone = true;
  } else if (now >= node.open_until) {
    actions->push_back({RunAction::kDrop, index});
    Lose(index, absl::StrCat("no answer within ", Seconds(limits_.open_limit)), now, actions);
  } else if (node.connected && now >= node.heard + limits_.lease) {
    actions->push_back({RunAction::kDrop, index});
    Lose(index, absl::StrCat("nothing was heard from it for ", Seconds(limits_.lease)), now, actions);
  } else if (node.connected && now >= node.next_ping) {
    node.next_ping = now + limits_.ping;
    actions->push_back({RunAction::kPing, index});
  } else if (now >= GraceEnd(node)) {
    actions->push_back({RunAction::kDrop, index});
    GiveUp(index, absl::StrCat("no answer for ", Seconds(limits_.detach_grace), ": ", node.why_lost), now, actions);
  }
}

// REQUIRES: connected, and no task is left anywhere.
void RunState::Leave(size_t index, absl::Time now, Actions* actions) {
  Node& node = nodes_[index];
  const bool had_tasks =
      std::any_of(tasks_.begin(), tasks_.end(), [index](const Task& task) { return task.node == index && task.asked; });
  if (had_tasks && !leave_outputs_) {
    node.collecting = true;
    actions->push_back({RunAction::kCollect, index});
    return;
  }
  node.collecting = false;
  node.leaving = true;
  node.leave_until = now + limits_.goodbye_limit;
  actions->push_back({RunAction::kBye, index});
}

void RunState::CloseNodes(absl::Time now, Actions* actions) {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    if (node.gone || node.leaving || (node.collecting && !leave_outputs_)) continue;
    if (node.connected) {
      Leave(i, now, actions);
    } else if (node.opening && !node.sending_programs && !leave_outputs_) {
      // An agent may be starting there, which would wait for its first contact: it is soon told that it may go.
      node.open_until = std::min(node.open_until, now + limits_.goodbye_limit);
    } else if (!MayReturn(node) || leave_outputs_) {
      actions->push_back({RunAction::kDrop, i});
      node.gone = true;
    }
  }
  OpenMore(now, actions);  // those that were dropped may have been in the way of others
}

}  // namespace basin
