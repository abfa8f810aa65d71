#include "ps/lane_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/key_hash.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "ps/block.h"
#include "ps/device_table.h"
#include "ps/gradient_view.h"
#include "ps/mutants.h"
#include "ps/run_spec.h"
#include "ps/shard_device.h"
#include "ps/variable_rules.h"

namespace basin {
namespace {

// Keys of the next entry that are asked for early; a larger one prefetches for itself.
constexpr size_t kPrefetchKeys = 64;
// Of one EvictedKeys: 512 KiB.
constexpr size_t kMostEvicted = 65536;
// How often disuse is looked for: a part of the time that it takes, within reason. Where more is due than one look
// takes, the messages that came meanwhile go first.
constexpr int kLooks = 16;
constexpr absl::Duration kLookLeast = absl::Milliseconds(10), kLookMost = absl::Minutes(1),
                         kLookAgain = absl::Milliseconds(1);

uint64_t KeyAt(absl::Span<const char> payload, size_t i) {
  uint64_t key;
  std::memcpy(&key, payload.data() + i * sizeof(key), sizeof(key));
  return key;
}

}  // namespace

LaneRows::LaneRows(LaneRowsOptions options) : options_(std::move(options)) {}
LaneRows::~LaneRows() = default;

std::string LaneRows::Me() const {
  return absl::StrCat("ps ", options_.ordinal.value(),
                      options_.lane.value() == 0 ? "" : absl::StrCat(" lane ", options_.lane.value()));
}

std::string LaneRows::Name(const Place& place) const {
  return absl::StrCat("table \"", tables_[place.table].name, "\" bucket ", place.bucket);
}

StoredTableOptions LaneRows::OptionsOf(const RunModel& model, int index) const {
  const wire::v1::Table& table = model.spec().model().tables(index);
  const uint64_t shares = uint64_t{model.spec().ps_count()} * options_.lanes;
  return {.name = table.name(),
          .dim = table.dim(),
          .storage = static_cast<DType>(table.storage()),
          .init = InitOf(table.initializer()),
          .rule = RuleOf(model.rule_of(table)),
          .admit_after = table.admit_after(),
          .admit_probability = table.admit_probability(),
          .evict_unused = table.evict_unused_ms() == 0
                              ? absl::InfiniteDuration()
                              : absl::Milliseconds(static_cast<int64_t>(table.evict_unused_ms())),
          .max_bytes = table.max_bytes() == 0 ? 0 : std::max<uint64_t>(1, table.max_bytes() / shares)};
}

std::vector<StoredTableOptions> LaneRows::ForDevice(const RunModel& model) const {
  std::vector<StoredTableOptions> tables;
  if (options_.device == nullptr) return tables;
  for (int i = static_cast<int>(tables_.size()); i < model.spec().model().tables_size(); ++i) {
    StoredTableOptions options = OptionsOf(model, i);
    if (options_.device->CanHold(options).ok()) tables.push_back(std::move(options));
  }
  return tables;
}

std::vector<std::string> LaneRows::Install(const RunModel& model) {
  placement_ = model.table_placement();
  std::tie(first_bucket_, end_bucket_) = placement_.BucketsOf(options_.ordinal);
  std::vector<std::string> notes;
  for (int i = static_cast<int>(tables_.size()); i < model.spec().model().tables_size(); ++i) {
    LaneTable added;
    added.options = OptionsOf(model, i);
    added.name = added.options.name;
    if (options_.device != nullptr) {
      if (const absl::Status can = options_.device->CanHold(added.options); !can.ok()) {
        notes.push_back(absl::StrCat("table \"", added.name, "\" stays on the host, not on ", options_.device->name(),
                                     ": ", can.message()));
      } else {
        added.device_rows = options_.device->MakeTable(added.name);
      }
    }
    tables_.push_back(std::move(added));
  }
  return notes;
}

void LaneRows::Touch(LaneTable& table) {
  if (!table.rows && !table.device_rows) table.rows = std::make_unique<HostTable>(table.options, options_.pool);
  if (table.buckets.empty()) table.buckets.resize((end_bucket_ - first_bucket_ + options_.lanes - 1) / options_.lanes);
  if (table.touched) return;
  table.touched = true;
  touched_.push_back(static_cast<uint32_t>(&table - tables_.data()));
}

absl::StatusOr<LaneRows::Place> LaneRows::Find(ShardId id) const {
  const Place place{.table = TableOf(id), .bucket = BucketIn(id)};
  if (place.table >= tables_.size())
    return absl::InvalidArgumentError(absl::StrCat(Me(), " has no table ", place.table));
  if (place.bucket < first_bucket_ || place.bucket >= end_bucket_ ||
      (place.bucket - first_bucket_) % options_.lanes != options_.lane.value()) {
    return absl::InvalidArgumentError(absl::StrCat(Me(), " does not have ", Name(place)));
  }
  return Place{place.table, place.bucket, (place.bucket - first_bucket_) / options_.lanes};
}

size_t LaneRows::AnswerBytes(const wire::Entry& entry) const {
  const uint32_t table = TableOf(entry.shard);
  if (table >= tables_.size()) return 0;
  return size_t{entry.rows} * tables_[table].options.dim * sizeof(float);
}

void LaneRows::Prefetch(const wire::Entry& entry, absl::Span<const char> payload) const {
  const uint32_t table = TableOf(entry.shard);
  if (table >= tables_.size() || !tables_[table].rows) return;
  tables_[table].rows->Prefetch(payload.data(),
                                std::min({size_t{entry.rows}, payload.size() / kKeyBytes, kPrefetchKeys}));
}

absl::Status LaneRows::CheckEntry(const Request& request, const Place& place) const {
  const wire::Entry& entry = *request.entry;
  const LaneTable& table = tables_[place.table];
  const auto refuse = [&](const auto&... why) {
    return absl::InvalidArgumentError(absl::StrCat(Name(place), ": ", why...));
  };
  const uint16_t wanted = entry.flags & (wire::kPush | wire::kPull);
  const bool is_placed = (entry.flags & wire::kPlaced) != 0;
  if (wanted == 0 || (entry.flags & ~(wanted | wire::kInline | wire::kJoined | wire::kPlaced)) != 0)
    return refuse("flags ", entry.flags, " make no request for rows");
  if (is_placed && table.device_rows == nullptr)
    return refuse("rows in a device block, of a table that lies on the host; send them in the message");
  const std::optional<DType> gradient = (wanted & wire::kPush) ? GradientType(entry.dtype) : std::nullopt;
  if (!gradient && entry.dtype != static_cast<uint8_t>(DType::kF32)) {
    return refuse(DTypeInWords(entry.dtype), ", expected ",
                  (wanted & wire::kPush) ? kGradientTypes : basin::Name(DType::kF32));
  }
  if (!(wanted & wire::kPush) && entry.sequence.value() != 0) return refuse("a pull has no sequence");
  const size_t row_bytes = gradient && !is_placed ? table.options.dim * SizeOf(*gradient) : 0;
  const size_t expected = entry.rows * (kKeyBytes + row_bytes) + (is_placed ? wire::PlacesBytes(entry.flags) : 0);
  if (entry.rows == 0 || request.payload.size() != expected) {
    return refuse(entry.rows, " keys",
                  is_placed ? " with places in the device block"
                  : row_bytes != 0
                      ? absl::StrCat(" with gradients of ", table.options.dim, " numbers in ", basin::Name(*gradient))
                      : "",
                  " in ", request.payload.size(), " bytes, expected at least 1 key and ", expected, " bytes");
  }
  uint32_t wrong = 0;
  for (size_t i = 0; i < entry.rows; ++i) {
    wrong |= placement_.BucketOf(KeyAt(request.payload, i)) ^ place.bucket;
  }
  if (wrong == 0) return absl::OkStatus();
  size_t at = 0;
  while (placement_.BucketOf(KeyAt(request.payload, at)) == place.bucket) ++at;
  const uint64_t key = KeyAt(request.payload, at);
  return refuse("key ", key, " is of bucket ", placement_.BucketOf(key));
}

absl::StatusOr<LaneRows::Written> LaneRows::Carry(const Request& request, absl::Time now, wire::Entry& answer) {
  BASIN_ASSIGN_OR_RETURN(const Place place, Find(request.entry->shard));
  LaneTable& table = tables_[place.table];
  if (place.index < table.buckets.size()) answer.version = table.buckets[place.index].version;
  BASIN_RETURN_IF_ERROR(CheckEntry(request, place));
  Touch(table);
  Written written;
  if (request.entry->flags & wire::kPush) {
    absl::StatusOr<Written> pushed = Push(request, place, now);
    answer.version = table.buckets[place.index].version;
    BASIN_RETURN_IF_ERROR(pushed.status());
    written = *pushed;
  }
  answer.version = table.buckets[place.index].version;
  answer.rows = request.entry->rows;
  answer.dtype = static_cast<uint8_t>(DType::kF32);
  return written;
}

absl::StatusOr<bool> LaneRows::CheckWrite(const Request& request, const Place& place) {
  if (!request.may_write) return absl::PermissionDeniedError(absl::StrCat(Name(place), ": this client only reads"));
  const WriteRecord& record = tables_[place.table].buckets[place.index].record;
  return record.IsRepeat({request.worker, request.incarnation, request.entry->sequence}, record.Find(request.worker),
                         [&] { return Name(place); });
}

absl::StatusOr<LaneRows::Written> LaneRows::Push(const Request& request, const Place& place, absl::Time now) {
  BASIN_ASSIGN_OR_RETURN(const bool repeat, CheckWrite(request, place));
  if (repeat) return Written{.repeat = true};
  LaneTable& table = tables_[place.table];
  const wire::Entry& entry = *request.entry;
  const char* const keys = request.payload.data();
  const char* const gradients = keys + entry.rows * kKeyBytes;
  const auto type = static_cast<DType>(entry.dtype);  // checked
  const absl::Status pushed = table.rows->Push(keys, entry.rows, gradients, request.learning_rate, now, type);
  if (!pushed.ok()) {
    if (BASIN_MUTANT(kRefusedPushUsesSequence)) {
      WriteRecord& record = table.buckets[place.index].record;
      record.Note({request.worker, request.incarnation, entry.sequence}, record.Find(request.worker));
    }
    if (BASIN_MUTANT(kApplyRowsOfRefusedPush)) {
      for (size_t i = 0; i < entry.rows; ++i) {
        const char* const gradient = gradients + i * table.options.dim * SizeOf(type);
        table.rows->Push(keys + i * kKeyBytes, 1, gradient, request.learning_rate, now, type).IgnoreError();
      }
    }
    return pushed;
  }
  return NoteWrite(request, place, now);
}

LaneRows::Written LaneRows::NoteWrite(const Request& request, const Place& place, absl::Time now) {
  LaneTable& table = tables_[place.table];
  Bucket& bucket = table.buckets[place.index];
  const wire::Entry& entry = *request.entry;
  if (table.options.evict_unused != absl::InfiniteDuration() && table.evict_at == absl::InfiniteFuture()) {
    table.evict_at = now + std::clamp(table.options.evict_unused / kLooks, kLookLeast, kLookMost);
    evicting_.push_back(place.table);
    next_wake_ = std::min(next_wake_, table.evict_at);
  }
  const uint64_t before = bucket.version.value();
  if (!(BASIN_MUTANT(kForgetToRecordBucket) && before % 8 == 0)) {
    bucket.record.Note({request.worker, request.incarnation, entry.sequence}, bucket.record.Find(request.worker));
  }
  bucket.version = bucket.version.next();
  return Written{.applied = true, .staleness = before > entry.version.value() ? before - entry.version.value() : 0};
}

void LaneRows::Read(const wire::Entry& entry, absl::Span<const char> payload, char* rows) const {
  tables_[TableOf(entry.shard)].rows->Pull(payload.data(), entry.rows, rows);
}

bool LaneRows::Row(uint32_t table, uint64_t key, float* row) const {
  if (!Find(BucketShard(table, placement_.BucketOf(key))).ok()) return false;
  const LaneTable& found = tables_[table];
  const auto* const bytes = reinterpret_cast<const char*>(&key);
  if (found.device_rows) {
    options_.device->StartMessage();
    const absl::StatusOr<const char*> rows = found.device_rows->Pull(bytes, 1);
    if (!rows.ok() || !options_.device->Run().ok()) return false;
    std::memcpy(row, *rows, found.options.dim * sizeof(float));
    return true;
  }
  if (!found.rows) return false;
  found.rows->Pull(bytes, 1, reinterpret_cast<char*>(row));
  return true;
}

absl::StatusOr<wire::v1::EvictedKeys> LaneRows::Evicted(const wire::v1::Evicted& request) const {
  if (request.table() >= tables_.size())
    return absl::InvalidArgumentError(absl::StrCat(Me(), " has no table ", request.table()));
  wire::v1::EvictedKeys answer;
  const LaneTable& table = tables_[request.table()];
  const uint64_t end = CountersOf(table).evicted;
  answer.set_next(end);
  if (request.since() >= end) {
    // More than there is is what another life of this ps had told.
    answer.set_missed(request.since() > end && request.since() != std::numeric_limits<uint64_t>::max());
    return answer;
  }
  std::vector<uint64_t> keys;
  uint64_t first = 0;
  if (table.device_rows) {
    BASIN_ASSIGN_OR_RETURN(first, table.device_rows->Evicted(request.since(), kMostEvicted, &keys));
  } else {
    first = table.rows->Evicted(request.since(), kMostEvicted, &keys);
  }
  answer.mutable_keys()->Add(keys.begin(), keys.end());
  answer.set_next(first + keys.size());
  answer.set_missed(first > request.since());
  answer.set_more(answer.next() < end);
  return answer;
}

absl::Status LaneRows::OnTime(absl::Time now) {
  if (now < next_wake_) return absl::OkStatus();
  next_wake_ = absl::InfiniteFuture();
  for (const uint32_t index : evicting_) {
    LaneTable& table = tables_[index];
    if (table.evict_at <= now) {
      Touch(table);
      bool more = false;
      if (table.device_rows) {
        BASIN_RETURN_IF_ERROR(table.device_rows->EvictUnused(now));
      } else {
        more = table.rows->EvictUnused(now);
      }
      table.evict_at =
          now + (more ? kLookAgain : std::clamp(table.options.evict_unused / kLooks, kLookLeast, kLookMost));
    }
    next_wake_ = std::min(next_wake_, table.evict_at);
  }
  if (options_.device != nullptr) BASIN_RETURN_IF_ERROR(options_.device->Run());
  Count();
  return absl::OkStatus();
}

void LaneRows::ListApplied(uint32_t worker, Incarnation incarnation, int most, wire::v1::Welcome* welcome) const {
  for (size_t t = 0; t < tables_.size(); ++t) {
    for (size_t i = 0; i < tables_[t].buckets.size(); ++i) {
      const Sequence last = tables_[t].buckets[i].record.last(worker, incarnation);
      if (last.value() == 0) continue;
      if (welcome->applied_size() >= most) return welcome->set_applied_is_cut(true);
      const uint32_t bucket = first_bucket_ + static_cast<uint32_t>(i) * options_.lanes + options_.lane.value();
      wire::v1::AppliedSequence* applied = welcome->add_applied();
      applied->set_shard(BucketShard(static_cast<uint32_t>(t), bucket).value());
      applied->set_sequence(last.value());
    }
  }
}

void LaneRows::ForgetSequences(uint32_t worker) {
  for (LaneTable& table : tables_) {
    for (Bucket& bucket : table.buckets) bucket.record.Forget(worker);
  }
}

TableCounters LaneRows::CountersOf(const LaneTable& table) const {
  if (table.device_rows) return table.device_rows->counters();
  return table.rows ? table.rows->counters() : TableCounters();
}

void LaneRows::Count() {
  LaneCounters& lane = *options_.counters;
  const auto move = [](Counter& sum, uint64_t& counted, uint64_t now) {
    sum.Add(now - counted);  // modulo 2^64: what shrinks is taken away
    counted = now;
  };
  for (const uint32_t index : touched_) {
    LaneTable& table = tables_[index];
    table.touched = false;
    const TableCounters now = CountersOf(table);
    move(lane.rows, table.counted.rows, now.rows);
    move(lane.row_candidates, table.counted.candidates, now.candidates);
    move(lane.table_bytes, table.counted.bytes, now.bytes);
    move(lane.evicted, table.counted.evicted, now.evicted);
    move(lane.dropped_gradients, table.counted.dropped_gradients, now.dropped_gradients);
  }
  touched_.clear();
}

}  // namespace basin
