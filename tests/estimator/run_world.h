// Nodes, agents and connections on a clock of their own, as far as RunState sees them: they answer what it asks, late
// or never as chance has it, and after a while always. For the tests that let chance decide.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "estimator/run/run_state.h"

namespace basin {

class RunWorld {
 public:
  explicit RunWorld(uint64_t seed)
      : chance_(seed), resumes_(OneIn(4)), state_{MakeTasks(), MakeNodes(), MakeNeeds(), MakeLimits()} {
    for (size_t i = 0; i < nodes_.size(); ++i) nodes_[i].bare = OneIn(8);
  }

  // Everything may go wrong for a while; then everything answers, and the run must end.
  void Live();
  RunPhase phase() const { return state_.phase(); }

 private:
  using Actions = std::vector<RunAction>;
  enum class Link { kNone, kOpening, kTransfer, kUp };
  struct AgentTask {
    int attempt = 0;
    bool told = false, killed = false, exited = false, gone = false;
    TaskExit exit;
  };
  struct Said {
    enum Kind { kWelcome, kStep, kStarted, kExited, kGone, kCollected, kGoodbye, kPong } kind = kPong;
    size_t task = 0;
    TaskExit exit;
    RunStep step = RunStep::kInputs;
    bool have = true;
    NodeReport report;
  };
  struct Node {
    bool bare = false;  // without Basin's programs
    bool agent = false;
    bool has_snapshot = false;
    bool building = false;       // its environment
    std::set<RunStep> answered;  // by the agent that is there now
    std::map<size_t, AgentTask> tasks;
    absl::Time last_contact;
    Link link = Link::kNone;
    std::deque<RunAction> to_agent;
    std::deque<Said> to_us;
    bool asked_ports = false;  // and not yet answered, as far as we have heard
  };

  uint64_t Below(uint64_t limit) { return chance_() % limit; }
  bool OneIn(uint64_t of) { return Below(of) == 0; }

  // Members in the order of their making, for the state is made of them.
  std::vector<RunTask> MakeTasks();
  std::vector<RunNode> MakeNodes();
  RunNeeds MakeNeeds() { return needs_ = {OneIn(2), OneIn(2), OneIn(2)}; }
  RunLimits MakeLimits();

  void Begin();

  void Note(const std::string& what);

  void Do(Actions actions, const std::string& what = "begin");
  void DoForNode(const RunAction& action);
  void Cut(Node* node, Link link);

  Actions Plan();

  void ExpectIdleAt(absl::Time at) const;
  // The clock goes on. A run never does by it what NextDeadline has not announced (who sleeps until then would miss
  // it), and never asks to be woken for a time that is over (who obeys would never sleep).
  void Time(absl::Duration by);
  void EndAgent(Node* node);
  void Lose(size_t i);

  // One thing of what may happen, good or bad.
  void Trouble();

  // Something that was waiting for anybody; false: nothing was.
  bool Answer();
  bool AnswerOf(size_t i);

  // Told over the connection that there is now, whichever it was asked for over.
  void EndBuilding(size_t i);

  void Open(size_t i);

  static Said StepSaid(RunStep step, bool have = true);
  void Say(size_t i, const Said& said);
  void SayOf(size_t i, Said::Kind kind, size_t task, TaskExit exit = {});

  void Hear(size_t i, const Said& said);

  void Obey(size_t i, const RunAction& action);

  static bool AnyRuns(const Node& node);
  bool EndSomeTask(size_t i);

  std::mt19937_64 chance_;
  const absl::Time start_ = absl::UnixEpoch() + absl::Hours(1);
  absl::Time now_ = start_;
  const uint64_t calmness_ = 1 + Below(10);  // how seldom something goes wrong
  const bool resumes_;
  const bool evaluator_stays_ = OneIn(2);  // until it is told to end
  std::vector<Node> nodes_;
  std::vector<RunTask> tasks_;
  std::vector<bool> needs_ports_;
  RunNeeds needs_;
  RunLimits limits_;
  RunState state_;
  bool calm_ = false;
  int attempt_ = 0;  // of a run that is taken over 0
  int finishes_ = 0;
  std::string story_;
};

}  // namespace basin
