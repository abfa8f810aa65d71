#include "ps/table/host_table_state.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/random.h"

namespace basin {
namespace {

// What a candidate costs: an entry of the index, at the index's usual load.
constexpr uint64_t kCandidateBytes = 20;
// Candidates may have this part of the memory before they make room for one another.
constexpr uint64_t kCandidateShare = 8;
// The part of a segment's rows, or candidates, that leave it at once, as they share one look at the whole segment.
constexpr size_t kEvictedRows = 32;
constexpr size_t kEvictedCandidates = 4;

}  // namespace

HostTable::State::State(StoredTableOptions given, std::shared_ptr<BlockPool> pool)
    : options(std::move(given)),
      rule(options.rule, options.storage, options.dim),
      memory(options.max_bytes, std::move(pool)),
      index(&memory),
      rows(rule.row_bytes(), &memory),
      log(kRemembered),
      values(options.dim) {
  // A table has memory for a few rows from the start, whatever others take of the pool later.
  index.Grow(0);
  if (const std::optional<uint32_t> row = rows.Take()) rows.Free(*row);
  Account();
}

bool HostTable::State::Admits(uint64_t key, uint32_t count, bool remembered) const {
  if (count < options.admit_after) return false;
  if (options.admit_probability >= 1) return true;
  // Each push of a key draws anew: by its own count, or where none is kept, by how many gradients were dropped so far.
  return UnitAt(key ^ 0x61646d6974ull, remembered ? count : dropped) < options.admit_probability;
}

char* HostTable::State::RowForPush(uint64_t hash, uint64_t key, uint32_t stamp) {
  const IndexValue value = index.FindAndStamp(hash, key, stamp);
  if (value.is_row()) return rows.At(value.row());  // the key stood earlier in this push
  const uint32_t admit_after = options.admit_after;
  const uint32_t count = value.is_candidate() ? std::min(value.count(), IndexValue::kLargestCount - 1) + 1 : 1;
  if (!Admits(key, count, admit_after > 1)) {
    ++dropped;
    if (value.is_candidate()) {
      index.Replace(hash, key, IndexValue::Candidate(count), stamp);
    } else if (admit_after > 1 && MakeRoom(hash)) {
      index.Insert(hash, key, IndexValue::Candidate(count), stamp);
    }
    return nullptr;
  }
  const std::optional<uint32_t> row = TakeRow(hash);
  if (!row) {
    ++dropped;
    return nullptr;
  }
  if (value.is_candidate()) {  // rows alone were evicted since it was found
    index.Replace(hash, key, IndexValue::Row(*row), stamp);
  } else if (MakeRoom(hash)) {
    index.Insert(hash, key, IndexValue::Row(*row), stamp);
  } else {
    rows.Free(*row);
    ++dropped;
    return nullptr;
  }
  FillRow(options.init, key, absl::MakeSpan(values));
  char* at = rows.At(*row);
  rule.Start(values.data(), at);
  return at;
}

void HostTable::State::InitialValues(uint64_t key, char* out) {
  FillRow(options.init, key, absl::MakeSpan(values));
  rule.Rounded(values.data());
  std::memcpy(out, values.data(), values.size() * sizeof(float));
}

std::optional<uint32_t> HostTable::State::TakeRow(uint64_t hash) {
  if (const std::optional<uint32_t> row = rows.Take()) return row;
  if (index.rows() == 0) return std::nullopt;
  // Keys are spread evenly, so the segment of this one has as old rows as any.
  uint32_t segment = index.SegmentNumber(hash);
  while (index.RowsIn(segment) == 0) segment = (segment + 1) % index.segments();
  EvictRows(segment);
  return rows.Take();
}

bool HostTable::State::TooManyCandidates() const {
  return index.candidates() > memory.limit() / kCandidateShare / kCandidateBytes;
}

bool HostTable::State::MakeRoom(uint64_t hash) {
  while (!index.HasRoom(hash)) {
    uint32_t segment = index.SegmentNumber(hash);
    const size_t candidates = index.CandidatesIn(segment);
    const bool crowded = candidates > 0 && TooManyCandidates();
    if (!crowded && index.Grow(hash)) {
      Account();
      continue;
    }
    segment = index.SegmentNumber(hash);
    if (candidates > 0) {
      index.EvictOldest(segment, /*candidates=*/true, candidates / kEvictedCandidates + 1, &evicted);
      Forget();
    } else if (index.RowsIn(segment) > 0) {
      EvictRows(segment);
    } else {
      return false;
    }
  }
  return true;
}

void HostTable::State::EvictRows(uint32_t segment) {
  index.EvictOldest(segment, /*candidates=*/false, index.RowsIn(segment) / kEvictedRows + 1, &evicted);
  Forget();
}

void HostTable::State::Forget() {
  for (const KeyIndex::Evicted& gone : evicted) {
    if (!gone.value.is_row()) continue;
    rows.Free(gone.value.row());
    log.Add(gone.key);
  }
  evicted.clear();
}

}  // namespace basin
