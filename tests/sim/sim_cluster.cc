#include "tests/sim/sim_cluster.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/wire/header.h"
#include "ps/coordinator.h"
#include "ps/shard.h"
#include "tests/sim/sim_marks.h"
#include "tests/sim/sim_messages.h"
#include "tests/sim/sim_parts.h"
#include "tests/sim/sim_setup.h"
#include "tests/sim/sim_worker.h"

namespace basin::sim {
namespace {

using wire::PeerId;

constexpr absl::Duration kAnswersTakeAtMost = absl::Seconds(4);  // with a cut or two between
constexpr absl::Duration kGiveUp = absl::Minutes(10);            // virtual: a run that is not over by then hangs

class Simulation {
 public:
  explicit Simulation(const SimOptions& options) : options_(options), random_(options.seed) {}

  SimOutcome Run() {
    BuildLanes();
    for (uint32_t worker = 0; worker < options_.workers; ++worker) {
      clock_.After(random_.Unit() * absl::Seconds(1), [this, worker] { StartLife(worker); });
    }
    ScheduleFaults();
    const absl::Time end = clock_.now() + kGiveUp;
    while (!Over() && outcome_.violations.size() < 10) {
      if (!clock_.RunOne() || clock_.now() > end) {
        Violation(absl::StrCat("the run hangs: ", Hanging()));
        break;
      }
      ++outcome_.events;
    }
    if (outcome_.violations.empty()) CheckTheEnd();
    return std::move(outcome_);
  }

 private:
  using PeerId = wire::PeerId;

  void BuildLanes() {
    for (uint32_t ps = 0; ps < options_.ps_count; ++ps) {
      std::vector<std::string> addresses;
      for (uint32_t lane = 0; lane < options_.lanes; ++lane) addresses.push_back(lane == 0 ? "" : Address(ps, lane));
      const uint64_t ps_incarnation = 1000 + ps;
      for (uint32_t lane = 0; lane < options_.lanes; ++lane) {
        LaneCoreOptions core = LaneOptionsOf(options_, ps, lane, ps_incarnation, addresses);
        auto made = std::make_unique<Lane>();
        made->ps = ps;
        made->lane = lane;
        made->core = std::make_unique<LaneCore>(std::move(core));
        lanes_[Address(ps, lane)] = std::move(made);
      }
    }
  }

  void ScheduleFaults() {
    for (int i = 0; i < options_.cuts; ++i) {
      clock_.After(random_.Unit() * options_.faults_within, [this] { CutOne(); });
    }
    for (int i = 0; i < options_.kills; ++i) {
      clock_.After(random_.Unit() * options_.faults_within, [this] { KillOne(); });
    }
    for (int i = 0; i < options_.zombies; ++i) {
      clock_.After(random_.Unit() * options_.faults_within, [this] { PauseOne(/*replaced=*/true); });
    }
    for (int i = 0; i < options_.sleepers; ++i) {
      clock_.After(random_.Unit() * options_.faults_within, [this] { PauseOne(/*replaced=*/false); });
    }
  }

  // ---- Lives ----

  void StartLife(uint32_t worker) {
    auto life = std::make_unique<Life>();
    life->number = static_cast<uint32_t>(lives_.size());
    life->worker = worker;
    lives_.push_back(std::move(life));
    auto process = std::make_unique<Process>();
    process->id = processes_.size();
    ClientCoreOptions core;
    core.role = wire::v1::ROLE_WORKER;
    core.index = worker;
    core.is_chief = worker == 0;
    for (uint32_t ps = 0; ps < options_.ps_count; ++ps) core.ps_addresses.push_back(Address(ps, 0));
    core.host = "sim";
    core.pid = 100 + process->id;
    core.client_id = absl::StrCat("client-", process->id);
    core.claim_timeout = absl::Minutes(2);
    process->worker = std::make_unique<SimWorker>(std::move(core), ModelOf(options_), options_.pushes_per_piece,
                                                  *lives_.back(), HooksOf(process.get()));
    processes_.push_back(std::move(process));
    Process* started = processes_.back().get();
    current_[worker] = started;
    started->worker->Start(clock_.now());
    AfterEvent(started);
  }

