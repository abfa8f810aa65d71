// The pieces of one input, epoch after epoch, and who has a lease on which.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/wire/control.pb.h"

namespace basin {

class InputQueue {
 public:
  // REQUIRES: CheckModel (run_spec.h) accepted it.
  explicit InputQueue(const wire::v1::Input& input);

  // What stands under `number` for this life of a client: the same answer as before, or the next free piece, which is
  // leased to it from now on. An answer with `end` when every piece is done. nullopt: nothing is free now, but leased
  // pieces may come back; ask again after a change. OUT_OF_RANGE: the numbers are not dense, or it is too old;
  // RESOURCE_EXHAUSTED: this client holds kMaxLeases.
  absl::StatusOr<std::optional<wire::v1::InputPiece>> Next(Incarnation client, uint64_t number);
  // Answers `end` under `number`, for a run that hands out no more. Numbers as in Next: what was handed out under it
  // before is answered again.
  absl::StatusOr<wire::v1::InputPiece> End(Incarnation client, uint64_t number);
  // Counts the piece once. ABORTED: the client does not hold its lease (any more).
  absl::Status Done(Incarnation client, uint64_t piece);
  // The client died, left or was replaced: its leases go back, first in line.
  void Return(Incarnation client);
  // Forgets a client that can never ask again.
  void Forget(Incarnation client);

  const wire::v1::Input& input() const { return input_; }
  uint64_t total() const { return total_; }
  uint64_t done() const { return done_; }
  uint64_t leased() const { return leased_.size(); }
  // Of the piece that comes next, from 0; epochs() when all are handed out.
  uint32_t epoch() const;
  bool all_done() const { return done_ >= total_; }

  // More leases than a client can use: its bug.
  static constexpr size_t kMaxLeases = 4096;
  // Numbers and done pieces that a client may still repeat: more than it has requests in flight.
  static constexpr size_t kRemembered = 1024;

 private:
  struct Holder {
    uint64_t last = 0;                               // number
    std::map<uint64_t, wire::v1::InputPiece> given;  // by number, the last kRemembered
    size_t leases = 0;
    std::deque<uint64_t> done;  // pieces, the last kRemembered
  };
  absl::Status CheckNumber(const Holder& holder, uint64_t number) const;
  void Remember(Holder& holder, uint64_t number, const wire::v1::InputPiece& piece);
  wire::v1::InputPiece Describe(uint64_t piece) const;

  const wire::v1::Input input_;
  const uint64_t per_epoch_;
  const uint64_t total_;
  uint64_t next_ = 0;  // never handed out from here on
  std::set<uint64_t> returned_;
  std::map<uint64_t, Incarnation> leased_;
  uint64_t done_ = 0;
  std::map<Incarnation, Holder> holders_;
};

// A permutation of [0, n) that needs no memory, the same everywhere; the identity for seed 0. REQUIRES: i < n.
uint64_t Permute(uint64_t i, uint64_t n, uint64_t seed);

}  // namespace basin
