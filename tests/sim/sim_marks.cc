#include "tests/sim/sim_marks.h"

#include "absl/strings/str_cat.h"
#include "ps/lane_rows.h"
#include "ps/shard.h"

namespace basin::sim {

std::vector<float> MarksOf(const Lanes& lanes, uint32_t life) {
  std::vector<float> marks(kVariableElements / kShardElements);
  for (const auto& [address, lane] : lanes) {
    for (uint32_t id = 0; id < kVariableElements / kShardElements; ++id) {
      if (const Shard* shard = lane->core->shard(ShardId(id)); shard != nullptr) marks[id] = -shard->parameters()[life];
    }
  }
  for (uint64_t row = 0; row < kRowsOfLife; ++row) {
    for (const float value : RowOf(lanes, RowKey(life, row))) marks.push_back(-value);
  }
  return marks;
}

std::vector<float> RowOf(const Lanes& lanes, uint64_t key) {
  std::vector<float> values(kRowDim);
  for (const auto& [address, lane] : lanes) {
    if (lane->core->rows().Row(0, key, values.data())) break;
  }
  return values;
}

std::vector<std::string> WrongRows(const Lanes& lanes, const Life& life) {
  std::vector<std::string> wrong;
  const uint64_t most = life.killed ? life.rows_sent : life.rows_acknowledged + life.rows_refused;
  std::vector<float> all;
  for (uint64_t row = 0; row < kRowsOfLife; ++row) {
    const std::vector<float> values = RowOf(lanes, RowKey(life.number, row));
    all.insert(all.end(), values.begin(), values.end());
    for (const float value : values) {
      if (-value >= static_cast<float>(life.rows_acknowledged) && -value <= static_cast<float>(most)) continue;
      wrong.push_back(absl::StrCat("row ", row, " of life ", life.number, " of worker ", life.worker,
                                   life.killed ? " (killed)" : "", " has ", -value, " pushes applied; sent ",
                                   life.rows_sent, ", acknowledged ", life.rows_acknowledged));
    }
  }
  if (!RowsAreWhole(all))
    wrong.push_back(absl::StrCat("rows of life ", life.number, " in one bucket, pushed together, differ"));
  return wrong;
}

}  // namespace basin::sim
