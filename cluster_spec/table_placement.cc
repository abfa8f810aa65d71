#include "cluster_spec/table_placement.h"

#include "common/base/limits.h"
#include "common/base/status_macros.h"

namespace basin {

TablePlacement TablePlacement::Make(int ps_count) {
  BASIN_CHECK(ps_count >= 1 && static_cast<size_t>(ps_count) <= kMaxTasks);
  uint32_t bits = 8;
  while (bits < 16 && (uint64_t{1} << bits) < uint64_t{64} * static_cast<uint64_t>(ps_count)) ++bits;
  return TablePlacement(static_cast<uint32_t>(ps_count), bits);
}

std::pair<uint32_t, uint32_t> TablePlacement::BucketsOf(PsOrdinal ps) const {
  // The least bucket b with b * ps_count / buckets >= ps is ceil(ps * buckets / ps_count).
  const auto first = [&](uint64_t ordinal) {
    return static_cast<uint32_t>(((ordinal << bits_) + ps_count_ - 1) / ps_count_);
  };
  return {first(ps.value()), first(uint64_t{ps.value()} + 1)};
}

}  // namespace basin
