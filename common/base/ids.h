// Strong types for the numbers that must never mix: an index of a worker, a shard, a sequence and a version are all
// integers, and none of them converts into another.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <ostream>

#include "absl/strings/str_cat.h"

namespace basin {

template <class Tag, class Rep>
class Id {
 public:
  using rep = Rep;
  constexpr Id() = default;
  constexpr explicit Id(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  constexpr Id next() const { return Id(static_cast<Rep>(value_ + 1)); }
  friend constexpr auto operator<=>(Id, Id) = default;
  friend std::ostream& operator<<(std::ostream& os, Id id) { return os << id.value_; }
  template <class H>
  friend H AbslHashValue(H h, Id id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  Rep value_ = 0;
};

// A variable of the model, in the order of declaration.
using VariableId = Id<struct VariableTag, uint32_t>;
// A shard of the model, counted over all variables in the order of placement.
using ShardId = Id<struct ShardTag, uint32_t>;
// A position in the list of parameter servers (not the task index: in a sparse cluster they differ).
using PsOrdinal = Id<struct PsTag, uint32_t>;
using LaneIndex = Id<struct LaneTag, uint32_t>;
// One life of a task; each new one is larger than all before.
using Incarnation = Id<struct IncarnationTag, uint64_t>;
// Pushes of one incarnation of one worker to one shard, dense from 1.
using Sequence = Id<struct SequenceTag, uint64_t>;
// Applies on a shard; 0 before its values are assigned, 1 after.
using Version = Id<struct VersionTag, uint64_t>;
// A worker's finished steps.
using StepClock = Id<struct StepClockTag, uint64_t>;
// The numbered membership that the coordinator has announced.
using View = Id<struct ViewTag, uint64_t>;

}  // namespace basin
