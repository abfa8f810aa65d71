// LaneRows: of tables in the memory of a device.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "ps/device_table.h"
#include "ps/lane_rows.h"
#include "ps/lent_block.h"

namespace basin {

std::vector<uint32_t> LaneRows::tables_on_device() const {
  std::vector<uint32_t> tables;
  for (uint32_t table = 0; table < tables_.size(); ++table) {
    if (tables_[table].device_rows != nullptr) tables.push_back(table);
  }
  return tables;
}

absl::StatusOr<wire::DevicePlaces> LaneRows::FindPlaces(const Request& request, const Place& place) const {
  const wire::Entry& entry = *request.entry;
  const size_t dim = tables_[place.table].options.dim;
  const size_t row_bytes = dim * sizeof(float), gradient_bytes = dim * SizeOf(static_cast<DType>(entry.dtype));
  if (entry.rows > 1 && entry.rows * (kKeyBytes + row_bytes) > kMaxRowsBytes) {
    return absl::InvalidArgumentError(absl::StrCat(Name(place), ": ", entry.rows, " keys with rows of ", row_bytes,
                                                   " bytes in the device block, at most ", kMaxRowsBytes,
                                                   " bytes together are an entry"));
  }
  return wire::ReadPlaces(
      entry.flags, request.payload.subspan(entry.rows * kKeyBytes), entry.rows * gradient_bytes, entry.rows * row_bytes,
      request.block->bytes(),
      {.written = wire::RowPlaceAlignment(gradient_bytes), .pulled = wire::RowPlaceAlignment(row_bytes)});
}

bool LaneRows::OnDevice(ShardId bucket) const {
  const uint32_t table = TableOf(bucket);
  return table < tables_.size() && tables_[table].device_rows != nullptr;
}

bool LaneRows::HasBegun(ShardId bucket) const {
  if (begun_.empty()) return false;
  const absl::StatusOr<Place> place = Find(bucket);
  return place.ok() && place->index < tables_[place->table].buckets.size() &&
         tables_[place->table].buckets[place->index].begun;
}

absl::StatusOr<LaneRows::Begun> LaneRows::Begin(const Request& request, absl::Time now, wire::Entry& answer) {
  const wire::Entry& entry = *request.entry;
  BASIN_ASSIGN_OR_RETURN(const Place place, Find(entry.shard));
  LaneTable& table = tables_[place.table];
  if (place.index < table.buckets.size()) answer.version = table.buckets[place.index].version;
  BASIN_RETURN_IF_ERROR(CheckEntry(request, place));
  Touch(table);
  Bucket& bucket = table.buckets[place.index];
  answer.version = bucket.version;
  const bool is_placed = (entry.flags & wire::kPlaced) != 0;
  wire::DevicePlaces places;
  if (is_placed) {
    BASIN_ASSIGN_OR_RETURN(places, FindPlaces(request, place));
  }
  Begun begun;
  const char* const keys = request.payload.data();
  if (entry.flags & wire::kPush) {
    BASIN_ASSIGN_OR_RETURN(begun.repeat, CheckWrite(request, place));
    begun.writes = !begun.repeat;
  }
  if (begun.writes) {
    const auto type = static_cast<DType>(entry.dtype);
    bucket.refused = absl::OkStatus();
    if (is_placed) {
      BASIN_RETURN_IF_ERROR(table.device_rows->PushPlaced(keys, entry.rows, request.block->data() + places.written,
                                                          request.learning_rate, now, type, &bucket.refused));
      begun.placed_in = entry.rows * table.options.dim * SizeOf(type);
    } else {
      BASIN_RETURN_IF_ERROR(
          table.device_rows->Push(keys, entry.rows, keys + entry.rows * kKeyBytes, request.learning_rate, now, type));
    }
  }
  if ((entry.flags & wire::kPull) && is_placed) {
    BASIN_RETURN_IF_ERROR(table.device_rows->PullPlaced(keys, entry.rows, request.block->data() + places.pulled));
    begun.placed_out = AnswerBytes(entry);
  } else if (entry.flags & wire::kPull) {
    BASIN_ASSIGN_OR_RETURN(begun.rows, table.device_rows->Pull(keys, entry.rows));
  }
  if (!std::exchange(bucket.begun, true)) begun_.push_back(&bucket);
  answer.rows = entry.rows;
  answer.dtype = static_cast<uint8_t>(DType::kF32);
  return begun;
}

absl::StatusOr<LaneRows::Written> LaneRows::End(const Request& request, absl::Time now, wire::Entry& answer) {
  const Place place = *Find(request.entry->shard);
  BASIN_RETURN_IF_ERROR(tables_[place.table].buckets[place.index].refused);
  const Written written = NoteWrite(request, place, now);
  answer.version = tables_[place.table].buckets[place.index].version;
  return written;
}

void LaneRows::AllEnded() {
  for (Bucket* bucket : begun_) bucket->begun = false;
  begun_.clear();
}

}  // namespace basin
