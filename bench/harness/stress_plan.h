// Everything about a stress run that is drawn from its seed, and its verdict. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster_spec/placement.h"

namespace basin::bench {

struct StressOptions {
  uint32_t workers = 64, ps = 1;
  uint32_t clients_per_process = 4;  // workers that die together
  double seconds = 30;
  uint64_t seed = 1;
  bool kill = true;
};

// A process of workers that is killed at a time after the start, and perhaps replaced.
struct Kill {
  double at_s = 0;
  uint32_t process = 0;
  bool replaced = false;
};

// The model: one variable of each worker's own (only it pushes there), then shared ones of mixed sizes.
inline constexpr uint64_t kOwnBytes = 64 << 10;
inline constexpr uint64_t kSharedBytes[] = {64, 4 << 10, 64 << 10, 1 << 20};

class StressPlan final {
 public:
  static absl::StatusOr<StressPlan> Make(const StressOptions& options);

  const StressOptions& options() const { return options_; }
  uint32_t processes() const {
    return (options_.workers + options_.clients_per_process - 1) / options_.clients_per_process;
  }
  // Half-open range of the workers in a process.
  std::pair<uint32_t, uint32_t> workers_of(uint32_t process) const;
  // In the order of time. Never process 0, which has the chief.
  const std::vector<Kill>& kills() const { return kills_; }
  const Placement& placement() const { return placement_; }
  uint32_t variables() const { return static_cast<uint32_t>(placement_.variables().size()); }
  uint32_t shared() const { return variables() - options_.workers; }

 private:
  StressPlan(StressOptions options, Placement placement) : options_(options), placement_(std::move(placement)) {}
  StressOptions options_;
  Placement placement_;
  std::vector<Kill> kills_;
};

// Pushes of one worker, over all of its lives: `sent` counts up before a push leaves, `acknowledged` when its answer
// has come. [0]: to its own variable; [1 + i]: to shared variable i.
struct Tally {
  std::vector<uint64_t> sent, acknowledged;
};

// Bounds of what may have been applied to a variable: acknowledged and sent, over all that pushed there.
struct Bounds {
  uint64_t least = 0, most = 0;
};
std::vector<Bounds> BoundsOf(const StressPlan& plan, const std::vector<Tally>& tallies);

// Whether the values of one variable can have come of pushes within the bounds: in each shard every element tells the
// same number of them. DATA_LOSS names the first that does not.
absl::Status CheckWithin(const StressPlan& plan, uint32_t variable, const Bounds& bounds,
                         absl::Span<const float> values);

// Whether the servers' count of applied updates of shards lies within the bounds.
absl::Status CheckAppliedWithin(const StressPlan& plan, const std::vector<Bounds>& bounds, uint64_t applied);

}  // namespace basin::bench
