#include "ps/table/device/cuda_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"

namespace basin {
namespace {

// Rows that are copied from the device at once.
constexpr size_t kExportBytes = size_t{16} << 20;
// A bucket, and the numbers of the keys that mark free ones.
constexpr uint64_t kLeastRows = CudaKeyIndex::kBucket + CudaKeyIndex::kReserved;

// With its key and its time.
uint64_t RowBytes(const CudaRowLayout& layout) { return layout.stride + sizeof(uint64_t) + sizeof(uint32_t); }

}  // namespace

CudaTable::CudaTable(std::string device, StoredTableOptions options, cudaStream_t stream)
    : device_(std::move(device)),
      options_(std::move(options)),
      stream_(stream),
      rule_(options_.rule, options_.storage, options_.dim),
      layout_(MakeCudaRowLayout(options_.rule, options_.storage, options_.dim)) {}

absl::Status CudaTable::Check(cudaError_t error, const char* what) const {
  if (error == cudaSuccess) return absl::OkStatus();
  return CudaStatus(error, device_, absl::StrCat("table \"", options_.name, "\": ", what));
}

absl::Status CudaTable::CanHold(const StoredTableOptions& options) {
  if (options.admit_after > 1 || options.admit_probability < 1) {
    return absl::UnimplementedError("it admits keys by count or probability, which a device's table does not");
  }
  if (options.max_bytes == 0) {
    return absl::UnimplementedError("it has no max_bytes, and a device's table takes all of its memory at once");
  }
  const uint64_t least = kLeastRows * RowBytes(MakeCudaRowLayout(options.rule, options.storage, options.dim));
  if (options.max_bytes >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("its part of max_bytes is ", options.max_bytes, ", expected at least ",
                                                 least, " for ", kLeastRows,
                                                 " rows, since a device's table takes its memory at once"));
}

absl::StatusOr<std::unique_ptr<CudaTable>> CudaTable::Make(std::string device, StoredTableOptions options,
                                                           cudaStream_t stream) {
  if (const absl::Status can = CanHold(options); !can.ok()) {
    return absl::Status(can.code(),
                        absl::StrCat("table \"", options.name, "\" cannot lie on ", device, ": ", can.message()));
  }
  auto table = std::unique_ptr<CudaTable>(new CudaTable(std::move(device), std::move(options), stream));
  BASIN_RETURN_IF_ERROR(table->Allocate());
  return table;
}

absl::Status CudaTable::Allocate() {
  constexpr uint64_t kMostNumbers = (kNoCudaRow - CudaKeyIndex::kReserved) / CudaKeyIndex::kBucket;  // in buckets
  const uint64_t bucket = RowBytes(layout_) * CudaKeyIndex::kBucket;
  const uint64_t beside = RowBytes(layout_) * CudaKeyIndex::kReserved;
  const uint64_t buckets = std::min<uint64_t>((options_.max_bytes - beside) / bucket, kMostNumbers);
  index_.numbers = static_cast<uint32_t>(buckets * CudaKeyIndex::kBucket);
  BASIN_RETURN_IF_ERROR(rows_.Resize(device_, uint64_t{numbers()} * layout_.stride));
  BASIN_RETURN_IF_ERROR(keys_.Resize(device_, uint64_t{index_.numbers} * sizeof(uint64_t)));
  BASIN_RETURN_IF_ERROR(stamps_.Resize(device_, uint64_t{numbers()} * sizeof(uint32_t)));
  BASIN_RETURN_IF_ERROR(reserved_.Resize(device_, CudaKeyIndex::kReserved * sizeof(uint32_t)));
  BASIN_RETURN_IF_ERROR(tally_.Resize(device_, sizeof(CudaTableTally)));
  log_.size = std::min<uint64_t>(std::bit_ceil(numbers()), HostTable::kRemembered);
  BASIN_RETURN_IF_ERROR(evicted_.Resize(device_, log_.size * sizeof(uint64_t)));
  log_.keys = evicted_.as<uint64_t>();
  index_.keys = keys_.as<uint64_t>();
  index_.stamps = stamps_.as<uint32_t>();
  index_.reserved = reserved_.as<uint32_t>();
  start_ = {.init = options_.init, .layout = layout_, .storage = options_.storage, .rows = rows_.as<char>()};
  for (uint32_t slot = 0; slot < layout_.slots; ++slot) {
    start_.slots[slot] = SlotInitialValue(options_.rule, static_cast<int>(slot));
  }
  static_assert(CudaKeyIndex::kEmpty == ~uint64_t{0}, "is set byte by byte");
  BASIN_RETURN_IF_ERROR(Check(cudaMemsetAsync(index_.keys, 0xff, keys_.bytes(), stream_), "clear its keys"));
  BASIN_RETURN_IF_ERROR(Check(cudaMemsetAsync(index_.stamps, 0, stamps_.bytes(), stream_), "clear its times"));
  BASIN_RETURN_IF_ERROR(Check(cudaMemsetAsync(index_.reserved, 0, reserved_.bytes(), stream_), "clear its keys"));
  BASIN_RETURN_IF_ERROR(Check(cudaMemsetAsync(tally_.data(), 0, tally_.bytes(), stream_), "clear its counters"));
  numbers_of_rule_ = rule_.NumbersAt(options_.rule.learning_rate);
  if (const size_t count = numbers_of_rule_.correction_count; count > 0) {
    BASIN_RETURN_IF_ERROR(corrections_.Resize(device_, count * sizeof(float)));
    BASIN_RETURN_IF_ERROR(Check(cudaMemcpyAsync(corrections_.data(), numbers_of_rule_.corrections,
                                                count * sizeof(float), cudaMemcpyHostToDevice, stream_),
                                "copy Adam's corrections"));
  }
  return Check(cudaStreamSynchronize(stream_), "wait until it is made");
}

uint64_t CudaTable::bytes() const {
  uint64_t bytes = 0;
  for (const CudaMemory* memory : {&keys_, &stamps_, &reserved_, &rows_, &tally_, &corrections_, &evicted_}) {
    bytes += memory->bytes();
  }
  return bytes;
}

absl::Status CudaTable::Pull(const uint64_t* keys, uint64_t count, float* rows) const {
  return Check(StartPull(stream_, index_, start_, keys, count, rows), "pull");
}

absl::Status CudaTable::FindOrInsert(const uint64_t* keys, uint64_t count, uint32_t stamp, const uint32_t* bad_key,
                                     uint32_t* number_of) {
  return Check(
      StartFindOrInsert(stream_, index_, start_, keys, count, stamp, bad_key, number_of, tally_.as<CudaTableTally>()),
      "find or insert keys");
}

absl::Status CudaTable::MakeRoom(const uint64_t* keys, uint64_t count, uint32_t stamp, uint32_t* number_of) {
  return Check(StartMakeRoom(stream_, index_, start_, log_, keys, count, stamp, number_of, tally_.as<CudaTableTally>()),
               "evict for new keys");
}

absl::Status CudaTable::Apply(const uint64_t* keys, const uint32_t* number_of, uint64_t count, const float* gradients,
                              float learning_rate, const uint32_t* bad_key) {
  RowNumbers numbers = rule_.NumbersAt(learning_rate);
  numbers.corrections = corrections_.as<float>();
  const CudaRowPush push = {.count = count,
                            .row_of = number_of,
                            .keys = keys,
                            .gradients = gradients,
                            .bad_key = bad_key,
                            .rows = rows_.as<char>()};
  return Check(StartApplyRows(stream_, rule_, layout_, numbers, push), "apply gradients");
}

absl::Status CudaTable::EvictBefore(uint32_t stamp) {
  return Check(StartEvictBefore(stream_, index_, log_, stamp, tally_.as<CudaTableTally>()), "evict");
}

absl::Status CudaTable::CopyEvicted(uint64_t first, uint64_t end, std::vector<uint64_t>* keys) const {
  const size_t had = keys->size();
  keys->resize(had + (end - first));
  for (uint64_t number = first; number < end;) {
    const uint64_t at = number & (log_.size - 1);
    const uint64_t count = std::min(end - number, log_.size - at);
    BASIN_RETURN_IF_ERROR(Check(cudaMemcpyAsync(keys->data() + had + (number - first), log_.keys + at,
                                                count * sizeof(uint64_t), cudaMemcpyDeviceToHost, stream_),
                                "copy evicted keys"));
    number += count;
  }
  return Check(cudaStreamSynchronize(stream_), "wait for evicted keys");
}

absl::Status CudaTable::CopyTally(CudaTableTally* to) const {
  return Check(cudaMemcpyAsync(to, tally_.data(), sizeof(*to), cudaMemcpyDeviceToHost, stream_), "copy counters");
}

CudaTableCounters CudaTable::CountersOf(const CudaTableTally& tally) {
  return {.rows = tally.made - tally.evicted, .refused = tally.refused, .evicted = tally.evicted};
}

absl::StatusOr<CudaTableCounters> CudaTable::Counters() const {
  CudaTableTally tally = {};
  BASIN_RETURN_IF_ERROR(CopyTally(&tally));
  BASIN_RETURN_IF_ERROR(Check(cudaStreamSynchronize(stream_), "wait for counters"));
  return CountersOf(tally);
}

absl::Status CudaTable::Export(uint32_t first, uint32_t end, std::vector<uint64_t>* keys,
                               std::vector<char>* rows) const {
  uint32_t reserved[CudaKeyIndex::kReserved] = {};
  const auto copy = [this](void* to, const void* from, size_t bytes) {
    if (bytes == 0) return absl::OkStatus();
    return Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "copy rows to the host");
  };
  const auto each = static_cast<uint32_t>(std::max<size_t>(1, kExportBytes / layout_.stride));
  std::vector<uint64_t> found;
  std::vector<char> copied;
  for (uint32_t begin = first; begin < end;) {
    const uint32_t count = std::min(each, end - begin);
    // The reserved numbers have no key in memory.
    const uint32_t plain = begin < index_.numbers ? std::min(count, index_.numbers - begin) : 0;
    found.resize(count);
    copied.resize(size_t{count} * layout_.stride);
    BASIN_RETURN_IF_ERROR(copy(found.data(), index_.keys + begin, plain * sizeof(uint64_t)));
    BASIN_RETURN_IF_ERROR(copy(copied.data(), start_.rows + uint64_t{begin} * layout_.stride, copied.size()));
    BASIN_RETURN_IF_ERROR(copy(reserved, index_.reserved, sizeof(reserved)));
    BASIN_RETURN_IF_ERROR(Check(cudaStreamSynchronize(stream_), "wait for rows"));
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t number = begin + i;
      uint64_t key = 0;
      if (number < index_.numbers) {
        if (found[i] >= CudaKeyIndex::kGone) continue;
        key = found[i];
      } else {
        if (reserved[number - index_.numbers] == 0) continue;
        key = CudaKeyIndex::kGone + (number - index_.numbers);
      }
      keys->push_back(key);
      rows->resize(rows->size() + rule_.row_bytes());
      ToHostRow(layout_, rule_.row_bytes(), copied.data() + size_t{i} * layout_.stride,
                rows->data() + rows->size() - rule_.row_bytes());
    }
    begin += count;
  }
  return absl::OkStatus();
}

}  // namespace basin
