#include "ps/device/cuda_lane_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "ps/device/cuda_shards.h"
#include "ps/table/finite_rows.h"

namespace basin {
namespace {

// As on the host: rows are looked at so many times in evict_unused.
constexpr int kLooksPerEviction = 16;

}  // namespace

CudaLaneTable::CudaLaneTable(StoredTableOptions options, std::unique_ptr<CudaTable> rows, CudaShards& lane,
                             CudaTableBatch& batch)
    : options_(std::move(options)), rows_(std::move(rows)), lane_(lane), batch_(batch), turns_(SecretU64() | 1) {}

absl::StatusOr<size_t> CudaLaneTable::RoomForPush(DType type) {
  const size_t row_bytes = options_.dim * SizeOf(type);
  if (const size_t room = batch_.PushRoom(*this, row_bytes); room > 0) return room;
  BASIN_RETURN_IF_ERROR(lane_.Run());
  return batch_.PushRoom(*this, row_bytes);
}

absl::Status CudaLaneTable::Push(const char* keys, size_t n, const char* gradients, float learning_rate, absl::Time now,
                                 DType type) {
  BASIN_RETURN_IF_ERROR(lane_.lost());
  // Looked at here, and not on the device, so that what becomes of an entry is known before anything of it is begun.
  // Its bytes are copied next, so they are in the cache then.
  BASIN_RETURN_IF_ERROR(CheckFinite(options_, keys, n, gradients, type));
  const CudaTableBatch::Push push = PushOf(learning_rate, now, type);
  return turns_.Count(keys, n) == 1 ? StageAll(push, keys, n, gradients) : StageTurns(push, keys, gradients);
}

CudaTableBatch::Push CudaLaneTable::PushOf(float learning_rate, absl::Time now, DType type) {
  return {.table = this,
          .type = type,
          .learning_rate = std::isnan(learning_rate) ? options_.rule.learning_rate : learning_rate,
          .stamp = clock_.Of(now)};
}

absl::Status CudaLaneTable::PushPlaced(const char* keys, size_t n, const char* gradients, float learning_rate,
                                       absl::Time now, DType type, absl::Status* refused) {
  BASIN_RETURN_IF_ERROR(lane_.lost());
  if (turns_.Count(keys, n) > 1) {
    return absl::InvalidArgumentError(absl::StrCat("table \"", options_.name,
                                                   "\": a key stands twice in a push whose gradients lie in a device "
                                                   "block; sum its gradients first"));
  }
  if (!batch_.HasRoomForPlaced(*this, n)) BASIN_RETURN_IF_ERROR(lane_.Run());
  CudaTableBatch::Push push = PushOf(learning_rate, now, type);
  push.is_placed = true;
  begun_keys_ += n;
  batch_.AddPlacedPush(push, keys, n, gradients, refused);
  return absl::OkStatus();
}

absl::Status CudaLaneTable::PullPlaced(const char* keys, size_t n, char* rows) {
  BASIN_RETURN_IF_ERROR(lane_.lost());
  for (size_t begin = 0; begin < n;) {
    if (batch_.PullRoom(*this) == 0) BASIN_RETURN_IF_ERROR(lane_.Run());
    const size_t count = std::min(batch_.PullRoom(*this), n - begin);
    batch_.AddPlacedPull(this, keys + begin * sizeof(uint64_t), count, rows + begin * options_.dim * sizeof(float));
    begin += count;
  }
  return absl::OkStatus();
}

absl::Status CudaLaneTable::StageAll(CudaTableBatch::Push push, const char* keys, size_t n, const char* gradients) {
  const size_t row_bytes = options_.dim * SizeOf(push.type);
  for (size_t begin = 0; begin < n;) {
    BASIN_ASSIGN_OR_RETURN(const size_t room, RoomForPush(push.type));
    const size_t count = std::min(room, n - begin);
    const CudaTableBatch::Staged staged = batch_.AddPush(push, count);
    begun_keys_ += count;
    std::memcpy(staged.keys, keys + begin * sizeof(uint64_t), count * sizeof(uint64_t));
    std::memcpy(staged.gradients, gradients + begin * row_bytes, count * row_bytes);
    begin += count;
  }
  return absl::OkStatus();
}

absl::Status CudaLaneTable::StageTurns(CudaTableBatch::Push push, const char* keys, const char* gradients) {
  const size_t row_bytes = options_.dim * SizeOf(push.type);
  const std::vector<uint32_t>& turn_begin = turns_.turn_begin();
  for (size_t turn = 0; turn + 1 < turn_begin.size(); ++turn) {
    push.apart = turn > 0;
    for (size_t at = turn_begin[turn]; at < turn_begin[turn + 1]; push.apart = false) {
      BASIN_ASSIGN_OR_RETURN(const size_t room, RoomForPush(push.type));
      const size_t count = std::min<size_t>(room, turn_begin[turn + 1] - at);
      const CudaTableBatch::Staged staged = batch_.AddPush(push, count);
      begun_keys_ += count;
      for (size_t i = 0; i < count; ++i, ++at) {
        const size_t place = turns_.places()[at];
        std::memcpy(staged.keys + i * sizeof(uint64_t), keys + place * sizeof(uint64_t), sizeof(uint64_t));
        std::memcpy(staged.gradients + i * row_bytes, gradients + place * row_bytes, row_bytes);
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const char*> CudaLaneTable::Pull(const char* keys, size_t n) {
  BASIN_RETURN_IF_ERROR(lane_.lost());
  const size_t row_bytes = options_.dim * sizeof(float);
  char* const rows = batch_.TakeRows(*this, n * row_bytes);
  if (rows == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("table \"", options_.name, "\": ", n, " rows of ", row_bytes,
                                                     " bytes are more than a message's answer holds, ", kMessageBytes,
                                                     " bytes; pull fewer at once"));
  }
  for (size_t begin = 0; begin < n;) {
    if (batch_.PullRoom(*this) == 0) BASIN_RETURN_IF_ERROR(lane_.Run());
    const size_t count = std::min(batch_.PullRoom(*this), n - begin);
    batch_.AddPull(this, keys + begin * sizeof(uint64_t), count, rows + begin * row_bytes);
    begin += count;
  }
  return rows;
}

absl::Status CudaLaneTable::EvictUnused(absl::Time now) {
  BASIN_RETURN_IF_ERROR(lane_.lost());
  if (options_.evict_unused == absl::InfiniteDuration() || now < next_round_) return absl::OkStatus();
  next_round_ = now + options_.evict_unused / kLooksPerEviction;
  const uint32_t stamp = clock_.Of(now), span = clock_.Span(options_.evict_unused);
  if (stamp < span) return absl::OkStatus();
  if (batch_.PullRoom(*this) == 0) BASIN_RETURN_IF_ERROR(lane_.Run());
  batch_.AddEviction(this, stamp - span + 1);
  return absl::OkStatus();
}

void CudaLaneTable::Ran(const CudaTableCounters& counters) {
  // Where a batch evicted more than is remembered, keys of two numbers may have met in one place of the log.
  if (counters.evicted - counters_.evicted > rows_->remembered()) log_begin_ = counters.evicted;
  counters_ = counters;
  begun_keys_ = 0;
}

absl::StatusOr<uint64_t> CudaLaneTable::Evicted(uint64_t since, size_t most, std::vector<uint64_t>* keys) {
  const uint64_t end = counters_.evicted;
  const uint64_t forgotten = end > rows_->remembered() ? end - rows_->remembered() : 0;
  const uint64_t first = std::min(end, std::max({since, forgotten, log_begin_}));
  const uint64_t last = first + std::min<uint64_t>(most, end - first);
  if (first < last) {
    BASIN_RETURN_IF_ERROR(lane_.Do([&] { return rows_->CopyEvicted(first, last, keys); }));
  }
  return first;
}

TableCounters CudaLaneTable::counters() const {
  return {.rows = counters_.rows,
          .bytes = rows_->bytes(),
          .evicted = counters_.evicted,
          .dropped_gradients = counters_.refused};
}

}  // namespace basin
