// A worker of the simulation: a ClientCore and the training loop of a real worker as a state machine. It leaves a mark
// of its own in every shard: each push subtracts 1 at its life's own element.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/sim_network.h"
#include "worker/client/client_core.h"

namespace basin::sim {

inline constexpr uint64_t kVariableElements = 3 * 4096;  // three shards of 16 KiB
inline constexpr uint64_t kShardElements = 4096;
// Rows of a table that each life pushes to, besides: its own keys, rows 2i and 2i + 1 in one bucket, which is applied
// whole or not at all.
inline constexpr uint64_t kRowsOfLife = 6;
inline constexpr uint32_t kRowDim = 2;
uint64_t RowKey(uint32_t life, uint64_t row);
// Whether the rows' values, kRowDim each, are as they are after whole pushes to each bucket.
bool RowsAreWhole(const std::vector<float>& rows);

// Where a life of a worker leaves its marks within each shard.
struct Life {
  uint32_t number = 0;  // over all workers: unique
  uint32_t worker = 0;
  // Pushes. Of a refused one some shards may have been applied: each shard is a unit of its own.
  uint64_t sent = 0, acknowledged = 0, refused = 0;
  // Likewise, of rows: each bucket is a unit of its own.
  uint64_t rows_sent = 0, rows_acknowledged = 0, rows_refused = 0;
  Incarnation incarnation;
  bool killed = false;  // no verdict on what was under way
  bool finished = false;
  absl::Time connected_at = absl::InfiniteFuture();
};

class SimWorker {
 public:
  struct Hooks {
    std::function<void(Life&)> connected;
    std::function<void(Life&)> acknowledged;  // after a push's answer
    std::function<void(Life&, const LeasedPiece&)> piece_taken, piece_done;
    std::function<void(Life&)> barrier_entered, barrier_left;
    std::function<void(const std::string&)> violation;
  };

  SimWorker(ClientCoreOptions options, wire::v1::Model model, uint32_t pushes_per_piece, Life& life, Hooks hooks);

  ClientCore& core() { return core_; }
  Life& life() { return life_; }
  void Start(absl::Time now);
  // Takes the next steps while the call it waits for is done.
  void Advance(absl::Time now);
  bool ended() const { return state_ == State::kEnded; }
  const absl::Status& status() const { return status_; }
  // Its InputDone may have been counted without its having heard of it.
  bool awaits_piece_done() const { return state_ == State::kFinishingPiece; }
  std::string Describe(absl::Time now) const;

 private:
  enum class State {
    kConnecting,
    kDeclaring,
    kAsking,
    kPulling,
    kPullingRows,
    kPushing,
    kPushingAgain,
    kPushingRows,
    kPushingRowsAgain,
    kFinishingPiece,
    kBarrier,
    kFinishing,
    kLeaving,
    kEnded
  };
  void Await(State state, CallId call) {
    state_ = state;
    call_ = call;
  }
  void End(const absl::Status& status);
  CallId Push(absl::Time now);
  CallId Pull(absl::Time now);
  CallId PushRows(absl::Time now);
  CallId PullRows(absl::Time now);
  void CheckRead();
  void CheckRowsRead();

  const DType gradient_dtype_;  // each life has one of the three
  ClientCore core_;
  const wire::v1::Model model_;
  const uint32_t pushes_per_piece_;
  Life& life_;
  Hooks hooks_;
  State state_ = State::kConnecting;
  CallId call_ = 0;
  CallId second_push_ = 0;                       // sent before the first is answered
  CallId rows_push_ = 0, second_rows_push_ = 0;  // likewise
  LeasedPiece piece_;
  uint32_t pushed_ = 0;
  std::vector<float> parameters_, gradient_;
  std::vector<uint16_t> narrow_gradient_;  // the same in 16 bits, where this life sends that
  std::vector<uint64_t> keys_;
  std::vector<float> rows_, row_gradients_;
  absl::Status status_;
};

}  // namespace basin::sim
