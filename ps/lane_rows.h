// A lane's part of the model's tables: buckets with their records, and the rows of all buckets of a table in one HostTable.
// Pure, as the rest of the lane: docs/wire.md, "Rows of tables".
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster_spec/table_placement.h"
#include "common/base/ids.h"
#include "common/rules/rule_spec.h"
#include "common/wire/control.pb.h"
#include "common/wire/header.h"
#include "ps/lane_counters.h"
#include "ps/table/host_table.h"
#include "ps/write_record.h"

namespace basin {

class BlockPool;
class RunModel;

struct LaneRowsOptions {
  PsOrdinal ordinal;
  LaneIndex lane;
  uint32_t lanes = 1;
  std::shared_ptr<BlockPool> pool;
  std::shared_ptr<LaneCounters> counters;
};

// Not thread-safe: its lane's.
class LaneRows {
 public:
  explicit LaneRows(LaneRowsOptions options);
  ~LaneRows();

  // Takes the tables of the model that are not here yet. They cost next to nothing until they are touched.
  void Install(const RunModel& model);

  // An entry of a message of a session. Everything in it may be hostile. Entry and payload go together.
  struct Request {
    const wire::Entry* entry = nullptr;
    absl::Span<const char> payload;
    uint32_t worker = 0;
    Incarnation incarnation;
    float learning_rate = 0;  // instead of the rule's, when it is not NaN
    bool may_write = false;
  };
  struct Written {
    bool applied = false, repeat = false;  // neither: only a pull
    uint64_t staleness = 0;                // as Shard::Written's
  };
  // What the answer to the entry would have to carry, if it is well-formed.
  size_t AnswerBytes(const wire::Entry& entry) const;
  // The entry is next.
  void Prefetch(const wire::Entry& entry, absl::Span<const char> payload) const;
  // Checks everything, then applies the push, if it is one. After an error nothing has changed, and the sequence is not
  // used up: INVALID_ARGUMENT: no such bucket here, sizes, flags, a key of another bucket, NaN or Inf; OUT_OF_RANGE: a
  // gap; PERMISSION_DENIED: writes, and may not. Sets the answer's version and rows.
  absl::StatusOr<Written> Carry(const Request& request, absl::Time now, wire::Entry& answer);
  // Writes AnswerBytes bytes. REQUIRES: Carry of that very entry was OK.
  void Read(const wire::Entry& entry, absl::Span<const char> payload, char* rows) const;

  // The key's row as it is now, where it would be on this lane; `row` has the table's dim floats.
  bool Row(uint32_t table, uint64_t key, float* row) const;

  absl::StatusOr<wire::v1::EvictedKeys> Evicted(const wire::v1::Evicted& request) const;
  // Evicts what is due, a bounded number of rows.
  void OnTime(absl::Time now);
  absl::Time next_wake() const { return next_wake_; }
  // Adds the worker's last sequence in each bucket that it has written, or that the list is cut at `most`.
  void ListApplied(uint32_t worker, Incarnation incarnation, int most, wire::v1::Welcome* welcome) const;
  void ForgetSequences(uint32_t worker);  // for a mutant
  // Brings the counters of tables up to date.
  void Count();

 private:
  struct Bucket {
    WriteRecord record;
    Version version = Version(1);
  };
  struct LaneTable {
    std::string name;
    StoredTableOptions options;
    std::unique_ptr<HostTable> rows;  // from the first touch on
    std::vector<Bucket> buckets;  // likewise: this lane's, by their order
    absl::Time evict_at = absl::InfiniteFuture();
    bool touched = false;   // since Count
    TableCounters counted;  // is in the lane's counters
  };
  struct Place {
    uint32_t table = 0, bucket = 0;
    size_t index = 0;  // in LaneTable::buckets
  };
  absl::StatusOr<Place> Find(ShardId id) const;
  absl::Status CheckEntry(const Request& request, const Place& place) const;
  absl::StatusOr<Written> Push(const Request& request, const Place& place, absl::Time now);
  void Touch(LaneTable& table);
  std::string Name(const Place& place) const;
  std::string Me() const;

  const LaneRowsOptions options_;
  TablePlacement placement_ = TablePlacement::Make(1);
  uint32_t first_bucket_ = 0, end_bucket_ = 0;  // of this ps
  std::vector<LaneTable> tables_;
  std::vector<uint32_t> touched_;   // since Count
  std::vector<uint32_t> evicting_;  // those with rows that may be evicted for disuse
  absl::Time next_wake_ = absl::InfiniteFuture();
};

}  // namespace basin