  SimWorker::Hooks HooksOf(Process* process) {
    SimWorker::Hooks hooks;
    hooks.violation = [this](const std::string& text) { Violation(text); };
    hooks.connected = [this](Life& life) {
      // Every lane has the fence now: what earlier lives of this worker have applied is final.
      for (const auto& earlier : lives_) {
        if (earlier->worker == life.worker && earlier->number < life.number)
          final_marks_.try_emplace(earlier->number, MarksOf(lanes_, earlier->number));
      }
    };
    hooks.acknowledged = [this](Life&) { ++outcome_.pushes_acknowledged; };
    hooks.piece_taken = [this, process](Life& life, const LeasedPiece& piece) {
      // (A life that was paused may read an old answer, of before its lease was lost.)
      if (suspects_.contains(process)) return;
      if (done_by_.contains(piece.piece))
        Violation(absl::StrCat("piece ", piece.piece, " is handed out after it was counted"));
      const auto holder = holder_.find(piece.piece);
      // Another life may hold it only if it is gone or was silent for long.
      if (holder != holder_.end() && holder->second != process && !holder->second->dead &&
          holder->second->paused_until <= clock_.now() && !holder->second->woken_late &&
          !suspects_.contains(holder->second)) {
        Violation(
            absl::StrCat("piece ", piece.piece, " is leased to life ", life.number, " while a living one has it"));
      }
      holder_[piece.piece] = process;
    };
    hooks.piece_done = [this](Life& life, const LeasedPiece& piece) {
      if (!done_by_.emplace(piece.piece, life.number).second)
        Violation(absl::StrCat("piece ", piece.piece, " is counted twice"));
    };
    hooks.barrier_entered = [this](Life& life) {
      in_barrier_.insert(life.number);
      // Input has ended for this one, so every piece must have been counted; of some the answer is still under way.
      uint64_t awaited = lost_answers_;
      for (const auto& other : processes_) awaited += !other->dead && other->worker->awaits_piece_done();
      if (done_by_.size() + awaited < options_.pieces) {
        Violation(absl::StrCat("input ended for life ", life.number, " with ", done_by_.size(), " of ", options_.pieces,
                               " pieces counted"));
      }
    };
    hooks.barrier_left = [this](Life& life) {
      for (const auto& [worker, process] : current_) {
        if (process->dead || process->worker->ended() || suspects_.contains(process)) continue;
        // Not a member when the barrier was released: its answer may have been under way for a while since.
        if (process->worker->life().connected_at > clock_.now() - kAnswersTakeAtMost) continue;
        if (!in_barrier_.contains(process->worker->life().number)) {
          Violation(absl::StrCat("life ", life.number, " left the barrier before worker ", worker, " entered it"));
        }
      }
    };
    return hooks;
  }

  void KillOne() {
    const uint32_t worker = static_cast<uint32_t>(random_.Below(options_.workers));
    const auto at = current_.find(worker);
    if (at == current_.end() || at->second->dead || at->second->worker->ended() || Paused(at->second)) return;
    Process* process = at->second;
    process->dead = true;
    process->worker->life().killed = true;
    if (process->worker->awaits_piece_done()) ++lost_answers_;
    for (auto& [channel, end] : process->channels) CutPeer(*end.first, end.second);
    clock_.After(random_.Unit() * absl::Seconds(3), [this, worker] { StartLife(worker); });
  }

  void PauseOne(bool replaced) {
    const uint32_t worker = static_cast<uint32_t>(random_.Below(options_.workers));
    const auto at = current_.find(worker);
    if (at == current_.end() || at->second->dead || at->second->worker->ended() || Paused(at->second)) return;
    Process* process = at->second;
    // Longer than dead_after: it is counted dead, and perhaps replaced; then it wakes and goes on as if nothing had
    // been.
    process->paused_until = clock_.now() + kDeadAfter * 2 + random_.Unit() * absl::Seconds(3);
    suspects_.insert(process);
    if (replaced) process->worker->life().killed = true;
    if (replaced && process->worker->awaits_piece_done()) ++lost_answers_;
    if (replaced) clock_.After(kDeadAfter + random_.Unit() * absl::Seconds(1), [this, worker] { StartLife(worker); });
    clock_.At(process->paused_until, [this, process] {
      process->woken_late = true;
      std::vector<std::function<void()>> held = std::move(process->held);
      for (auto& event : held) event();
      AfterEvent(process);
    });
  }

  bool Paused(const Process* process) const { return process->paused_until > clock_.now(); }

  void Deliver(Process* process, std::function<void()> event) {
    if (process->dead) return;
    if (Paused(process)) {
      process->held.push_back(std::move(event));
      return;
    }
    event();
    AfterEvent(process);
  }

  void AfterEvent(Process* process) {
    if (process->dead || Paused(process)) return;
    ClientCore& core = process->worker->core();
    process->worker->Advance(clock_.now());
    for (auto actions = core.TakeActions(); !actions.empty(); actions = core.TakeActions()) {
      for (ClientAction& action : actions) CarryOut(process, std::move(action));
      process->worker->Advance(clock_.now());
    }
    outcome_.reconnects += core.TakeNotes().size();
    if (process->worker->ended()) OnEnded(process);
    const absl::Time wake = core.next_wake();
    if (wake < process->wake || process->wake <= clock_.now()) {
      process->wake = wake;
      if (wake != absl::InfiniteFuture()) {
        clock_.At(wake, [this, process, wake] {
          if (process->wake != wake) return;
          process->wake = absl::InfiniteFuture();
          Deliver(process, [this, process] { process->worker->core().OnTime(clock_.now()); });
        });
      }
    }
  }

