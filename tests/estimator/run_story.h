// A run on a clock of its own, for the tests of RunState: what it says as short words.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/run/run_state.h"

namespace basin {

inline const TaskExit kGood = {0, 0};
inline const TaskExit kCrash = {0, 9};

inline std::string Text(const std::vector<RunAction>& actions) {
  const std::pair<RunAction::Kind, const char*> names[] = {{RunAction::kOpen, "open"},
                                                           {RunAction::kSendPrograms, "programs"},
                                                           {RunAction::kCheckInputs, "inputs"},
                                                           {RunAction::kOfferSnapshot, "offer"},
                                                           {RunAction::kSendSnapshot, "send"},
                                                           {RunAction::kPrepare, "prepare"},
                                                           {RunAction::kHoldPorts, "ports"},
                                                           {RunAction::kPing, "ping"},
                                                           {RunAction::kCheckMpi, "mpi"},
                                                           {RunAction::kCollect, "collect"},
                                                           {RunAction::kBye, "bye"},
                                                           {RunAction::kDrop, "drop"},
                                                           {RunAction::kMakePlan, "plan"},
                                                           {RunAction::kFinish, "finish"},
                                                           {RunAction::kStart, "start"},
                                                           {RunAction::kTerm, "term"},
                                                           {RunAction::kKill, "kill"}};
  return absl::StrJoin(actions, " ", [&names](std::string* out, const RunAction& action) {
    for (const auto& [kind, name] : names) {
      if (kind == action.kind) absl::StrAppend(out, name);
    }
    if (action.kind != RunAction::kMakePlan && action.kind != RunAction::kFinish) absl::StrAppend(out, action.index);
  });
}

inline RunLimits Limits(absl::Duration detach_grace = absl::ZeroDuration()) {
  RunLimits limits;
  limits.detach_grace = detach_grace;
  limits.ping = absl::Hours(1000);  // tests of the tasks alone: no ping and no lease come between
  limits.lease = absl::Hours(3000);
  return limits;
}

// What answers an action, where it is a step of a node.
inline std::optional<RunStep> StepOf(RunAction::Kind kind) {
  switch (kind) {
    case RunAction::kCheckInputs:
      return RunStep::kInputs;
    case RunAction::kOfferSnapshot:
    case RunAction::kSendSnapshot:
      return RunStep::kSnapshot;
    case RunAction::kPrepare:
      return RunStep::kEnvironment;
    case RunAction::kCheckMpi:
      return RunStep::kMpi;
    case RunAction::kHoldPorts:
      return RunStep::kPorts;
    default:
      return std::nullopt;
  }
}

// A clock, a state, and the changes of its phase as one line.
class Story {
 public:
  Story(std::vector<RunTask> tasks, size_t nodes, const RunNeeds& needs, const RunLimits& limits)
      : count(tasks.size()), state(std::move(tasks), Nodes(nodes), needs, limits), node_count_(nodes) {}

  std::string Later(absl::Duration duration) {
    now += duration;
    return Told(state.OnTime(now));
  }
  std::string Connect(size_t node, const NodeReport& report = {}) { return Told(state.OnConnected(node, report, now)); }
  // What it was asked last.
  std::string Done(size_t node, bool have = true) { return Told(state.OnStepDone(node, asked_.at(node), now, have)); }
  // The task ends and nothing of it is left.
  std::string End(size_t task, TaskExit exit) {
    const std::string first = Told(state.OnExited(task, exit, now));
    const std::string second = Told(state.OnGone(task, now));
    return first.empty() || second.empty() ? first + second : first + " " + second;
  }
  // From nothing to Running, on nodes that need nothing but ports.
  void StartAll() {
    state.OnBegin(now);
    for (size_t i = 0; i < node_count_; ++i) Connect(i);
    for (size_t i = 0; i < node_count_; ++i) Done(i);
    state.OnPlanned(now);
    for (size_t i = 0; i < count; ++i) state.OnStarted(i, now);
    EXPECT_EQ(state.phase(), RunPhase::kRunning);
    state.TakeChanges();
  }
  // What follows the end of all tasks.
  void LeaveAll() {
    for (size_t i = 0; i < node_count_; ++i) EXPECT_EQ(Text(state.OnCollected(i, now)), absl::StrCat("bye", i));
    for (size_t i = 0; i + 1 < node_count_; ++i) EXPECT_EQ(Text(state.OnGoodbye(i, now)), "");
    EXPECT_EQ(Text(state.OnGoodbye(node_count_ - 1, now)), "finish");
  }
  std::string Changes() {
    return absl::StrJoin(state.TakeChanges(), " ", [](std::string* out, const PhaseChange& change) {
      absl::StrAppend(out, RunPhaseName(change.phase));
    });
  }

  size_t count;
  absl::Time now = absl::UnixEpoch() + absl::Hours(1);
  RunState state;

 private:
  std::string Told(const std::vector<RunAction>& actions) {
    for (const RunAction& action : actions) {
      if (const std::optional<RunStep> step = StepOf(action.kind)) asked_[action.index] = *step;
    }
    return Text(actions);
  }
  static std::vector<RunNode> Nodes(size_t count) {
    std::vector<RunNode> nodes;
    for (size_t i = 0; i < count; ++i) nodes.push_back({absl::StrCat("n", i), true});
    return nodes;
  }
  const size_t node_count_;
  std::map<size_t, RunStep> asked_;
};

// ps 0 (task 0), worker 0 (1), worker 1 (2), evaluator 0 (3), all on one node.
inline std::vector<RunTask> FourTasks() {
  return {{{Role::kPs, 0}, 0}, {{Role::kWorker, 0}, 0}, {{Role::kWorker, 1}, 0}, {{Role::kEvaluator, 0}, 0}};
}
// ps 0 and worker 0 on node 0, worker 1 on node 1.
inline std::vector<RunTask> OnTwoNodes() {
  return {{{Role::kPs, 0}, 0}, {{Role::kWorker, 0}, 0}, {{Role::kWorker, 1}, 1}};
}

}  // namespace basin
