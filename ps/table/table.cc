#include "ps/table/table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rules/apply.h"
#include "ps/table/table_state.h"

namespace basin {
namespace {

// Keys are worked on in blocks: while the rows of one are applied, the index lines of the next are on their way, and a
// block's rows are fetched together.
constexpr size_t kBlock = 64;
// Lines of a row that are fetched ahead; the processor follows longer ones by itself.
constexpr size_t kFetchedBytes = 256;
constexpr size_t kLineBytes = 64;
// EvictUnused looks at so many segments a call, of 3,136 entries at most.
constexpr int kSegmentsPerCall = 2;
constexpr int kRoundsPerEviction = 16;
// A refusal of memory is taken for an answer for so many pushes.
constexpr uint64_t kCallsBetweenTries = 64;

struct Block {
  size_t size = 0;
  uint64_t keys[kBlock];
  uint64_t hashes[kBlock];

  // Reads keys [begin, begin + kBlock) or up to n, and fetches their lines.
  void Load(const char* all_keys, size_t begin, size_t n, const KeyIndex& index) {
    size = begin < n ? std::min(kBlock, n - begin) : 0;
    if (size == 0) return;
    std::memcpy(keys, all_keys + begin * sizeof(uint64_t), size * sizeof(uint64_t));
    for (size_t i = 0; i < size; ++i) {
      hashes[i] = KeyIndex::Hash(keys[i]);
      index.Prefetch(hashes[i]);
    }
  }
};

inline void FetchRow(const char* row, size_t bytes) {
  // The first byte of each line and the last byte: a row may begin anywhere in a line.
  const size_t fetched = std::min(bytes, kFetchedBytes);
  for (size_t at = 0; at < fetched; at += kLineBytes) __builtin_prefetch(row + at, 1);
  if (reinterpret_cast<uintptr_t>(row) % kLineBytes != 0) __builtin_prefetch(row + fetched - 1, 1);
}

absl::Status NotFinite(const TableOptions& options, const char* keys, const char* gradients, size_t floats) {
  size_t at = 0;
  float found = 0;
  for (; at < floats; ++at) {
    std::memcpy(&found, gradients + at * sizeof(found), sizeof(found));
    if (!std::isfinite(found)) break;
  }
  uint64_t key = 0;
  std::memcpy(&key, keys + at / options.dim * sizeof(key), sizeof(key));
  return absl::InvalidArgumentError(absl::StrCat("table \"", options.name, "\": the gradient of key ", key, " is ",
                                                 found, " at element ", at % options.dim,
                                                 ", expected finite numbers; nothing of the push was applied; look at "
                                                 "the loss or the learning rate of the worker"));
}

}  // namespace

Table::Table(TableOptions options, std::shared_ptr<BlockPool> pool)
    : state_(std::make_unique<State>(std::move(options), std::move(pool))) {}
Table::~Table() = default;

void Table::Prefetch(const char* keys, size_t n) const {
  for (size_t i = 0; i < n; ++i) {
    uint64_t key;
    std::memcpy(&key, keys + i * sizeof(key), sizeof(key));
    state_->index.Prefetch(KeyIndex::Hash(key));
  }
}

void Table::Pull(const char* keys, size_t n, char* rows) const {
  State& s = *state_;
  const size_t out_bytes = s.options.dim * sizeof(float);
  Block blocks[2];
  blocks[0].Load(keys, 0, n, s.index);
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const Block& block = blocks[begin / kBlock % 2];
    blocks[(begin / kBlock + 1) % 2].Load(keys, begin + kBlock, n, s.index);
    const char* found[kBlock];
    char* to[kBlock];
    size_t count = 0;
    for (size_t i = 0; i < block.size; ++i) {
      char* out = rows + (begin + i) * out_bytes;
      const IndexValue value = s.index.Find(block.hashes[i], block.keys[i]);
      if (value.is_row()) {
        found[count] = s.rows.At(value.row());
        to[count] = out;
        FetchRow(found[count++], out_bytes);
      } else {
        s.InitialValues(block.keys[i], out);
      }
    }
    s.rule.Read(count, found, to);
  }
}

absl::Status Table::Push(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now) {
  State& s = *state_;
  const size_t gradient_bytes = s.options.dim * sizeof(float);
  if (!AllFinite(gradients, n * s.options.dim)) return NotFinite(s.options, keys, gradients, n * s.options.dim);
  const float rate = std::isnan(learning_rate) ? s.options.rule.learning_rate : learning_rate;
  const uint32_t stamp = s.StampOf(now);
  if (++s.calls % kCallsBetweenTries == 0) s.rows.TryAgain();
  const size_t row_bytes = s.rule.row_bytes();
  Block blocks[2];
  blocks[0].Load(keys, 0, n, s.index);
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const Block& block = blocks[begin / kBlock % 2];
    blocks[(begin / kBlock + 1) % 2].Load(keys, begin + kBlock, n, s.index);
    char* rows[kBlock];
    const char* of_rows[kBlock];
    uint64_t row_keys[kBlock];
    uint8_t missing[kBlock];
    size_t count = 0, missing_count = 0;
    for (size_t i = 0; i < block.size; ++i) {
      const IndexValue value = s.index.FindAndStamp(block.hashes[i], block.keys[i], stamp);
      if (value.is_row()) [[likely]] {
        rows[count] = s.rows.At(value.row());
        of_rows[count] = gradients + (begin + i) * gradient_bytes;
        row_keys[count] = block.keys[i];
        FetchRow(rows[count++], row_bytes);
      } else {
        missing[missing_count++] = static_cast<uint8_t>(i);
      }
    }
    // The rows that are there come first: one that is made below may evict them.
    s.rule.Apply(rate, count, rows, of_rows, row_keys);
    for (size_t m = 0; m < missing_count; ++m) {
      const size_t i = missing[m];
      char* row = s.RowForPush(block.hashes[i], block.keys[i], stamp);
      if (row == nullptr) continue;
      const char* gradient = gradients + (begin + i) * gradient_bytes;
      s.rule.Apply(rate, 1, &row, &gradient, &block.keys[i]);
    }
  }
  return absl::OkStatus();
}

bool Table::EvictUnused(absl::Time now) {
  State& s = *state_;
  const absl::Duration unused = s.options.evict_unused;
  if (unused == absl::InfiniteDuration()) return false;
  const uint32_t stamp = s.StampOf(now);
  if (s.next_segment == 0) {
    if (now < s.next_round) return false;
    s.next_round = now + unused / kRoundsPerEviction;
  }
  // Rounded up, and at least one: a row may go a sixteenth of a second early, and never in the moment of its push.
  const uint32_t span = std::max(1u, s.StampOf(*s.epoch + unused + absl::Milliseconds(62)));
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

uint64_t Table::evicted_end() const { return state_->log.end(); }

uint64_t Table::Evicted(uint64_t since, size_t most, std::vector<uint64_t>* keys) const {
  return state_->log.Read(since, most, keys);
}

TableCounters Table::counters() const {
  const State& s = *state_;
  return {.rows = s.index.rows(),
          .candidates = s.index.candidates(),
          .bytes = s.memory.bytes(),
          .evicted = s.log.end(),
          .dropped_gradients = s.dropped};
}

}  // namespace basin