  void OnEnded(Process* process) {
    if (process->dead) return;
    process->dead = true;
    const absl::Status& status = process->worker->status();
    if (status.ok()) return;
    const bool replaced = current_[process->worker->life().worker] != process;
    if (status.code() == absl::StatusCode::kAborted && suspects_.contains(process)) {
      ++outcome_.fenced;
    } else if (!replaced || !suspects_.contains(process)) {
      Violation(absl::StrCat("life ", process->worker->life().number, " of worker ", process->worker->life().worker,
                             " failed: ", status.ToString()));
    }
    process->worker->life().killed = true;
  }

  void CarryOut(Process* process, ClientAction action) {
    switch (action.kind) {
      case ClientAction::Kind::kDial: {
        Close(process, action.channel);
        Lane* lane = lanes_.at(action.address).get();
        const PeerId peer = next_peer_++;
        lane->links[peer] = std::make_shared<SimLink>(clock_, random_, LinkFaults{});
        lane->process_of_peer[peer] = process->id;
        lane->channel_of_peer[peer] = action.channel;
        process->channels[action.channel] = {lane, peer};
        break;
      }
      case ClientAction::Kind::kClose:
        Close(process, action.channel);
        break;
      case ClientAction::Kind::kSend: {
        const auto at = process->channels.find(action.channel);
        if (at == process->channels.end()) break;
        auto [lane, peer] = at->second;
        if (random_.Chance(options_.poisoned_chance)) action.message = Poisoned(std::move(action.message));
        lane->links[peer]->Send(true, std::move(action.message),
                                [this, lane = lane, peer = peer](wire::Message message) {
                                  Trace(message);
                                  Answer(*lane, lane->core->OnMessage(peer, std::move(message), clock_.now()));
                                });
      }
    }
  }

  void Close(Process* process, uint32_t channel) {
    const auto at = process->channels.find(channel);
    if (at == process->channels.end()) return;
    at->second.first->links[at->second.second]->Cut();
    process->channels.erase(at);
  }

  // ---- Lanes ----

  void Answer(Lane& lane, std::vector<Reply> replies) {
    if (lane.core->coordinator() != nullptr) {
      const uint64_t step = lane.core->coordinator()->global_step();
      if (step < global_step_) Violation(absl::StrCat("the global step goes back from ", global_step_, " to ", step));
      global_step_ = step;
    }
    for (Reply& reply : replies) {
      const auto at = lane.links.find(reply.peer);
      if (at == lane.links.end()) continue;
      Process* process = processes_[lane.process_of_peer[reply.peer]].get();
      const uint32_t channel = lane.channel_of_peer[reply.peer];
      at->second->Send(false, std::move(reply.message),
                       [this, process, channel, peer = reply.peer](wire::Message message) {
                         auto shared = std::make_shared<wire::Message>(std::move(message));
                         Deliver(process, [this, process, channel, peer, shared] {
                           const auto now_at = process->channels.find(channel);
                           if (now_at == process->channels.end() || now_at->second.second != peer)
                             return;  // of a connection before
                           Trace(*shared);
                           for (std::string& text : TornReads(*shared, lives_.size())) Violation(std::move(text));
                           process->worker->core().OnMessage(channel, *shared, clock_.now());
                         });
                       });
    }
    const absl::Time wake = lane.core->next_wake();
    if (wake < lane.wake || lane.wake <= clock_.now()) {
      lane.wake = wake;
      if (wake != absl::InfiniteFuture()) {
        clock_.At(wake, [this, &lane, wake] {
          if (lane.wake != wake) return;
          lane.wake = absl::InfiniteFuture();
          Answer(lane, lane.core->OnTime(clock_.now()));
        });
      }
    }
  }

  void CutPeer(Lane& lane, PeerId peer) {
    const auto at = lane.links.find(peer);
    if (at == lane.links.end() || at->second->cut()) return;
    at->second->Cut();
    Process* process = processes_[lane.process_of_peer[peer]].get();
    const uint32_t channel = lane.channel_of_peer[peer];
    clock_.After(random_.Unit() * absl::Milliseconds(50), [this, process, channel, peer] {
      Deliver(process, [this, process, channel, peer] {
        const auto now_at = process->channels.find(channel);
        if (now_at == process->channels.end() || now_at->second.second != peer) return;
        process->channels.erase(now_at);
        process->worker->core().OnCut(channel, absl::UnavailableError("cut"), clock_.now());
      });
    });
  }

