// The loop of supervise_pods.h, for its .cc files alone.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "estimator/kubernetes/cluster_view.h"
#include "estimator/kubernetes/kubectl.h"
#include "estimator/kubernetes/pod_log.h"
#include "estimator/kubernetes/supervise_pods.h"
#include "estimator/run/control_socket.h"
#include "estimator/run/interrupts.h"
#include "estimator/run/node_link.h"

namespace basin {

class PodSupervision {
 public:
  PodSupervision(const SupervisedRun& run, const PodRun& pods, const RunFolder& folder, RunHistory& history,
                 const SuperviseOptions& options, std::string token);
  ~PodSupervision();
  PodSupervision(const PodSupervision&) = delete;
  PodSupervision& operator=(const PodSupervision&) = delete;

  RunOutcome Run(int signals, ControlSocket* control);

 private:
  using ToAgent = estimator::v1::ToAgent;
  using FromAgent = estimator::v1::FromAgent;
  // The pod of task i of the plan, which is node i of RunState.
  struct Pod {
    TaskId task;
    bool is_seen = false;
    bool is_missing = false;  // it was seen, and is not there any more
    PodView view;
    absl::Time ended_since = absl::InfiniteFuture();  // its container has ended, or it is missing
    std::string told_reason;
    absl::Time cannot_pull_since = absl::InfiniteFuture();
    // What it prints.
    std::unique_ptr<KubectlCall> log;
    PodLogReader reader;
    bool log_is_whole = false;  // the log was read to its end after the container had ended
    bool log_began_late = false;
    absl::Time log_again = absl::InfinitePast();
    absl::Time log_heard = absl::InfinitePast();
    int log_failures = 0;
    bool has_agent = false;  // its own process has met the agent in it: another may now
    // The cluster ends it, and what for is not known yet. What it said of its task since then waits for that.
    absl::Time ending_since = absl::InfiniteFuture();
    std::vector<PodEvent> held;
    // Its task, as far as is known.
    bool is_started = false;
    bool has_exited = false;
    bool is_gone = false;
    bool exited_well = false;
    // What RunState wants of it.
    bool must_term = false;
    absl::Time must_term_since = absl::InfiniteFuture();
    bool must_kill = false;
    bool must_collect = false;
    bool must_leave = false;
    // The conversation with the agent in it, and what it was told.
    std::unique_ptr<NodeLink> link;
    bool is_welcomed = false;
    bool told_term = false;
    bool told_kill = false;
    bool told_collect = false;
    bool told_bye = false;
    int link_failures = 0;
    absl::Time link_again = absl::InfinitePast();
    absl::Time next_ping = absl::InfiniteFuture();
    absl::Time silent_at = absl::InfiniteFuture();  // nothing heard until then: the conversation is given up
    uint64_t pings = 0;
    std::string link_problem;
    std::map<std::string, bool> unstored;  // files that could not be stored here; whether it is an output
    // Its end.
    bool has_outputs = false;  // they are stored here, or never will be: `not_kept` says why
    std::string not_kept;
    bool has_left = false;  // said goodbye, or cannot be spoken with any more
    std::unique_ptr<KubectlCall> deletion;
    bool deletes_hard = false;  // `deletion`
    bool deleted_kindly = false;
    bool deleted_hard = false;
    absl::Time delete_again = absl::InfinitePast();
  };

  // pod_supervision.cc: the loop, and what RunState wants done.
  absl::Status Create();
  void Wait(int signals, const ControlSocket& control);
  void ServiceSignals(int signals, ControlSocket* control);
  void Cancel(const std::string& why, Interrupts::Answer answer);
  void OnTimers(absl::Time now);
  void Do(std::vector<RunAction> actions);
  void TellChanges();
  void TellWaiting();
  void TellLastLines();
  void DeleteObjects(int signals);
  void RecallOutputs();
  void GiveUp(const std::string& why);
  std::string NotKept() const;

  // pod_supervision_cluster.cc: what the cluster and the pods' logs say.
  void ServicePoll(absl::Time now);
  void TakeView(const PodsView& view, absl::Time now);
  bool CauseMayCome(size_t index, absl::Time now) const;
  void TakePodView(size_t index, absl::Time now);
  void JudgeEnding(size_t index, absl::Time now);
  void JudgeEnd(size_t index, absl::Time now);
  void ServiceLog(size_t index, absl::Time now);
  void HandleLog(size_t index, const PodEvent& event);
  void NoteStarted(size_t index, int pid);
  void NoteExited(size_t index, const TaskExit& exit, const std::string& problem);
  void NoteGone(size_t index);
  void NoteKept(size_t index, const std::string& text);
  void Lose(size_t index, const std::string& why);

  // pod_supervision_talk.cc: speaking with the agent in a pod, and ending pods.
  bool Speaks() const { return outputs_mode_ == "exec"; }
  bool CanSpeak(const Pod& pod) const;
  void AdvancePod(size_t index, absl::Time now);
  void OpenLink(size_t index, absl::Time now);
  void ServiceLink(size_t index, absl::Time now);
  void SayHello(size_t index);
  void HandleMessage(size_t index, const FromAgent& message);
  void HandleWelcome(size_t index, const estimator::v1::Welcome& welcome);
  void TellAgent(size_t index);
  void LinkFailed(size_t index, const std::string& why);
  bool StoreChunk(size_t index, const estimator::v1::FileChunk& chunk);
  void HaveOutputs(size_t index, const std::string& not_kept);
  void DeletePod(size_t index, bool hard);
  void ServiceDeletion(size_t index, absl::Time now);

  const SupervisedRun& run_;
  const PodRun& cluster_;
  const KubernetesSettings& settings_;
  const RunFolder& folder_;
  RunHistory& history_;
  const SuperviseOptions& options_;
  const std::string token_;
  const std::string outputs_mode_;  // "exec", "none", "claim"
  RunState state_;
  Interrupts interrupts_;
  RunRecord record_;
  std::vector<Pod> pods_;
  size_t chief_ = 0;
  bool record_changed_ = false;
  bool is_created_ = false;
  bool may_finish_ = false;  // the objects are deleted: the last state may be told
  bool last_lines_told_ = false;
  uint64_t connections_ = 0;
  absl::Time max_duration_at_ = absl::InfiniteFuture();
  // Looking at the cluster.
  std::unique_ptr<KubectlCall> poll_;
  absl::Time next_poll_ = absl::InfinitePast();
  absl::Time begun_ = absl::InfinitePast();  // this supervisor
  absl::Time answered_ = absl::InfinitePast();
  bool has_answered_ = false;                     // to this supervisor, or to one before it
  absl::Time asked_ = absl::InfinitePast();       // when poll_ was started
  absl::Time last_asked_ = absl::InfinitePast();  // the same of the last one that was answered: what is known is newer
  std::string no_answer_;                         // what the last one said instead
  std::string waiting_;                           // why not all pods are there, in the cluster's words
  absl::Time missing_since_ = absl::InfiniteFuture();
  absl::Time nobody_makes_since_ = absl::InfiniteFuture();  // the pods that are missing
  std::unique_ptr<KubectlCall> events_;
  absl::Time next_events_ = absl::InfinitePast();
  bool told_silence_ = false;
  bool is_silent_ = false;  // the cluster has not answered for the lease
  std::string controller_failed_;
};

}  // namespace basin
