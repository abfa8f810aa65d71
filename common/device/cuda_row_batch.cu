#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <cub/cub.cuh>

#include "common/base/key_hash.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_launch.h"
#include "common/device/cuda_row_batch.h"
#include "common/device/cuda_row_sums.h"
#include "common/device/cuda_status.h"

namespace basin {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint64_t kMostBlocks = 132 * 16;

// What Fill waits for; where buckets begin follows it.
struct Tally {
  uint32_t keys;
  uint32_t often;  // keys that stand more than a piece
  uint32_t mixed;  // not 0: two keys have the same sorted bits, so that their places may alternate
  uint32_t unused;
};
constexpr uint32_t kMostBucketBits = 16;
constexpr size_t TallyBytes(uint32_t bucket_bits) {
  return sizeof(Tally) + ((size_t{1} << bucket_bits) + 1) * sizeof(uint32_t);
}

unsigned BlocksFor(uint64_t count) {
  const uint64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}
__device__ uint64_t FirstIndex() { return uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ uint64_t IndexStep() { return uint64_t{gridDim.x} * blockDim.x; }

__global__ void HashKeys(uint64_t count, const uint64_t* __restrict__ keys, uint64_t* __restrict__ hashes,
                         uint32_t* __restrict__ places) {
  for (uint64_t i = FirstIndex(); i < count; i += IndexStep()) {
    hashes[i] = KeyHash(keys[i]);
    places[i] = static_cast<uint32_t>(i);
  }
}

__global__ void FindBags(uint64_t count, const uint64_t* __restrict__ offsets, uint64_t bags,
                         uint32_t* __restrict__ bag_of_place) {
  for (uint64_t i = FirstIndex(); i < count; i += IndexStep()) {
    uint64_t low = 0, high = bags;  // the last bag that begins at or before i
    while (high - low > 1) {
      const uint64_t middle = low + (high - low) / 2;
      if (offsets[middle] <= i) {
        low = middle;
      } else {
        high = middle;
      }
    }
    bag_of_place[i] = static_cast<uint32_t>(low);
  }
}

// The hash of 8 bytes is a permutation of them, so equal hashes are equal keys. 1 where another key begins, but at the
// very first: their running sum is the number of the key.
__global__ void MarkKeys(uint64_t count, const uint64_t* __restrict__ hashes, uint32_t first_bit,
                         uint32_t* __restrict__ begins, Tally* tally) {
  for (uint64_t i = FirstIndex(); i < count; i += IndexStep()) {
    const bool another = i > 0 && hashes[i] != hashes[i - 1];
    begins[i] = another ? 1 : 0;
    if (another && hashes[i] >> first_bit == hashes[i - 1] >> first_bit) atomicMax(&tally->mixed, 1u);
  }
}

__global__ void NameKeys(uint64_t count, const uint64_t* __restrict__ keys, const uint64_t* __restrict__ hashes,
                         const uint32_t* __restrict__ places, const uint32_t* __restrict__ key_of_sorted,
                         uint32_t piece, uint64_t* __restrict__ unique, uint32_t* __restrict__ begin,
                         uint32_t* __restrict__ key_of_place, Tally* tally) {
  for (uint64_t i = FirstIndex(); i < count; i += IndexStep()) {
    const uint32_t key = key_of_sorted[i], place = places[i];
    key_of_place[place] = key;
    if (i == 0 || hashes[i] != hashes[i - 1]) {
      unique[key] = keys[place];
      begin[key] = static_cast<uint32_t>(i);
      if (i + piece < count && hashes[i + piece] == hashes[i]) atomicAdd(&tally->often, 1u);
    }
    if (i + 1 == count) {
      begin[key + 1] = static_cast<uint32_t>(count);
      tally->keys = key + 1;
    }
  }
}

__global__ void FindBuckets(uint64_t count, const uint64_t* __restrict__ hashes,
                            const uint32_t* __restrict__ key_of_sorted, uint32_t bits, uint32_t* __restrict__ begin) {
  const uint32_t buckets = 1u << bits;
  for (uint64_t bucket = FirstIndex(); bucket <= buckets; bucket += IndexStep()) {
    uint64_t low = 0, high = count;  // the first place of this bucket or a later one
    while (low < high) {
      const uint64_t middle = low + (high - low) / 2;
      if (hashes[middle] >> (64 - bits) < bucket) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    begin[bucket] = low < count ? key_of_sorted[low] : key_of_sorted[count - 1] + 1;
  }
}

// Leading bits of the hash that are sorted, 8 a pass: as many as the buckets take, and so many more that of 256 batches
// hardly one has two keys that agree in them.
uint32_t SortedBits(uint64_t count, uint32_t bucket_bits) {
  uint32_t bits = 2 * static_cast<uint32_t>(std::bit_width(count)) + 7;
  if (bits < bucket_bits) bits = bucket_bits;
  bits = (bits + 7) / 8 * 8;
  return bits < 64 ? bits : 64;
}

CudaSortedRows Sorted(const CudaRowBatch& batch, const CudaRowBags& bags, const CudaMemory& begin,
                      const CudaMemory& key_of_sorted, const CudaMemory& sorted_places,
                      const CudaMemory& bag_of_place) {
  return {.places = batch.places(),
          .keys = batch.key_count(),
          .piece = CudaRowBatch::kPiece,
          .begin = begin.as<uint32_t>(),
          .key_of_sorted = key_of_sorted.as<uint32_t>(),
          .sorted_places = sorted_places.as<uint32_t>(),
          .key_of_place = batch.key_of_place(),
          .bag_of_place = bags.offsets != nullptr ? bag_of_place.as<uint32_t>() : nullptr,
          .offsets = bags.offsets,
          .bags = bags.bags,
          .mean = bags.mean};
}

}  // namespace

CudaRowBatch::~CudaRowBatch() {
  if (host_tally_ != nullptr) static_cast<void>(cudaFreeHost(host_tally_));
}

absl::Status CudaRowBatch::Check(cudaError_t error, const char* what) const { return CudaStatus(error, device_, what); }

absl::Status CudaRowBatch::Reserve(uint64_t count, bool bagged, uint32_t dim) {
  for (CudaMemory* memory : {&hashes_, &sorted_hashes_, &unique_}) {
    BASIN_RETURN_IF_ERROR(memory->Resize(device_, count * sizeof(uint64_t)));
  }
  for (CudaMemory* memory : {&batch_places_, &sorted_places_, &key_of_sorted_, &key_of_place_}) {
    BASIN_RETURN_IF_ERROR(memory->Resize(device_, count * sizeof(uint32_t)));
  }
  BASIN_RETURN_IF_ERROR(begin_.Resize(device_, (count + 1) * sizeof(uint32_t)));
  if (bagged) BASIN_RETURN_IF_ERROR(bag_of_place_.Resize(device_, count * sizeof(uint32_t)));
  if (count > kPiece && dim > 0) {
    const CudaSortedRows batch{.places = count, .piece = kPiece};
    BASIN_RETURN_IF_ERROR(partials_.Resize(device_, PartialRows(batch) * dim * sizeof(float)));
  }
  size_t sort = 0, sum = 0;
  BASIN_RETURN_IF_ERROR(
      Check(cub::DeviceRadixSort::SortPairs(nullptr, sort, hashes_.as<uint64_t>(), sorted_hashes_.as<uint64_t>(),
                                            batch_places_.as<uint32_t>(), sorted_places_.as<uint32_t>(),
                                            static_cast<int>(count), 0, 64, stream_),
            "size of a sort"));
  BASIN_RETURN_IF_ERROR(
      Check(cub::DeviceScan::InclusiveSum(nullptr, sum, key_of_sorted_.as<uint32_t>(), key_of_sorted_.as<uint32_t>(),
                                          static_cast<int>(count), stream_),
            "size of a running sum"));
  BASIN_RETURN_IF_ERROR(scratch_.Resize(device_, std::max(sort, sum)));
  // Of the largest, since to free the host's later the driver waits for all streams, as for the device's.
  constexpr size_t kTallyBytes = TallyBytes(kMostBucketBits);
  BASIN_RETURN_IF_ERROR(tally_.Resize(device_, kTallyBytes));
  if (host_tally_ != nullptr) return absl::OkStatus();
  return Check(cudaHostAlloc(&host_tally_, kTallyBytes, cudaHostAllocDefault), "pin memory");
}

absl::Status CudaRowBatch::Sort(const uint64_t* keys, uint32_t first_bit) {
  const uint64_t* hashes = sorted_hashes_.as<uint64_t>();
  const uint32_t* places = sorted_places_.as<uint32_t>();
  uint32_t* key_of_sorted = key_of_sorted_.as<uint32_t>();
  Tally* tally = tally_.as<Tally>();
  const unsigned blocks = BlocksFor(places_);
  BASIN_RETURN_IF_ERROR(Check(cudaMemsetAsync(tally, 0, sizeof(Tally), stream_), "clear a tally"));
  BASIN_RETURN_IF_ERROR(Check(
      Launch(HashKeys, blocks, kThreads, stream_, places_, keys, hashes_.as<uint64_t>(), batch_places_.as<uint32_t>()),
      "hash keys"));
  size_t scratch = scratch_.bytes();
  BASIN_RETURN_IF_ERROR(Check(
      cub::DeviceRadixSort::SortPairs(scratch_.data(), scratch, hashes_.as<uint64_t>(), sorted_hashes_.as<uint64_t>(),
                                      batch_places_.as<uint32_t>(), sorted_places_.as<uint32_t>(),
                                      static_cast<int>(places_), static_cast<int>(first_bit), 64, stream_),
      "sort keys"));
  BASIN_RETURN_IF_ERROR(Check(
      Launch(MarkKeys, blocks, kThreads, stream_, places_, hashes, first_bit, key_of_sorted, tally), "mark keys"));
  scratch = scratch_.bytes();
  BASIN_RETURN_IF_ERROR(Check(cub::DeviceScan::InclusiveSum(scratch_.data(), scratch, key_of_sorted, key_of_sorted,
                                                            static_cast<int>(places_), stream_),
                              "number keys"));
  BASIN_RETURN_IF_ERROR(Check(Launch(NameKeys, blocks, kThreads, stream_, places_, keys, hashes, places,
                                     static_cast<const uint32_t*>(key_of_sorted), kPiece, unique_.as<uint64_t>(),
                                     begin_.as<uint32_t>(), key_of_place_.as<uint32_t>(), tally),
                              "name keys"));
  BASIN_RETURN_IF_ERROR(
      Check(Launch(FindBuckets, BlocksFor((uint64_t{1} << bucket_bits_) + 1), kThreads, stream_, places_, hashes,
                   static_cast<const uint32_t*>(key_of_sorted), bucket_bits_, reinterpret_cast<uint32_t*>(tally + 1)),
            "find buckets"));
  return Check(cudaMemcpyAsync(host_tally_, tally, TallyBytes(bucket_bits_), cudaMemcpyDeviceToHost, stream_),
               "copy a tally");
}

absl::Status CudaRowBatch::StartFill(const uint64_t* keys, uint64_t count, uint32_t bucket_bits,
                                     const CudaRowBags& bags, bool whole_hashes) {
  BASIN_CHECK(count <= kMaxKeys && bucket_bits >= 8 && bucket_bits <= kMostBucketBits);
  places_ = 0;
  key_count_ = often_ = 0;
  bags_ = bags;
  bucket_bits_ = bucket_bits;
  BASIN_RETURN_IF_ERROR(Reserve(count, bags.offsets != nullptr, 0));
  Tally* const tally = static_cast<Tally*>(host_tally_);
  host_buckets_ = reinterpret_cast<const uint32_t*>(tally + 1);
  if (count == 0) {
    std::memset(host_tally_, 0, TallyBytes(bucket_bits));
    return absl::OkStatus();
  }
  places_ = count;
  absl::Status started;
  if (bags.offsets != nullptr) {
    started = Check(Launch(FindBags, BlocksFor(count), kThreads, stream_, count, bags.offsets, bags.bags,
                           bag_of_place_.as<uint32_t>()),
                    "find bags");
  }
  if (started.ok()) started = Sort(keys, whole_hashes ? 0 : 64 - SortedBits(count, bucket_bits));
  if (!started.ok()) places_ = 0;
  return started;
}

bool CudaRowBatch::FinishFill() {
  const Tally* const tally = static_cast<const Tally*>(host_tally_);
  key_count_ = tally->keys;
  often_ = tally->often;
  // Of whole hashes none agree.
  return tally->mixed == 0;
}

const uint32_t* CudaRowBatch::bucket_begin_there() const {
  return reinterpret_cast<const uint32_t*>(tally_.as<Tally>() + 1);
}

absl::Status CudaRowBatch::Fill(const uint64_t* keys, uint64_t count, uint32_t bucket_bits, const CudaRowBags& bags) {
  absl::Status filled;
  for (bool whole_hashes = false, done = false; filled.ok() && !done; whole_hashes = true) {
    filled = StartFill(keys, count, bucket_bits, bags, whole_hashes);
    if (filled.ok() && count > 0) filled = Check(cudaStreamSynchronize(stream_), "wait for sorted keys");
    done = filled.ok() && FinishFill();
  }
  if (!filled.ok()) places_ = 0;
  return filled;
}

absl::Status CudaRowBatch::SumGradients(const float* gradients, uint32_t dim, float* sums, uint32_t* not_finite) {
  static_assert(kNoKey == 0xffffffffu, "is set byte by byte");
  BASIN_RETURN_IF_ERROR(Check(cudaMemsetAsync(not_finite, 0xff, sizeof(*not_finite), stream_), "clear a finding"));
  if (places_ == 0) return absl::OkStatus();
  const CudaSortedRows batch = Sorted(*this, bags_, begin_, key_of_sorted_, sorted_places_, bag_of_place_);
  if (often_ > 0) BASIN_RETURN_IF_ERROR(partials_.Resize(device_, PartialRows(batch) * dim * sizeof(float)));
  return Check(
      StartSumRows(stream_, batch, gradients, dim, often_ > 0 ? partials_.as<float>() : nullptr, sums, not_finite),
      "sum gradients");
}

absl::Status CudaRowBatch::Scatter(const float* rows, uint32_t dim, float* places) {
  if (places_ == 0) return absl::OkStatus();
  const CudaSortedRows batch = Sorted(*this, bags_, begin_, key_of_sorted_, sorted_places_, bag_of_place_);
  return Check(StartScatterRows(stream_, batch, rows, dim, places), "scatter rows");
}

absl::Status CudaRowBatch::Pool(const float* rows, uint32_t dim, float* pooled) {
  BASIN_CHECK(bags_.offsets != nullptr);
  if (bags_.bags == 0) return absl::OkStatus();
  const CudaSortedRows batch = Sorted(*this, bags_, begin_, key_of_sorted_, sorted_places_, bag_of_place_);
  return Check(StartPoolRows(stream_, batch, rows, dim, pooled), "pool rows");
}

size_t CudaRowBatch::memory_bytes() const {
  size_t bytes = 0;
  for (const CudaMemory* memory : {&hashes_, &sorted_hashes_, &batch_places_, &sorted_places_, &key_of_sorted_,
                                   &key_of_place_, &bag_of_place_, &unique_, &begin_, &tally_, &partials_, &scratch_}) {
    bytes += memory->bytes();
  }
  return bytes;
}

}  // namespace basin
