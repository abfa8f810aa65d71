#include "bench/harness/stress_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "bench/harness/exact_sums.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"

namespace basin::bench {
namespace {

// A set of shared variables takes whole numbers for about so long before float32 would round.
constexpr double kSecondsOfASet = 300;
constexpr uint32_t kMostSets = 64;
// Kills come at random, on average this many in a run and not more often than this.
constexpr double kKillsOfARun = 8, kSecondsBetweenKills = 0.5;

}  // namespace

absl::StatusOr<StressPlan> StressPlan::Make(const StressOptions& options) {
  std::vector<PlacedVariable> variables;
  for (uint32_t worker = 0; worker < options.workers; ++worker)
    variables.push_back({absl::StrCat("own", worker), DType::kF32, {kOwnBytes / sizeof(float)}});
  const uint32_t sets = std::clamp<uint32_t>(static_cast<uint32_t>(options.seconds / kSecondsOfASet) + 2, 2, kMostSets);
  for (uint32_t set = 0; set < sets; ++set) {
    for (const uint64_t bytes : kSharedBytes) {
      variables.push_back(
          {absl::StrCat("shared", set, "/", bytes), DType::kF32, {static_cast<int64_t>(bytes / sizeof(float))}});
    }
  }
  BASIN_ASSIGN_OR_RETURN(Placement placement, Placement::Make(static_cast<int>(options.ps)).Extend(variables));
  StressPlan plan(options, std::move(placement));
  if (!options.kill || plan.processes() < 2) return plan;
  // Half of the processes at most, so that there is somebody whose sums must be exact.
  Random random(options.seed);
  std::vector<uint32_t> victims;
  for (uint32_t process = 1; process < plan.processes(); ++process) victims.push_back(process);
  for (size_t i = victims.size(); i > 1; --i) std::swap(victims[i - 1], victims[random.Below(i)]);
  victims.resize((victims.size() + 1) / 2);
  const double mean = std::max(kSecondsBetweenKills, options.seconds / kKillsOfARun);
  // Not in the last tenth, so that replacements still do some work.
  for (double at = 0; (at += -mean * std::log(1 - random.Unit())) < 0.9 * options.seconds;) {
    const uint32_t victim = victims[random.Below(victims.size())];
    plan.kills_.push_back({.at_s = at, .process = victim, .replaced = random.Chance(0.5)});
  }
  return plan;
}

std::pair<uint32_t, uint32_t> StressPlan::workers_of(uint32_t process) const {
  const uint32_t begin = process * options_.clients_per_process;
  return {begin, std::min(begin + options_.clients_per_process, options_.workers)};
}

std::vector<Bounds> BoundsOf(const StressPlan& plan, const std::vector<Tally>& tallies) {
  std::vector<Bounds> bounds(plan.variables());
  for (uint32_t worker = 0; worker < tallies.size(); ++worker) {
    for (uint32_t i = 0; i <= plan.shared(); ++i) {
      Bounds& of = bounds[i == 0 ? worker : plan.options().workers + i - 1];
      of.least += tallies[worker].acknowledged[i];
      of.most += tallies[worker].sent[i];
    }
  }
  return bounds;
}

absl::Status CheckWithin(const StressPlan& plan, uint32_t variable, const Bounds& bounds,
                         absl::Span<const float> values) {
  const Placement& placement = plan.placement();
  const std::string& name = placement.variables()[variable].name;
  const auto [first, end] = placement.shards_of(VariableId(variable));
  for (uint32_t shard = first.value(); shard < end.value(); ++shard) {
    const ShardPlace& place = placement.shard(ShardId(shard));
    if (place.end > values.size()) return absl::InternalError(absl::StrCat(name, " was pulled with too few elements"));
    const double pushes = -static_cast<double>(values[place.begin]) / GradientAt(variable, place.begin);
    if (!(pushes >= static_cast<double>(bounds.least) && pushes <= static_cast<double>(bounds.most)) ||
        pushes != std::floor(pushes)) {
      return absl::DataLossError(absl::StrCat("variable ", name, ", elements from ", place.begin, ": the value ",
                                              values[place.begin], " comes of ", pushes, " pushes, and ", bounds.least,
                                              " were acknowledged, ", bounds.most, " sent"));
    }
    for (uint64_t i = place.begin; i < place.end; ++i) {
      if (values[i] == -static_cast<float>(pushes) * GradientAt(variable, i)) continue;
      return absl::DataLossError(absl::StrCat("variable ", name, ", element ", i, " is ", values[i], ", while element ",
                                              place.begin, " of the same shard tells of ", pushes, " pushes"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAppliedWithin(const StressPlan& plan, const std::vector<Bounds>& bounds, uint64_t applied) {
  uint64_t least = 0, most = 0;
  for (uint32_t variable = 0; variable < plan.variables(); ++variable) {
    const auto [first, end] = plan.placement().shards_of(VariableId(variable));
    least += bounds[variable].least * (end.value() - first.value());
    most += bounds[variable].most * (end.value() - first.value());
  }
  if (applied >= least && applied <= most) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the parameter servers counted ", applied, " applied updates of shards; ",
                                          least, " were acknowledged and ", most, " sent"));
}

}  // namespace basin::bench
