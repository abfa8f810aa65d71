// Who owns which shard of the dense variables. A pure function of the number of parameter servers and the declared
// variables: the same on every machine and in every build, so that clients and servers compute it and compare digests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/dtype.h"
#include "common/base/ids.h"

namespace basin {

// More shards than this are refused: the list of them must fit in memory on every task (4 Mi x 1 MiB = 4 TiB of model).
inline constexpr size_t kMaxShards = size_t{4} << 20;

struct PlacedVariable {
  std::string name;
  DType dtype = DType::kF32;
  // Empty for a scalar; a dimension may be 0.
  std::vector<int64_t> shape;

  // REQUIRES: Placement::Extend accepted this variable (no negative dimension, no overflow).
  uint64_t elements() const;
  uint64_t bytes() const { return elements() * SizeOf(dtype); }
  bool operator==(const PlacedVariable&) const = default;
};

// A half-open range of a variable's flattened elements, and its owner. Both ends lie on multiples of 64 bytes but for
// the variable's own end. A variable without elements has one shard, which is empty.
struct ShardPlace {
  VariableId variable;
  uint64_t begin = 0;
  uint64_t end = 0;
  PsOrdinal ps;
  // 0, 1, ... among the shards of that ps; those of one Extend largest first, so that dealing them out to lanes in turn
  // balances bytes.
  uint32_t ordinal_on_ps = 0;

  uint64_t elements() const { return end - begin; }
  bool operator==(const ShardPlace&) const = default;
};

// An immutable value; copies share what they hold.
class Placement final {
 public:
  // No variables yet. REQUIRES: 1 <= ps_count <= kMaxTasks.
  static Placement Make(int ps_count);

  // With more variables behind those already there. Shards already placed keep their ids, ranges and owners, and the
  // result depends only on the sequence of calls.
  // Each variable is cut evenly into shards of at most 1 MiB and at most 5% of the mean load of a ps (all bytes, old
  // and new, over ps_count), but never into shards under 16 KiB. Then largest first onto the least loaded ps, the
  // lowest ordinal on a tie. InvalidArgument, AlreadyExists (a name twice) or ResourceExhausted (limits.h, kMaxShards),
  // naming the variable; then this placement is still what it was.
  absl::StatusOr<Placement> Extend(absl::Span<const PlacedVariable> variables) const;

  int ps_count() const;
  // The index is VariableId.
  const std::vector<PlacedVariable>& variables() const;
  // The index is ShardId. A variable's shards are consecutive, in the order of its elements.
  const std::vector<ShardPlace>& shards() const;
  // REQUIRES: the id is of this placement, in all below.
  const ShardPlace& shard(ShardId id) const { return shards()[id.value()]; }
  uint64_t bytes(ShardId id) const;
  // Half-open.
  std::pair<ShardId, ShardId> shards_of(VariableId variable) const;
  // REQUIRES: lanes >= 1, and is the number of lanes on the shard's ps.
  LaneIndex lane_of(ShardId id, uint32_t lanes) const { return LaneIndex(shard(id).ordinal_on_ps % lanes); }
  // Of parameters; optimizer slots come on top.
  uint64_t bytes_on(PsOrdinal ps) const;
  uint32_t shards_on(PsOrdinal ps) const;
  // Bytes on the fullest ps over the mean; 1 for an empty model.
  double imbalance() const;
  // XXH64 of the canonical form: equal digests mean the same variables in the same places.
  uint64_t digest() const;
  // One line a shard: "name [begin, end) ps 0 #3", for people and golden files.
  std::string Listing() const;

 private:
  struct State;
  explicit Placement(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace basin
