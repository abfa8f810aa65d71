// A lane's part of one embedding table: rows by 64-bit key in one open-addressed index, keys apart from the rows, which
// lie in slabs of fixed stride [embedding | slots | meta]. Pure: no thread, no clock of its own, and what happens
// depends on the calls and their order alone.
//
// Keys and rows come as they stand in messages: unaligned, little-endian, n keys of 8 bytes, n rows of dim floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/dtype.h"
#include "common/rules/initializer.h"
#include "common/rules/rule_spec.h"

namespace basin {

class BlockPool;

struct StoredTableOptions {
  std::string name;  // for messages
  uint32_t dim = 1;
  DType storage = DType::kF32;  // kF32, kF16, kBF16
  InitSpec init;
  RuleSpec rule;
  uint32_t admit_after = 1;
  // Of a push that would make a row. Where admit_after is 1, keys that wait are not remembered and cost nothing.
  float admit_probability = 1;
  absl::Duration evict_unused = absl::InfiniteDuration();  // to 1/16 s
  size_t max_bytes = 0;                                    // this lane's share; 0: until the pool gives no more
};

struct TableCounters {
  uint64_t rows = 0;               // now
  uint64_t candidates = 0;         // keys that only count yet
  uint64_t bytes = 0;              // index and slabs
  uint64_t evicted = 0;            // rows, ever
  uint64_t dropped_gradients = 0;  // of keys that are not admitted, or found no room, ever
};

// Not thread-safe: its lane's.
class HostTable {
 public:
  // REQUIRES: dim >= 1; storage is one of the three; rule and init are valid, and init is one that rows have (FillRow);
  // admit_after >= 1.
  HostTable(StoredTableOptions options, std::shared_ptr<BlockPool> pool);
  ~HostTable();
  HostTable(const HostTable&) = delete;
  HostTable& operator=(const HostTable&) = delete;

  // Advice: those keys are asked for soon. Cheap; for the next bucket of a message while this one is worked on.
  void Prefetch(const char* keys, size_t n) const;
  // Writes n rows to `rows`. A key without a row: its initial value. Changes nothing.
  void Pull(const char* keys, size_t n, char* rows) const;
  // Applies n gradients, key by key (a key that stands twice is applied twice). INVALID_ARGUMENT, and nothing has
  // changed: a NaN or Inf, named by its key and place. Never fails for want of memory: rows make room, or the gradient
  // is dropped and counted. `learning_rate`: instead of the rule's, when it is not NaN; finite and at least 0 then.
  // `type` of the gradients: kF32, kF16 or kBF16.
  absl::Status Push(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now,
                    DType type = DType::kF32);
  // Evicts what was not pushed for evict_unused, rows and candidates, a few thousand entries looked at in a call;
  // returns whether there are more to look at now. Looks at all of them sixteen times in evict_unused, and costs
  // nothing between.
  bool EvictUnused(absl::Time now);

  // Evicted keys are numbered from 0; the last kRemembered are remembered.
  static constexpr uint64_t kRemembered = uint64_t{1} << 20;
  uint64_t evicted_end() const;
  // Appends keys from number `since`, at most `most`; returns the number of the first one appended, which is larger
  // than `since` where some are forgotten.
  uint64_t Evicted(uint64_t since, size_t most, std::vector<uint64_t>* keys) const;

  TableCounters counters() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace basin
