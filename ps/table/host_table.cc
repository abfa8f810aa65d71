#include "ps/table/host_table.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "common/base/status_macros.h"
#include "common/codec/half.h"
#include "ps/table/fetch_line.h"
#include "ps/table/finite_rows.h"
#include "ps/table/key_block.h"
#include "ps/table/host_table_state.h"

namespace basin {
namespace {

// EvictUnused looks at so many segments a call, of 3,136 entries at most.
constexpr int kSegmentsPerCall = 2;
constexpr int kRoundsPerEviction = 16;
// A refusal of memory is taken for an answer for so many pushes.
constexpr uint64_t kCallsBetweenTries = 64;

}  // namespace

HostTable::HostTable(StoredTableOptions options, std::shared_ptr<BlockPool> pool)
    : state_(std::make_unique<State>(std::move(options), std::move(pool))) {}
HostTable::~HostTable() = default;

void HostTable::Prefetch(const char* keys, size_t n) const {
  for (size_t i = 0; i < n; ++i) {
    uint64_t key;
    std::memcpy(&key, keys + i * sizeof(key), sizeof(key));
    FetchLine(state_->index.FirstLine(KeyIndex::Hash(key)));
  }
}

void HostTable::Pull(const char* keys, size_t n, char* rows) const {
  State& s = *state_;
  const size_t out_bytes = s.options.dim * sizeof(float);
  const size_t value_bytes = s.options.dim * SizeOf(s.options.storage);
  KeyBlock blocks[2];
  blocks[0].Load(s.index, keys, 0, n);
  for (size_t begin = 0, turn = 0; begin < n; begin += KeyBlock::kKeys, turn ^= 1) {
    const KeyBlock& block = blocks[turn];
    blocks[turn ^ 1].Load(s.index, keys, begin + KeyBlock::kKeys, n);
    FoundRows found;
    FindOnly(s.index, s.rows, block, value_bytes, &found);
    char* out[KeyBlock::kKeys];
    for (size_t i = 0; i < found.rows_found; ++i) out[i] = rows + (begin + found.places[i]) * out_bytes;
    s.rule.Read(found.rows_found, found.rows, out);
    for (size_t i = 0; i < found.without_row; ++i) {
      const size_t place = found.places_without[i];
      s.InitialValues(block.keys[place], rows + (begin + place) * out_bytes);
    }
  }
}

absl::Status HostTable::Push(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now,
                         DType type) {
  State& s = *state_;
  const size_t dim = s.options.dim;
  BASIN_RETURN_IF_ERROR(CheckFinite(s.options, keys, n, gradients, type));
  const float rate = std::isnan(learning_rate) ? s.options.rule.learning_rate : learning_rate;
  const uint32_t stamp = s.clock.Of(now);
  if (++s.calls % kCallsBetweenTries == 0) s.rows.TryAgain();
  const size_t row_bytes = s.rule.row_bytes();
  KeyBlock blocks[2];
  blocks[0].Load(s.index, keys, 0, n);
  for (size_t begin = 0, turn = 0; begin < n; begin += KeyBlock::kKeys, turn ^= 1) {
    KeyBlock& block = blocks[turn];
    blocks[turn ^ 1].Load(s.index, keys, begin + KeyBlock::kKeys, n);
    block.Refresh(s.index);
    FoundRows found;
    FindAndStamp(s.index, s.rows, block, row_bytes, stamp, &found);
    // Those of 16 bits become floats here, while the rows are on their way from memory.
    const char* block_gradients = gradients + begin * dim * SizeOf(type);
    if (IsHalf(type)) {
      s.widened.resize(KeyBlock::kKeys * dim);
      Widen(type, block_gradients, block.size * dim, s.widened.data());
      block_gradients = reinterpret_cast<const char*>(s.widened.data());
    }
    const char* of_rows[KeyBlock::kKeys];
    uint64_t row_keys[KeyBlock::kKeys];
    for (size_t i = 0; i < found.rows_found; ++i) {
      of_rows[i] = block_gradients + found.places[i] * dim * sizeof(float);
      row_keys[i] = block.keys[found.places[i]];
    }
    // The rows that are there come first: one that is made below may evict them.
    s.rule.Apply(rate, found.rows_found, found.rows, of_rows, row_keys);
    for (size_t i = 0; i < found.without_row; ++i) {
      const size_t place = found.places_without[i];
      char* row = s.RowForPush(block.hashes[place], block.keys[place], stamp);
      if (row == nullptr) continue;
      const char* gradient = block_gradients + place * dim * sizeof(float);
      s.rule.Apply(rate, 1, &row, &gradient, &block.keys[place]);
    }
  }
  return absl::OkStatus();
}

bool HostTable::EvictUnused(absl::Time now) {
  State& s = *state_;
  const absl::Duration unused = s.options.evict_unused;
  if (unused == absl::InfiniteDuration()) return false;
  const uint32_t stamp = s.clock.Of(now);
  if (s.next_segment == 0) {
    if (now < s.next_round) return false;
    s.next_round = now + unused / kRoundsPerEviction;
  }
  const uint32_t span = s.clock.Span(unused);
  if (stamp >= span) {
    for (int i = 0; i < kSegmentsPerCall && s.next_segment < s.index.segments(); ++i) {
      s.index.EvictBefore(s.next_segment++, stamp - span + 1, &s.evicted);
      s.Forget();
    }
    if (s.next_segment < s.index.segments()) return true;
  }
  s.next_segment = 0;
  return false;
}

uint64_t HostTable::evicted_end() const { return state_->log.end(); }

uint64_t HostTable::Evicted(uint64_t since, size_t most, std::vector<uint64_t>* keys) const {
  return state_->log.Read(since, most, keys);
}

TableCounters HostTable::counters() const {
  const State& s = *state_;
  return {.rows = s.index.rows(),
          .candidates = s.index.candidates(),
          .bytes = s.memory.bytes(),
          .evicted = s.log.end(),
          .dropped_gradients = s.dropped};
}

}  // namespace basin
