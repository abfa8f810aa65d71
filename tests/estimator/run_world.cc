#include "tests/estimator/run_world.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/estimator/run_story.h"

namespace basin {

void RunWorld::Live() {
  Begin();
  const int trouble = static_cast<int>(Below(400));
  for (int i = 0; i < trouble && !state_.finished() && !testing::Test::HasFailure(); ++i) Trouble();
  calm_ = true;
  const absl::Time limit = now_ + absl::Hours(6);
  for (int quiet = 0; !state_.finished() && !testing::Test::HasFailure();) {
    if (Answer()) {
      quiet = 0;
      continue;
    }
    const absl::Time next = state_.NextDeadline();
    ASSERT_LT(now_, limit) << "the run does not end\n" << story_;
    ASSERT_NE(next, absl::InfiniteFuture()) << "the run waits for nothing\n" << story_;
    ASSERT_LT(++quiet, 10'000) << "the run only looks at the clock\n" << story_;
    Time(next - now_);
  }
  if (testing::Test::HasFailure()) return;
  EXPECT_EQ(finishes_, 1) << story_;
  EXPECT_EQ(state_.NextDeadline(), absl::InfiniteFuture()) << story_;
  for (const Node& node : nodes_) EXPECT_FALSE(node.link == Link::kUp && AnyRuns(node)) << story_;
}

std::vector<RunTask> RunWorld::MakeTasks() {
  nodes_.resize(1 + Below(12));
  std::vector<RunTask> tasks;
  const auto add = [&](Role role, uint64_t count) {
    for (uint32_t i = 0; i < count; ++i) tasks.push_back({{role, i}, Below(nodes_.size()), !OneIn(4)});
  };
  add(Role::kPs, Below(3));
  add(Role::kChief, Below(2));
  add(Role::kWorker, 1 + Below(4));
  add(Role::kEvaluator, Below(2));
  tasks_ = tasks;
  return tasks;
}

std::vector<RunNode> RunWorld::MakeNodes() {
  std::vector<RunNode> nodes;
  for (size_t i = 0; i < nodes_.size(); ++i) nodes.push_back({absl::StrCat("n", i), !OneIn(4)});
  for (const RunTask& task : tasks_) nodes[task.node].needs_ports |= task.name.role == Role::kPs;
  for (const RunNode& node : nodes) needs_ports_.push_back(node.needs_ports);
  return nodes;
}

RunLimits RunWorld::MakeLimits() {
  limits_.most_opening = 1 + Below(3);
  if (OneIn(2)) limits_.detach_grace = OneIn(2) ? absl::Minutes(10) : absl::Seconds(5 + Below(40));
  if (OneIn(4)) limits_.max_duration = absl::Seconds(10 + Below(300));
  return limits_;
}

void RunWorld::Begin() {
  if (!resumes_) return Do(state_.OnBegin(now_));
  const bool begun = !OneIn(4);
  for (size_t i = 0; begun && i < tasks_.size(); ++i) {
    Node& node = nodes_[tasks_[i].node];
    node.agent = true;
    node.last_contact = now_;
    if (!OneIn(8)) node.tasks[i];
  }
  Do(state_.OnResume(begun ? now_ - absl::Seconds(20) : absl::InfiniteFuture(), now_));
}

void RunWorld::Note(const std::string& what) {
  absl::StrAppend(&story_, absl::ToInt64Milliseconds(now_ - start_), " ms: ", what, "\n");
}

void RunWorld::Do(Actions actions, const std::string& what) {
  Note(absl::StrCat(what, " -> ", Text(actions), " [", RunPhaseName(state_.phase()), "]"));
  for (size_t i = 0; i < actions.size(); ++i) {
    const RunAction action = actions[i];
    Actions more;
    switch (action.kind) {
      case RunAction::kMakePlan:
        more = Plan();
        break;
      case RunAction::kFinish:
        ++finishes_;
        break;
      case RunAction::kStart:
      case RunAction::kTerm:
      case RunAction::kKill:
        if (nodes_[tasks_[action.index].node].link == Link::kUp)
          nodes_[tasks_[action.index].node].to_agent.push_back(action);
        break;
      default:
        DoForNode(action);
    }
    actions.insert(actions.end(), more.begin(), more.end());
  }
}

void RunWorld::DoForNode(const RunAction& action) {
  Node& node = nodes_[action.index];
  if (action.kind == RunAction::kOpen || action.kind == RunAction::kSendPrograms || action.kind == RunAction::kDrop) {
    Cut(&node, action.kind == RunAction::kOpen           ? Link::kOpening
               : action.kind == RunAction::kSendPrograms ? Link::kTransfer
                                                         : Link::kNone);
    size_t opening = 0;
    for (const Node& one : nodes_) opening += one.link == Link::kOpening || one.link == Link::kTransfer ? 1 : 0;
    EXPECT_LE(opening, limits_.most_opening) << story_;
  } else if (node.link == Link::kUp) {
    if (action.kind == RunAction::kHoldPorts) {
      EXPECT_FALSE(node.asked_ports) << "asked for ports twice, while the answer is on its way\n" << story_;
      node.asked_ports = true;
    }
    node.to_agent.push_back(action);
  }
}

void RunWorld::Cut(Node* node, Link link) {
  node->link = link;
  node->to_agent.clear();
  node->to_us.clear();
  node->asked_ports = false;
}

std::vector<RunAction> RunWorld::Plan() {
  if (!calm_ && OneIn(10)) return state_.OnRefused("no plan", OneIn(2), now_);
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    EXPECT_EQ(node.link, Link::kUp) << story_;
    EXPECT_FALSE(node.asked_ports) << story_;
    if (!node.agent) continue;  // its end has not been heard yet
    EXPECT_TRUE(!needs_.inputs || node.answered.count(RunStep::kInputs)) << "node " << i << "\n" << story_;
    EXPECT_TRUE(!needs_.snapshot || node.has_snapshot) << "node " << i << "\n" << story_;
    EXPECT_TRUE(!needs_.environment || (node.answered.count(RunStep::kEnvironment) && !node.building))
        << "node " << i << "\n"
        << story_;
    EXPECT_TRUE(!needs_ports_[i] || node.answered.count(RunStep::kPorts)) << "node " << i << "\n" << story_;
  }
  ++attempt_;
  return state_.OnPlanned(now_);
}

void RunWorld::ExpectIdleAt(absl::Time at) const {
  RunState state = state_;
  const Actions actions = state.OnTime(at);
  EXPECT_TRUE(actions.empty() && state.phase() == state_.phase() && state.NextDeadline() == state_.NextDeadline())
      << "due at " << absl::ToInt64Milliseconds(state_.NextDeadline() - start_) << " ms, but " << Text(actions)
      << " at " << absl::ToInt64Milliseconds(at - start_) << " ms\n"
      << story_;
}

void RunWorld::Time(absl::Duration by) {
  now_ += by;
  ExpectIdleAt(std::min(now_, state_.NextDeadline() - absl::Nanoseconds(1)));
  for (Node& node : nodes_) {
    if (node.link == Link::kUp) node.last_contact = now_;
    if (node.agent && now_ - node.last_contact > limits_.lease + limits_.detach_grace) EndAgent(&node);
  }
  Do(state_.OnTime(now_), "time");
  EXPECT_GT(state_.NextDeadline(), now_) << "a deadline that has passed already\n" << story_;
}

void RunWorld::EndAgent(Node* node) {
  node->agent = false;
  node->tasks.clear();
  node->answered.clear();
  node->building = false;
}

void RunWorld::Lose(size_t i) {
  Cut(&nodes_[i], Link::kNone);
  Do(state_.OnLost(i, "cut", now_), absl::StrCat("lost", i));
}

void RunWorld::Trouble() {
  const size_t i = Below(nodes_.size());
  Node& node = nodes_[i];
  switch (Below(24)) {
    case 0:
      if (OneIn(calmness_) && (node.link == Link::kUp || node.link == Link::kTransfer)) Lose(i);
      return;
    case 1:
      if (OneIn(calmness_) && node.link == Link::kOpening) Lose(i);
      return;
    case 2:
      if (!OneIn(4 * calmness_) || !node.agent) return;
      Note(absl::StrCat("agent of ", i, " dies"));
      EndAgent(&node);
      if (node.link == Link::kUp) Lose(i);
      return;
    case 3:
      if (OneIn(40)) Do(state_.OnCancel(now_, "cancel"), "cancel");
      return;
    case 4:
      if (OneIn(60)) Do(state_.OnRefused("refused", false, now_), "refused");
      return;
    case 5:
      if (OneIn(4 * calmness_)) node.bare = !node.bare;
      return;
    case 6:
      return Time(absl::Milliseconds(Below(OneIn(10 * calmness_) ? 90'000 : 1000)));
    case 7: {
      const absl::Time next = state_.NextDeadline();
      if (next != absl::InfiniteFuture() && OneIn(2 * calmness_)) Time(std::max(next - now_, absl::ZeroDuration()));
      return;
    }
    case 8:
      if (node.building) EndBuilding(i);
      return;
    default:
      AnswerOf(i);
  }
}

bool RunWorld::Answer() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (AnswerOf(i)) return true;
  }
  return false;
}

bool RunWorld::AnswerOf(size_t i) {
  Node& node = nodes_[i];
  if (node.link == Link::kOpening) {
    Open(i);
  } else if (node.link == Link::kTransfer) {
    node.bare = false;
    Cut(&node, Link::kNone);
    Do(state_.OnProgramsSent(i, now_), absl::StrCat("sent", i));
  } else if (node.link == Link::kUp && !node.agent) {
    Lose(i);
  } else if (!node.to_us.empty()) {
    const Said said = node.to_us.front();
    node.to_us.pop_front();
    Hear(i, said);
  } else if (!node.to_agent.empty()) {
    const RunAction action = node.to_agent.front();
    node.to_agent.pop_front();
    Obey(i, action);
  } else if (node.building && (calm_ || OneIn(4))) {
    EndBuilding(i);
  } else {
    return EndSomeTask(i);
  }
  return true;
}

void RunWorld::EndBuilding(size_t i) {
  nodes_[i].building = false;
  nodes_[i].answered.insert(RunStep::kEnvironment);
  Say(i, StepSaid(RunStep::kEnvironment));
}

void RunWorld::Open(size_t i) {
  Node& node = nodes_[i];
  if (node.bare) {
    Cut(&node, Link::kNone);
    Do(state_.OnProgramsMissing(i, now_), absl::StrCat("missing", i));
    return;
  }
  Said welcome;
  welcome.kind = Said::kWelcome;
  welcome.report.rejoined = node.agent;
  node.agent = true;
  for (const auto& [number, task] : node.tasks) {
    // The supervisor knows the processes of the attempt before by their numbers.
    if (task.attempt != attempt_) continue;
    welcome.report.started.push_back(number);
    if (task.exited) welcome.report.exited.emplace_back(number, task.exit);
    if (task.gone) welcome.report.gone.push_back(number);
  }
  Cut(&node, Link::kUp);
  node.last_contact = now_;
  // Said at once; what happens next is told after it.
  Hear(i, welcome);
}

RunWorld::Said RunWorld::StepSaid(RunStep step, bool have) {
  Said said;
  said.kind = Said::kStep;
  said.step = step;
  said.have = have;
  return said;
}

void RunWorld::Say(size_t i, const Said& said) {
  if (nodes_[i].link == Link::kUp) nodes_[i].to_us.push_back(said);
}

void RunWorld::SayOf(size_t i, Said::Kind kind, size_t task, TaskExit exit) {
  Said said;
  said.kind = kind;
  said.task = task;
  said.exit = exit;
  Say(i, said);
}

void RunWorld::Hear(size_t i, const Said& said) {
  state_.OnHeard(i, now_);
  switch (said.kind) {
    case Said::kWelcome:
      return Do(state_.OnConnected(i, said.report, now_), absl::StrCat(said.report.rejoined ? "rejoined" : "new", i));
    case Said::kStep:
      if (said.step == RunStep::kPorts) nodes_[i].asked_ports = false;
      return Do(state_.OnStepDone(i, said.step, now_, said.have),
                absl::StrCat("step", static_cast<int>(said.step), " of ", i));
    case Said::kStarted:
      return Do(state_.OnStarted(said.task, now_), absl::StrCat("started task ", said.task));
    case Said::kExited:
      return Do(state_.OnExited(said.task, said.exit, now_), absl::StrCat("exited task ", said.task));
    case Said::kGone:
      return Do(state_.OnGone(said.task, now_), absl::StrCat("gone task ", said.task));
    case Said::kCollected:
      return Do(state_.OnCollected(i, now_), absl::StrCat("collected", i));
    case Said::kGoodbye:
      Cut(&nodes_[i], Link::kNone);
      return Do(state_.OnGoodbye(i, now_), absl::StrCat("goodbye", i));
    case Said::kPong:
      return;
  }
}

void RunWorld::Obey(size_t i, const RunAction& action) {
  Node& node = nodes_[i];
  const std::optional<RunStep> step = StepOf(action.kind);
  if (action.kind == RunAction::kPrepare && node.answered.count(RunStep::kEnvironment) == 0) {
    node.building = true;
  } else if (action.kind == RunAction::kOfferSnapshot) {
    Say(i, StepSaid(*step, node.has_snapshot));
  } else if (step) {
    if (action.kind == RunAction::kSendSnapshot) node.has_snapshot = true;
    node.answered.insert(*step);
    Say(i, StepSaid(*step));
  } else if (action.kind == RunAction::kPing) {
    Say(i, Said());
  } else if (action.kind == RunAction::kCollect) {
    SayOf(i, Said::kCollected, 0);
  } else if (action.kind == RunAction::kBye) {
    SayOf(i, Said::kGoodbye, 0);
    node.tasks.clear();
  } else if (action.kind == RunAction::kStart) {
    AgentTask& task = node.tasks[action.index];
    EXPECT_TRUE(task.attempt != attempt_ || task.gone) << "a task is started twice\n" << story_;
    task = AgentTask();
    task.attempt = attempt_;
    SayOf(i, Said::kStarted, action.index);
  } else if (const auto task = node.tasks.find(action.index); task != node.tasks.end()) {
    task->second.told = true;
    task->second.killed |= action.kind == RunAction::kKill;
  }
}

bool RunWorld::AnyRuns(const Node& node) {
  return std::any_of(node.tasks.begin(), node.tasks.end(), [](const auto& task) { return !task.second.gone; });
}

bool RunWorld::EndSomeTask(size_t i) {
  Node& node = nodes_[i];
  for (auto& [number, task] : node.tasks) {
    if (task.gone) continue;
    if (task.exited) {
      task.gone = true;
      SayOf(i, Said::kGone, number);
      return true;
    }
    // A ps ends when it is told to, others some time by themselves.
    const Role role = tasks_[number].name.role;
    const bool stays = role == Role::kPs || (role == Role::kEvaluator && evaluator_stays_);
    const bool by_itself = !stays && (calm_ || OneIn(6));
    if (!task.killed && !(task.told && (calm_ || OneIn(2))) && !by_itself) continue;
    task.exited = true;
    task.exit = task.killed ? TaskExit{0, 9} : task.told ? TaskExit{0, 15} : TaskExit{0, 0};
    if (!calm_ && !task.killed && OneIn(2 * calmness_)) {
      task.exit = {static_cast<int>(1 + Below(3)), 0};
      task.exit.port_taken = OneIn(2);
    }
    SayOf(i, Said::kExited, number, task.exit);
    return true;
  }
  return false;
}

}  // namespace basin
