// The coordinator: what must have one owner in a run. Lives on ps 0, lane 0. Owns incarnations, membership views, the
// RunSpec, clocks and the global step, the hand-out of input pieces, barriers, and the end of the run.
// Pure: no thread, no socket, no clock; LaneCore calls it with sessions that it has checked.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster_spec/cluster_spec.h"
#include "common/base/ids.h"
#include "common/wire/control.pb.h"
#include "common/wire/header.h"
#include "ps/input_queue.h"
#include "ps/presence.h"
#include "ps/run_spec.h"
#include "ps/session_table.h"

namespace basin {

// A control message to a peer, before its header.
struct Answer {
  wire::PeerId peer = 0;
  uint64_t request = 0;
  wire::Kind kind = wire::Kind::kError;
  std::string body;
};
Answer RefusalAnswer(wire::PeerId peer, uint64_t request, const absl::Status& status);

struct CoordinatorOptions {
  std::string run_id;
  // Those that TF_CONFIG names; empty where it names none.
  std::vector<TaskId> trainers;
  uint32_t ps_count = 1;
};

class Coordinator {
 public:
  // `presence` outlives this and is written by LaneCore.
  Coordinator(CoordinatorOptions options, const Presence& presence);

  // The incarnation for a Hello of a task, by docs/wire.md "Hello": a new one, the same again, or ALREADY_EXISTS (held
  // by a living process), ABORTED (replaced), INVALID_ARGUMENT (was never given out).
  absl::StatusOr<Incarnation> Claim(const wire::v1::Hello& hello, absl::Time now);

  // ---- Changes of presence, after they have happened there ----
  void OnArrived(const Client& client, absl::Time now);
  void OnRevived(const Client& client, absl::Time now);
  void OnDead(const Client& client, absl::Time now);
  void OnGone(const Client& client, absl::Time now);

  // Where no cluster was known: the first Hello's. Before the first Declare.
  void SetPsCount(uint32_t ps_count) { options_.ps_count = ps_count; }

  // Declare, Step, NextInput, InputDone, Barrier, Finish. Answers may go to others too, whose requests were
  // parked; TakeAnswers has them all. False: the body could not be read.
  bool OnRequest(const Session& session, wire::Kind kind, uint64_t request, absl::string_view body, absl::Time now);
  std::vector<Answer> TakeAnswers() { return std::exchange(answers_, {}); }
  // Lines for a person.
  std::vector<std::string> TakeNotes() { return std::exchange(notes_, {}); }

  wire::v1::RunState run_state() const;
  View view() const { return view_; }
  bool finished() const { return finished_; }
  const std::string& failure() const { return failure_; }
  uint64_t global_step() const;
  uint64_t min_clock() const;
  const RunModel* model() const { return model_ ? &*model_ : nullptr; }

  // For Stats (stats.cc).
  struct Progress {
    StepClock clock;  // over all lives of the task
    uint64_t lag = 0;
    double staleness_mean = 0;
    uint64_t staleness_max = 0;
    double steps_per_s = 0;
    bool done = false;  // it has said Finish
    std::map<std::string, double> metrics;
    std::string waiting_for;  // a parked request
  };
  Progress ProgressOf(const Client& client, absl::Time now) const;
  const std::map<std::string, InputQueue>& inputs() const { return inputs_; }
  double progress() const;  // 0 to 1; negative: not known

 private:
  struct Task;
  struct ParkedRequest {
    wire::PeerId peer = 0;
    uint64_t request = 0;
  };
  struct ParkedDeclare {
    ParkedRequest at;
    std::string who;
    wire::v1::Model model;
    bool observer = false;
  };

  void Send(wire::PeerId peer, uint64_t request, wire::Kind kind, std::string body);
  void Refuse(const Session& session, uint64_t request, const absl::Status& status);
  void SendRunState(wire::PeerId peer, uint64_t request);
  void Declare(const Session& session, uint64_t request, const wire::v1::Declare& declare);
  void AnswerDeclare(const ParkedDeclare& parked);
  void Step(const Session& session, uint64_t request, const wire::v1::Step& step, absl::Time now);
  void NextInput(const Session& session, uint64_t request, const wire::v1::NextInput& next);
  void InputDone(const Session& session, uint64_t request, const wire::v1::InputDone& done);
  void Barrier(const Session& session, uint64_t request, const wire::v1::Barrier& barrier);
  void Finish(const Session& session, uint64_t request, const wire::v1::Finish& finish);
  void MemberLeft(const Client& client);
  void ReleaseInputs();
  void ReleaseBarriers();
  // Those that a barrier waits for: living trainers, and those named that have never come.
  bool BarrierComplete(const std::string& name, uint64_t number) const;
  void CountView() { view_ = view_.next(); }
  Task& TaskOf(const ClientKey& key);
  const Task* FindTask(const ClientKey& key) const;
  std::string Who(const Session& session) const;

  CoordinatorOptions options_;
  const Presence& presence_;
  uint64_t last_incarnation_ = 0;
  View view_{1};
  std::optional<RunModel> model_;
  std::map<ClientKey, Task> tasks_;
  std::map<ClientKey, ParkedDeclare> parked_declares_;
  std::map<std::string, InputQueue> inputs_;
  std::map<std::string, uint64_t> barriers_released_;
  bool finished_ = false;
  std::string failure_;
  std::vector<Answer> answers_;
  std::vector<std::string> notes_;

 public:
  ~Coordinator();
};

}  // namespace basin