  void CutOne() {
    std::vector<std::pair<Lane*, PeerId>> open;
    for (auto& [address, lane] : lanes_) {
      for (auto& [peer, link] : lane->links) {
        if (!link->cut()) open.emplace_back(lane.get(), peer);
      }
    }
    if (open.empty()) return;
    const auto [lane, peer] = open[random_.Below(open.size())];
    CutPeer(*lane, peer);
  }

  // ---- Verdict ----

  void Violation(std::string text) {
    outcome_.violations.push_back(
        absl::StrCat("[", absl::FormatDuration(clock_.now() - absl::FromUnixSeconds(1'000'000)), "] ", text));
  }

  void Trace(const wire::Message& message) {
    outcome_.trace = Mix64(outcome_.trace ^ TraceHash(message, clock_.now()));
  }

  bool Over() const {
    if (current_.size() < options_.workers) return false;
    for (const auto& [worker, process] : current_) {
      if (!process->worker->life().finished) return false;
    }
    for (const auto& process : processes_) {
      if (!process->dead) return false;  // a zombie that is still to wake
    }
    return true;
  }

  std::string Hanging() const {
    std::string text;
    for (const auto& [worker, process] : current_) {
      absl::StrAppend(&text, "worker ", worker, process->dead ? " (dead) " : " ",
                      process->worker->Describe(clock_.now()), "; ");
    }
    return text;
  }

  void CheckTheEnd();

  const SimOptions options_;
  SimClock clock_;
  Random random_;
  std::map<std::string, std::unique_ptr<Lane>> lanes_;
  std::vector<std::unique_ptr<Process>> processes_;
  std::vector<std::unique_ptr<Life>> lives_;
  std::map<uint32_t, Process*> current_;
  std::set<Process*> suspects_;  // paused long enough to be counted dead
  std::map<uint64_t, Process*> holder_;
  std::map<uint64_t, uint32_t> done_by_;
  std::set<uint32_t> in_barrier_;
  std::map<uint32_t, std::vector<float>> final_marks_;  // of replaced lives, when their replacement connected
  uint64_t lost_answers_ = 0;
  uint64_t global_step_ = 0;
  PeerId next_peer_ = 1;
  SimOutcome outcome_;
};

void Simulation::CheckTheEnd() {
  // Every shard has each life's marks, exactly as many as were acknowledged; of a refused push, or one under way when
  // its life was killed, perhaps one more.
  std::set<uint64_t> incarnations;
  for (const auto& life : lives_) {
    outcome_.refused += life->refused;
    if (life->incarnation.value() == 0) continue;
    if (!incarnations.insert(life->incarnation.value()).second) {
      Violation(absl::StrCat("incarnation ", life->incarnation.value(), " was given out twice"));
    }
  }
  // (Of a life that was killed while it waited for the answer, the piece may have been counted.)
  if (done_by_.size() + lost_answers_ < options_.pieces) {
    Violation(absl::StrCat("the input has ended with ", done_by_.size(), " of ", options_.pieces, " pieces counted"));
  }
  for (const auto& [life, marks] : final_marks_) {
    if (MarksOf(lanes_, life) != marks)
      Violation(absl::StrCat("pushes of life ", life, " were applied after its replacement had connected"));
  }
  uint32_t shards = 0;
  for (const auto& [address, lane] : lanes_) {
    for (uint32_t id = 0; id < kVariableElements / kShardElements; ++id) {
      const Shard* shard = lane->core->shard(ShardId(id));
      if (shard == nullptr) continue;
      ++shards;
      for (const auto& life : lives_) {
        const float applied = -shard->parameters()[life->number];
        const uint64_t most = life->killed ? life->sent : life->acknowledged + life->refused;
        if (applied >= static_cast<float>(life->acknowledged) && applied <= static_cast<float>(most)) continue;
        Violation(absl::StrCat("shard ", id, ": life ", life->number, " of worker ", life->worker,
                               life->killed ? " (killed)" : "", " has ", applied, " pushes applied; sent ", life->sent,
                               ", acknowledged ", life->acknowledged));
      }
    }
  }
  for (const auto& life : lives_) {
    for (const std::string& wrong : WrongRows(lanes_, *life)) Violation(wrong);
  }
  if (shards != kVariableElements / kShardElements) Violation(absl::StrCat(shards, " shards exist, 3 were placed"));
}

}  // namespace

SimOutcome RunSimulation(const SimOptions& options) { return Simulation(options).Run(); }

}  // namespace basin::sim
