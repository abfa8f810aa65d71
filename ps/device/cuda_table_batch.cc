#include "ps/device/cuda_table_batch.h"

#include <algorithm>
#include <cstring>

#include "common/base/status_macros.h"
#include "common/codec/cuda_half.h"
#include "common/codec/half.h"
#include "common/device/cuda_status.h"
#include "ps/device/cuda_lane_table.h"
#include "ps/table/finite_rows.h"

namespace basin {
namespace {

constexpr size_t kRunAlignment = kShardAlignmentBytes;
constexpr size_t AlignedRun(size_t bytes) { return (bytes + kRunAlignment - 1) / kRunAlignment * kRunAlignment; }

// Gradients, each run's aligned, both kinds of keys, and entries of placed pushes, of which a message has no more: what
// is uploaded.
constexpr size_t kUploadedBytes = CudaTableBatch::kGradientBytes + 2 * CudaTableBatch::kKeys * sizeof(uint64_t) +
                                  kRunAlignment + kMaxEntries * sizeof(PlacedGradients);
constexpr size_t kRowsAt = AlignedRun(kUploadedBytes);
constexpr size_t kNotFiniteAt = AlignedRun(kRowsAt + CudaTableBatch::kRowsBytes);
constexpr size_t kBothBytes = AlignedRun(kNotFiniteAt + (kMaxEntries + 1) * sizeof(uint32_t));
// On the host alone.
constexpr size_t kTalliesAt = kBothBytes;
constexpr size_t kPinnedBytes = kTalliesAt + CudaTableBatch::kTables * sizeof(CudaTableTally);
// On the device alone.
constexpr size_t kFlagOfWidenAt = kBothBytes;  // which nobody reads: the host has looked
constexpr size_t kFloatsAt = kFlagOfWidenAt + kRunAlignment;
constexpr size_t kNumbersAt = kFloatsAt + 2 * CudaTableBatch::kGradientBytes;
constexpr size_t kThereBytes = kNumbersAt + CudaTableBatch::kKeys * sizeof(uint32_t);
static_assert(kNoBadKey == kAllFinite);

size_t RowBytesOf(const CudaLaneTable& table) { return table.options().dim * sizeof(float); }

}  // namespace

uint64_t CudaTableBatch::DeviceBytes() { return kThereBytes; }

absl::Status CudaTableBatch::Check(cudaError_t error, const char* what) const {
  return CudaStatus(error, device_, what);
}

absl::Status CudaTableBatch::Allocate() {
  void* staging = nullptr;
  BASIN_RETURN_IF_ERROR(Check(cudaHostAlloc(&staging, kPinnedBytes, cudaHostAllocDefault), "pin memory for tables"));
  std::unique_ptr<void, FreePinned> pinned(staging);
  BASIN_RETURN_IF_ERROR(there_.Resize(device_, kThereBytes));
  staging_ = std::move(pinned);
  push_keys_.reserve(kKeys);
  pull_keys_.reserve(kKeys);
  return absl::OkStatus();
}

// ---- What is begun ----

bool CudaTableBatch::HasRoomFor(const CudaLaneTable& table) const {
  return table.in_batch() || tables_.size() < kTables;
}

void CudaTableBatch::Touch(CudaLaneTable* table) {
  if (table->in_batch()) return;
  table->set_in_batch(true);
  tables_.push_back(table);
}

size_t CudaTableBatch::PushRoom(const CudaLaneTable& table, size_t gradient_bytes) const {
  const size_t used = AlignedRun(gradients_) + AlignedRun(placed_bytes_);  // as a new run would find it
  if (!HasRoomFor(table) || used >= kGradientBytes) return 0;
  return std::min(kKeys - push_keys_.size(), (kGradientBytes - used) / gradient_bytes);
}

bool CudaTableBatch::HasRoomForPlaced(const CudaLaneTable& table, size_t n) const {
  return placed_.size() < kMaxEntries && PushRoom(table, RowBytesOf(table)) >= n;
}

size_t CudaTableBatch::PullRoom(const CudaLaneTable& table) const {
  return HasRoomFor(table) ? kKeys - pull_keys_.size() : 0;
}

CudaTableBatch::PushRun& CudaTableBatch::RunOf(const Push& push) {
  Touch(push.table);
  const auto continues = [&push](const Push& last) {
    return !push.apart && last.table == push.table && last.type == push.type &&
           last.learning_rate == push.learning_rate && last.stamp == push.stamp && last.is_placed == push.is_placed;
  };
  if (pushes_.empty() || !continues(pushes_.back().push)) {
    gradients_ = AlignedRun(gradients_);
    placed_bytes_ = AlignedRun(placed_bytes_);
    widened_ = AlignedRun(widened_);
    pushes_.push_back({push, push_keys_.size(), 0, gradients_, widened_, placed_.size()});
  }
  return pushes_.back();
}

CudaTableBatch::Staged CudaTableBatch::AddPush(const Push& push, size_t n) {
  const size_t elements = n * push.table->options().dim;
  RunOf(push).count += n;
  const size_t first = push_keys_.size();
  push_keys_.resize(first + n);
  char* const gradients = static_cast<char*>(staging_.get()) + gradients_;
  gradients_ += elements * SizeOf(push.type);
  if (IsHalf(push.type)) widened_ += elements * sizeof(float);
  return {reinterpret_cast<char*>(push_keys_.data() + first), gradients};
}

void CudaTableBatch::AddPlacedPush(const Push& push, const char* keys, size_t n, const char* gradients,
                                   absl::Status* refused) {
  RunOf(push).count += n;
  const size_t first = push_keys_.size();
  push_keys_.resize(first + n);
  std::memcpy(push_keys_.data() + first, keys, n * sizeof(uint64_t));
  placed_.push_back({first, n, refused});
  entries_.push_back({.from = gradients,
                      .to = reinterpret_cast<float*>(there_.as<char>() + kFloatsAt + widened_),
                      .elements = static_cast<uint32_t>(n * push.table->options().dim),
                      .type = push.type});
  placed_bytes_ += n * RowBytesOf(*push.table);
  widened_ += n * RowBytesOf(*push.table);
}

char* CudaTableBatch::EndOfRows() const {
  const PullRun& last = pulls_.back();
  return last.rows + last.count * RowBytesOf(*last.table);
}

char* CudaTableBatch::TakeRows(const CudaLaneTable& table, size_t bytes) {
  size_t at = rows_taken_;
  const bool continues =
      !pulls_.empty() && pulls_.back().table == &table && EndOfRows() == there_.as<char>() + kRowsAt + at;
  if (!continues) at = (at + kAlignment - 1) / kAlignment * kAlignment;
  if (bytes > kRowsBytes - std::min(at, kRowsBytes)) return nullptr;
  rows_taken_ = at + bytes;
  return static_cast<char*>(staging_.get()) + kRowsAt + at;
}

void CudaTableBatch::AddPull(CudaLaneTable* table, const char* keys, size_t n, char* rows) {
  const auto at = static_cast<size_t>(rows - static_cast<char*>(staging_.get())) - kRowsAt;
  rows_begin_ = std::min(rows_begin_, at);
  rows_end_ = std::max(rows_end_, at + n * RowBytesOf(*table));
  AddPlacedPull(table, keys, n, there_.as<char>() + kRowsAt + at);
}

void CudaTableBatch::AddPlacedPull(CudaLaneTable* table, const char* keys, size_t n, char* rows) {
  Touch(table);
  const size_t first = pull_keys_.size();
  if (pulls_.empty() || pulls_.back().table != table || EndOfRows() != rows) {
    pulls_.push_back({table, first, 0, rows});
  }
  pulls_.back().count += n;
  pull_keys_.resize(first + n);
  std::memcpy(pull_keys_.data() + first, keys, n * sizeof(uint64_t));
}

void CudaTableBatch::AddEviction(CudaLaneTable* table, uint32_t before) {
  Touch(table);
  evictions_.push_back({table, before});
}

// ---- The batch ----

size_t CudaTableBatch::PushKeysAt() const { return AlignedRun(gradients_); }
size_t CudaTableBatch::PullKeysAt() const { return PushKeysAt() + push_keys_.size() * sizeof(uint64_t); }
size_t CudaTableBatch::PlacedAt() const { return AlignedRun(PullKeysAt() + pull_keys_.size() * sizeof(uint64_t)); }

absl::Status CudaTableBatch::Start(cudaStream_t stream) {
  for (const Eviction& eviction : evictions_) {
    BASIN_RETURN_IF_ERROR(eviction.table->rows().EvictBefore(eviction.before));
  }
  BASIN_RETURN_IF_ERROR(Upload(stream));
  if (!placed_.empty()) BASIN_RETURN_IF_ERROR(TakePlaced(stream));
  const auto* const bad = reinterpret_cast<const uint32_t*>(there_.as<char>() + kNotFiniteAt) + placed_.size();
  for (const PushRun& run : pushes_) {
    BASIN_RETURN_IF_ERROR(StartPush(stream, run, run.push.is_placed ? bad : nullptr));
  }
  return StartPulls(stream);
}

absl::Status CudaTableBatch::Upload(cudaStream_t stream) {
  char* const here = static_cast<char*>(staging_.get());
  std::copy(push_keys_.begin(), push_keys_.end(), reinterpret_cast<uint64_t*>(here + PushKeysAt()));
  std::copy(pull_keys_.begin(), pull_keys_.end(), reinterpret_cast<uint64_t*>(here + PullKeysAt()));
  chunks_ = CountChunks(entries_.data(), static_cast<uint32_t>(entries_.size()));
  std::copy(entries_.begin(), entries_.end(), reinterpret_cast<PlacedGradients*>(here + PlacedAt()));
  const size_t bytes = PlacedAt() + entries_.size() * sizeof(PlacedGradients);
  if (bytes == 0) return absl::OkStatus();
  return Check(cudaMemcpyAsync(there_.data(), here, bytes, cudaMemcpyHostToDevice, stream),
               "upload keys and gradients");
}

absl::Status CudaTableBatch::TakePlaced(cudaStream_t stream) {
  const size_t count = entries_.size();
  char* const there = there_.as<char>();
  BASIN_RETURN_IF_ERROR(Check(
      StartTakeGradients(stream, reinterpret_cast<const PlacedGradients*>(there + PlacedAt()),
                         static_cast<uint32_t>(count), chunks_, reinterpret_cast<uint32_t*>(there + kNotFiniteAt)),
      "take gradients from clients' blocks"));
  return Check(cudaMemcpyAsync(static_cast<char*>(staging_.get()) + kNotFiniteAt, there + kNotFiniteAt,
                               (count + 1) * sizeof(uint32_t), cudaMemcpyDeviceToHost, stream),
               "read what is not finite");
}

const uint32_t* CudaTableBatch::NotFinite() const {
  return reinterpret_cast<const uint32_t*>(static_cast<const char*>(staging_.get()) + kNotFiniteAt);
}

bool CudaTableBatch::refuses() const { return !placed_.empty() && NotFinite()[placed_.size()] != kAllFinite; }

absl::Status CudaTableBatch::StartAgain(cudaStream_t stream) {
  for (size_t i = 0; i < pushes_.size(); ++i) {
    const PushRun& run = pushes_[i];
    if (!run.push.is_placed) continue;
    const size_t row_bytes = RowBytesOf(*run.push.table);
    const size_t end = i + 1 < pushes_.size() ? pushes_[i + 1].first_placed : placed_.size();
    for (size_t at = run.first_placed; at < end; ++at) {
      if (NotFinite()[at] != kAllFinite) continue;
      // As many as stand together.
      PushRun part = run;
      part.first_key = placed_[at].first_key;
      part.widened_at += (part.first_key - run.first_key) * row_bytes;
      for (part.count = 0; at < end && NotFinite()[at] == kAllFinite; ++at) part.count += placed_[at].count;
      BASIN_RETURN_IF_ERROR(StartPush(stream, part, nullptr));
    }
  }
  return StartPulls(stream);
}

absl::Status CudaTableBatch::StartPulls(cudaStream_t stream) {
  char* const here = static_cast<char*>(staging_.get());
  char* const there = there_.as<char>();
  for (const PullRun& run : pulls_) {
    BASIN_RETURN_IF_ERROR(
        run.table->rows().Pull(reinterpret_cast<const uint64_t*>(there + PullKeysAt()) + run.first_key, run.count,
                               reinterpret_cast<float*>(run.rows)));
  }
  if (rows_begin_ < rows_end_) {
    BASIN_RETURN_IF_ERROR(Check(cudaMemcpyAsync(here + kRowsAt + rows_begin_, there + kRowsAt + rows_begin_,
                                                rows_end_ - rows_begin_, cudaMemcpyDeviceToHost, stream),
                                "read rows"));
  }
  auto* const tallies = reinterpret_cast<CudaTableTally*>(here + kTalliesAt);
  for (size_t i = 0; i < tables_.size(); ++i) {
    BASIN_RETURN_IF_ERROR(tables_[i]->rows().CopyTally(tallies + i));
  }
  return absl::OkStatus();
}

absl::Status CudaTableBatch::StartPush(cudaStream_t stream, const PushRun& run, const uint32_t* bad) {
  char* const there = there_.as<char>();
  CudaLaneTable& table = *run.push.table;
  const auto* const keys = reinterpret_cast<const uint64_t*>(there + PushKeysAt()) + run.first_key;
  auto* gradients = reinterpret_cast<float*>(there + run.gradients_at);
  if (run.push.is_placed || IsHalf(run.push.type)) {
    gradients = reinterpret_cast<float*>(there + kFloatsAt + run.widened_at);
  }
  if (!run.push.is_placed && IsHalf(run.push.type)) {
    BASIN_RETURN_IF_ERROR(Check(
        StartWiden(stream, run.push.type, reinterpret_cast<const uint16_t*>(there + run.gradients_at),
                   run.count * table.options().dim, gradients, reinterpret_cast<uint32_t*>(there + kFlagOfWidenAt)),
        "widen gradients"));
  }
  auto* const numbers = reinterpret_cast<uint32_t*>(there + kNumbersAt);
  // Where nothing happens no number is written, and MakeRoom must find no key without one.
  if (bad != nullptr && table.may_be_full()) {
    BASIN_RETURN_IF_ERROR(
        Check(cudaMemsetAsync(numbers, 0, run.count * sizeof(uint32_t), stream), "clear numbers of rows"));
  }
  BASIN_RETURN_IF_ERROR(table.rows().FindOrInsert(keys, run.count, run.push.stamp, bad, numbers));
  if (table.may_be_full()) {
    BASIN_RETURN_IF_ERROR(table.rows().MakeRoom(keys, run.count, run.push.stamp, numbers));
  }
  return table.rows().Apply(keys, numbers, run.count, gradients, run.push.learning_rate, bad);
}

void CudaTableBatch::Ended(bool ran) {
  const auto* const tallies =
      reinterpret_cast<const CudaTableTally*>(static_cast<const char*>(staging_.get()) + kTalliesAt);
  for (size_t i = 0; i < tables_.size(); ++i) {
    tables_[i]->set_in_batch(false);
    if (ran) tables_[i]->Ran(CudaTable::CountersOf(tallies[i]));
  }
  for (size_t i = 0; ran && i < pushes_.size(); ++i) {
    if (!pushes_[i].push.is_placed) continue;
    const StoredTableOptions& table = pushes_[i].push.table->options();
    const size_t end = i + 1 < pushes_.size() ? pushes_[i + 1].first_placed : placed_.size();
    for (size_t at = pushes_[i].first_placed; at < end; ++at) {
      const uint32_t found = NotFinite()[at];
      if (found == kAllFinite) continue;
      *placed_[at].refused =
          NotFiniteError(table, push_keys_[placed_[at].first_key + found / table.dim], "not finite", found % table.dim);
    }
  }
  push_keys_.clear();
  pull_keys_.clear();
  gradients_ = placed_bytes_ = widened_ = 0;
  rows_begin_ = kRowsBytes;
  rows_end_ = 0;
  pushes_.clear();
  placed_.clear();
  entries_.clear();
  pulls_.clear();
  evictions_.clear();
  tables_.clear();
}

}  // namespace basin
