// A lane's part of the model's tables: buckets with their records, and the rows of all buckets of a table in one
// HostTable, or in one DeviceTable. Pure, as the rest of the lane: docs/wire.md, "Rows of tables".
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
#include "common/wire/device_places.h"
#include "common/wire/header.h"
#include "ps/lane_counters.h"
#include "ps/table/host_table.h"
#include "ps/write_record.h"

namespace basin {

class BlockPool;
class DeviceTable;
class LentBlock;
class RunModel;
class ShardDevice;

struct LaneRowsOptions {
  PsOrdinal ordinal;
  LaneIndex lane;
  uint32_t lanes = 1;
  std::shared_ptr<BlockPool> pool;
  std::shared_ptr<ShardDevice> device;  // of tables that it can hold; none: all are on the host
  std::shared_ptr<LaneCounters> counters;
};

// Not thread-safe: its lane's.
class LaneRows {
 public:
  explicit LaneRows(LaneRowsOptions options);
  ~LaneRows();

  // Of the model's tables that are not here yet, those that the device will hold: what to Reserve before Install.
  std::vector<StoredTableOptions> ForDevice(const RunModel& model) const;
  // Takes the tables of the model that are not here yet. Those on the host cost next to nothing until they are touched.
  // Returns a line for a person of each that stays on the host though there is a device.
  std::vector<std::string> Install(const RunModel& model);

  // An entry of a message of a session. Everything in it may be hostile. Entry and payload go together.
  struct Request {
    const wire::Entry* entry = nullptr;
    absl::Span<const char> payload;
    uint32_t worker = 0;
    Incarnation incarnation;
    float learning_rate = 0;  // instead of the rule's, when it is not NaN
    bool may_write = false;
    const LentBlock* block = nullptr;  // the client's; REQUIRES: it has one, where the entry has kPlaced
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

  // The same for a table on the device, in two steps; the device's Run is between them.
  bool OnDevice(ShardId bucket) const;
  // Of all tables, their numbers.
  std::vector<uint32_t> tables_on_device() const;
  // Whether something was begun on the bucket that has not ended. Then nothing else may be begun on it.
  bool HasBegun(ShardId bucket) const;
  struct Begun {
    bool writes = false, repeat = false;  // a push that End ends; one that was applied before
    const char* rows = nullptr;           // of a pull: AnswerBytes bytes, there once the device has run
    // Of an entry with kPlaced, which has no `rows`: bytes that are read in the client's block, and written there.
    uint64_t placed_in = 0, placed_out = 0;
  };
  // As Carry, but that a push is begun, and only End sets the version that it makes. Errors are Carry's, and INTERNAL:
  // the device is lost.
  absl::StatusOr<Begun> Begin(const Request& request, absl::Time now, wire::Entry& answer);
  // The device has carried out the push, or found in the client's block what is refused: INVALID_ARGUMENT, and nothing
  // has changed. REQUIRES: Begin of that very entry said that it writes.
  absl::StatusOr<Written> End(const Request& request, absl::Time now, wire::Entry& answer);
  // All that was begun has ended, or the device is lost.
  void AllEnded();

  // Writes AnswerBytes bytes, of a table on the host. REQUIRES: Carry of that very entry was OK.
  void Read(const wire::Entry& entry, absl::Span<const char> payload, char* rows) const;

  // The key's row as it is now, where it would be on this lane; `row` has the table's dim floats.
  bool Row(uint32_t table, uint64_t key, float* row) const;

  absl::StatusOr<wire::v1::EvictedKeys> Evicted(const wire::v1::Evicted& request) const;
  // Evicts what is due: on the host a bounded number of rows. INTERNAL: the device is lost.
  absl::Status OnTime(absl::Time now);
  absl::Time next_wake() const { return next_wake_; }
  // Adds the worker's last sequence in each bucket that it has written, or that the list is cut at `most`.
  void ListApplied(uint32_t worker, Incarnation incarnation, int most, wire::v1::Welcome* welcome) const;
  void ForgetSequences(uint32_t worker);  // for a mutant
  // Brings the counters of tables up to date.
  void Count();

 private:
  static constexpr size_t kKeyBytes = sizeof(uint64_t);

  struct Bucket {
    WriteRecord record;
    Version version = Version(1);
    bool begun = false;    // something that has not ended
    absl::Status refused;  // of the push that was begun, by what the device found
  };
  struct LaneTable {
    std::string name;
    StoredTableOptions options;
    std::unique_ptr<HostTable> rows;           // on the host: from the first touch on
    std::unique_ptr<DeviceTable> device_rows;  // instead of it
    std::vector<Bucket> buckets;               // from the first touch on: this lane's, by their order
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
  // Where the rows of an entry with kPlaced lie. REQUIRES: CheckEntry.
  absl::StatusOr<wire::DevicePlaces> FindPlaces(const Request& request, const Place& place) const;
  // Decides about a push before anything of it is applied: whether it is a repeat.
  absl::StatusOr<bool> CheckWrite(const Request& request, const Place& place);
  absl::StatusOr<Written> Push(const Request& request, const Place& place, absl::Time now);
  // It was applied.
  Written NoteWrite(const Request& request, const Place& place, absl::Time now);
  StoredTableOptions OptionsOf(const RunModel& model, int table) const;
  TableCounters CountersOf(const LaneTable& table) const;
  void Touch(LaneTable& table);
  std::string Name(const Place& place) const;
  std::string Me() const;

  const LaneRowsOptions options_;
  TablePlacement placement_ = TablePlacement::Make(1);
  uint32_t first_bucket_ = 0, end_bucket_ = 0;  // of this ps
  std::vector<LaneTable> tables_;
  std::vector<uint32_t> touched_;   // since Count
  std::vector<uint32_t> evicting_;  // those with rows that may be evicted for disuse
  std::vector<Bucket*> begun_;      // on which something was begun
  absl::Time next_wake_ = absl::InfiniteFuture();
};

}  // namespace basin
