#include "ps/device/cuda_table_batch.h"

#include <algorithm>
#include <cstring>

#include "common/base/status_macros.h"
#include "common/codec/cuda_half.h"
#include "common/codec/half.h"
#include "common/device/cuda_status.h"
#include "ps/device/cuda_lane_table.h"

namespace basin {
namespace {

constexpr size_t kRunAlignment = kShardAlignmentBytes;
constexpr size_t AlignedRun(size_t bytes) { return (bytes + kRunAlignment - 1) / kRunAlignment * kRunAlignment; }

// Gradients, each run's aligned, and both kinds of keys: what is uploaded.
constexpr size_t kUploadedBytes = CudaTableBatch::kGradientBytes + 2 * CudaTableBatch::kKeys * sizeof(uint64_t);
constexpr size_t kRowsAt = AlignedRun(kUploadedBytes);
// On the host alone.
constexpr size_t kTalliesAt = AlignedRun(kRowsAt + CudaTableBatch::kRowsBytes);
constexpr size_t kPinnedBytes = kTalliesAt + CudaTableBatch::kTables * sizeof(CudaTableTally);
// On the device alone.
constexpr size_t kFlagOfWidenAt = kTalliesAt;  // which nobody reads: the host has looked
constexpr size_t kFloatsAt = kFlagOfWidenAt + kRunAlignment;
constexpr size_t kNumbersAt = kFloatsAt + 2 * CudaTableBatch::kGradientBytes;
constexpr size_t kThereBytes = kNumbersAt + CudaTableBatch::kKeys * sizeof(uint32_t);

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
  const size_t used = AlignedRun(gradients_);  // as a new run would find it
  if (!HasRoomFor(table) || used >= kGradientBytes) return 0;
  return std::min(kKeys - push_keys_.size(), (kGradientBytes - used) / gradient_bytes);
}

size_t CudaTableBatch::PullRoom(const CudaLaneTable& table) const {
  return HasRoomFor(table) ? kKeys - pull_keys_.size() : 0;
}

CudaTableBatch::Staged CudaTableBatch::AddPush(const Push& push, size_t n) {
  Touch(push.table);
  const size_t elements = n * push.table->options().dim;
  const auto continues = [&push](const Push& last) {
    return !push.apart && last.table == push.table && last.type == push.type &&
           last.learning_rate == push.learning_rate && last.stamp == push.stamp;
  };
  if (pushes_.empty() || !continues(pushes_.back().push)) {
    gradients_ = AlignedRun(gradients_);
    widened_ = AlignedRun(widened_);
    pushes_.push_back({push, push_keys_.size(), 0, gradients_, widened_});
  }
  pushes_.back().count += n;
  const size_t first = push_keys_.size();
  push_keys_.resize(first + n);
  char* const gradients = static_cast<char*>(staging_.get()) + gradients_;
  gradients_ += elements * SizeOf(push.type);
  if (IsHalf(push.type)) widened_ += elements * sizeof(float);
  return {reinterpret_cast<char*>(push_keys_.data() + first), gradients};
}

size_t CudaTableBatch::EndOfRows() const {
  const PullRun& last = pulls_.back();
  return last.rows_at + last.count * RowBytesOf(*last.table);
}

char* CudaTableBatch::TakeRows(const CudaLaneTable& table, size_t bytes) {
  size_t at = rows_taken_;
  const bool continues = !pulls_.empty() && pulls_.back().table == &table && EndOfRows() == kRowsAt + at;
  if (!continues) at = (at + kAlignment - 1) / kAlignment * kAlignment;
  if (bytes > kRowsBytes - std::min(at, kRowsBytes)) return nullptr;
  rows_taken_ = at + bytes;
  return static_cast<char*>(staging_.get()) + kRowsAt + at;
}

void CudaTableBatch::AddPull(CudaLaneTable* table, const char* keys, size_t n, char* rows) {
  Touch(table);
  const auto rows_at = static_cast<size_t>(rows - static_cast<char*>(staging_.get()));
  const size_t first = pull_keys_.size();
  if (pulls_.empty() || pulls_.back().table != table || EndOfRows() != rows_at) {
    pulls_.push_back({table, first, 0, rows_at});
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

absl::Status CudaTableBatch::Start(cudaStream_t stream) {
  char* const here = static_cast<char*>(staging_.get());
  char* const there = there_.as<char>();
  for (const Eviction& eviction : evictions_) {
    BASIN_RETURN_IF_ERROR(eviction.table->rows().EvictBefore(eviction.before));
  }
  const size_t push_keys_at = AlignedRun(gradients_);
  const size_t pull_keys_at = push_keys_at + push_keys_.size() * sizeof(uint64_t);
  const size_t uploaded = pull_keys_at + pull_keys_.size() * sizeof(uint64_t);
  std::copy(push_keys_.begin(), push_keys_.end(), reinterpret_cast<uint64_t*>(here + push_keys_at));
  std::copy(pull_keys_.begin(), pull_keys_.end(), reinterpret_cast<uint64_t*>(here + pull_keys_at));
  if (uploaded > 0) {
    BASIN_RETURN_IF_ERROR(
        Check(cudaMemcpyAsync(there, here, uploaded, cudaMemcpyHostToDevice, stream), "upload keys and gradients"));
  }
  for (const PushRun& run : pushes_) {
    BASIN_RETURN_IF_ERROR(
        StartPush(stream, run, reinterpret_cast<const uint64_t*>(there + push_keys_at) + run.first_key));
  }
  size_t rows_begin = kPinnedBytes, rows_end = 0;
  for (const PullRun& run : pulls_) {
    BASIN_RETURN_IF_ERROR(
        run.table->rows().Pull(reinterpret_cast<const uint64_t*>(there + pull_keys_at) + run.first_key, run.count,
                               reinterpret_cast<float*>(there + run.rows_at)));
    rows_begin = std::min(rows_begin, run.rows_at);
    rows_end = std::max(rows_end, run.rows_at + run.count * RowBytesOf(*run.table));
  }
  if (rows_begin < rows_end) {
    BASIN_RETURN_IF_ERROR(Check(
        cudaMemcpyAsync(here + rows_begin, there + rows_begin, rows_end - rows_begin, cudaMemcpyDeviceToHost, stream),
        "read rows"));
  }
  auto* const tallies = reinterpret_cast<CudaTableTally*>(here + kTalliesAt);
  for (size_t i = 0; i < tables_.size(); ++i) {
    BASIN_RETURN_IF_ERROR(tables_[i]->rows().CopyTally(tallies + i));
  }
  return absl::OkStatus();
}

absl::Status CudaTableBatch::StartPush(cudaStream_t stream, const PushRun& run, const uint64_t* keys) {
  char* const there = there_.as<char>();
  CudaLaneTable& table = *run.push.table;
  auto* gradients = reinterpret_cast<float*>(there + run.gradients_at);
  if (IsHalf(run.push.type)) {
    gradients = reinterpret_cast<float*>(there + kFloatsAt + run.widened_at);
    BASIN_RETURN_IF_ERROR(Check(
        StartWiden(stream, run.push.type, reinterpret_cast<const uint16_t*>(there + run.gradients_at),
                   run.count * table.options().dim, gradients, reinterpret_cast<uint32_t*>(there + kFlagOfWidenAt)),
        "widen gradients"));
  }
  auto* const numbers = reinterpret_cast<uint32_t*>(there + kNumbersAt);
  BASIN_RETURN_IF_ERROR(table.rows().FindOrInsert(keys, run.count, run.push.stamp, nullptr, numbers));
  if (table.may_be_full()) {
    BASIN_RETURN_IF_ERROR(table.rows().MakeRoom(keys, run.count, run.push.stamp, numbers));
  }
  return table.rows().Apply(keys, numbers, run.count, gradients, run.push.learning_rate, nullptr);
}

void CudaTableBatch::Ended(bool ran) {
  const auto* const tallies =
      reinterpret_cast<const CudaTableTally*>(static_cast<const char*>(staging_.get()) + kTalliesAt);
  for (size_t i = 0; i < tables_.size(); ++i) {
    tables_[i]->set_in_batch(false);
    if (ran) tables_[i]->Ran(CudaTable::CountersOf(tallies[i]));
  }
  push_keys_.clear();
  pull_keys_.clear();
  gradients_ = widened_ = 0;
  pushes_.clear();
  pulls_.clear();
  evictions_.clear();
  tables_.clear();
}

}  // namespace basin
