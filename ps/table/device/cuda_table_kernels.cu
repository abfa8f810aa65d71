#include <cstdint>

#include "common/base/key_hash.h"
#include "common/device/cuda_atomic.h"
#include "common/device/cuda_launch.h"
#include "common/rules/cuda_row_access.cuh"
#include "common/rules/initial_value.h"
#include "ps/table/device/cuda_table_kernels.h"

namespace basin {
namespace {

using row_storage::Bf16;
using row_storage::F16;
using row_storage::F32;

constexpr uint32_t kThreads = 256;
constexpr uint64_t kMostBlocks = 132 * 16;
constexpr uint32_t kBucket = CudaKeyIndex::kBucket;
static_assert(kBucket == kTile, "a tile's thread looks at one key of a bucket");

// A bucket is chosen by the lower bits of the hash: the upper ones are those of the ps and lanes.
__device__ uint32_t HomeOf(const CudaKeyIndex& index, uint64_t key) {
  const uint64_t low = static_cast<uint32_t>(KeyHash(key));
  return static_cast<uint32_t>(low * (index.numbers / kBucket) >> 32);
}
__device__ uint32_t Next(const CudaKeyIndex& index, uint32_t bucket) {
  return bucket + 1 < index.numbers / kBucket ? bucket + 1 : 0;
}
__device__ uint32_t WindowOf(const CudaKeyIndex& index) {
  const uint32_t buckets = index.numbers / kBucket;
  return buckets < CudaKeyIndex::kWindow ? buckets : CudaKeyIndex::kWindow;
}
__device__ bool IsReserved(uint64_t key) { return key >= CudaKeyIndex::kGone; }
__device__ uint32_t ReservedNumber(const CudaKeyIndex& index, uint64_t key) {
  return index.numbers + static_cast<uint32_t>(key - CudaKeyIndex::kGone);
}
__device__ uint64_t KeyAt(const CudaKeyIndex& index, uint32_t bucket, uint32_t lane) {
  return LoadRelaxed(index.keys + uint64_t{bucket} * kBucket + lane);  // other threads may insert meanwhile
}
// Which of the tile's threads say so, as the lower 16 bits.
__device__ uint32_t VoteOf(const Tile& tile, bool yes) {
  return __ballot_sync(tile.mask, yes) >> (__ffs(tile.mask) - 1);
}
__device__ uint32_t LowestOf(uint32_t votes) { return static_cast<uint32_t>(__ffs(votes)) - 1; }

// The number of the key's row, or kNoCudaRow. `first`: this thread's key of the home bucket, read ahead.
__device__ uint32_t Find(const CudaKeyIndex& index, const Tile& tile, uint64_t key, uint32_t home, uint64_t first) {
  if (IsReserved(key)) {
    const uint32_t number = ReservedNumber(index, key);
    return index.reserved[number - index.numbers] != 0 ? number : kNoCudaRow;
  }
  uint32_t bucket = home;
  uint64_t here = first;
  for (uint32_t left = WindowOf(index); left > 0; --left) {
    if (const uint32_t same = VoteOf(tile, here == key); same != 0) return bucket * kBucket + LowestOf(same);
    if (VoteOf(tile, here == CudaKeyIndex::kEmpty) != 0) return kNoCudaRow;
    bucket = Next(index, bucket);
    if (left > 1) here = KeyAt(index, bucket, tile.lane);
  }
  return kNoCudaRow;
}

struct Inserted {
  uint32_t number;
  bool made;
};

__device__ Inserted InsertReserved(const CudaKeyIndex& index, const Tile& tile, uint64_t key) {
  const uint32_t number = ReservedNumber(index, key);
  uint32_t before = 0;
  if (tile.lane == 0) before = atomicCAS(index.reserved + (number - index.numbers), 0u, 1u);
  return {number, __shfl_sync(tile.mask, before, 0, kTile) == 0};
}

__device__ Inserted FindOrInsertOne(const CudaKeyIndex& index, const Tile& tile, uint64_t key, uint32_t home,
                                    uint64_t first) {
  if (IsReserved(key)) return InsertReserved(index, tile, key);
  // Each further turn saw another thread take the number that this one wanted.
  for (bool again = false;; again = true) {
    uint32_t bucket = home, free_number = kNoCudaRow;
    uint64_t free_value = 0;
    for (uint32_t left = WindowOf(index); left > 0; --left) {
      const uint64_t here = bucket == home && !again ? first : KeyAt(index, bucket, tile.lane);
      if (const uint32_t same = VoteOf(tile, here == key); same != 0) {
        return {bucket * kBucket + LowestOf(same), false};
      }
      const uint32_t frees = VoteOf(tile, IsReserved(here));
      if (frees != 0 && free_number == kNoCudaRow) {
        free_number = bucket * kBucket + LowestOf(frees);
        free_value = __shfl_sync(tile.mask, here, static_cast<int>(LowestOf(frees)), kTile);
      }
      if (VoteOf(tile, here == CudaKeyIndex::kEmpty) != 0) break;
      bucket = Next(index, bucket);
    }
    if (free_number == kNoCudaRow) return {kNoCudaRow, false};
    uint64_t before = 0;
    if (tile.lane == 0) {
      before = atomicCAS(reinterpret_cast<unsigned long long*>(index.keys + free_number),
                         static_cast<unsigned long long>(free_value), static_cast<unsigned long long>(key));
    }
    before = __shfl_sync(tile.mask, before, 0, kTile);
    if (before == free_value) return {free_number, true};
    if (before == key) return {free_number, false};
  }
}

// Initial values of elements [first, first + kWidth), as the storage will have them.
template <int kWidth>
__device__ void InitialValues(const InitialRow& row, uint32_t first, float* values) {
#pragma unroll
  for (int i = 0; i < kWidth; i += 2) {
    const InitialPair pair = InitialValuesAt(row, (first + i) / 2);
    if constexpr (kWidth == 1) {
      values[0] = first % 2 == 0 ? pair.first : pair.second;
    } else {
      values[i] = pair.first;
      values[i + 1] = pair.second;
    }
  }
}

__device__ constexpr uint32_t ToNearest(uint32_t) { return 0x8000; }

// The tile's threads read the keys of rows to come while they work on one: the key two rows ahead, and its home bucket
// one row ahead, so that neither wait stands between two rows.
struct Ahead {
  uint64_t key, next_key;
  uint32_t home;
  uint64_t first;

  __device__ Ahead(const CudaKeyIndex& index, const Tile& tile, const uint64_t* keys, uint64_t count) {
    key = tile.first < count ? keys[tile.first] : 0;
    next_key = tile.first + tile.step < count ? keys[tile.first + tile.step] : 0;
    home = HomeOf(index, key);
    first = KeyAt(index, home, tile.lane);
  }
  // After the row i.
  __device__ void Move(const Tile& tile, const uint64_t* keys, uint64_t count, uint64_t i, uint32_t next_home,
                       uint64_t next_first) {
    key = next_key;
    home = next_home;
    first = next_first;
    const uint64_t later = i + 2 * tile.step;
    next_key = later < count ? keys[later] : 0;
  }
};

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kThreads)
    Pull(CudaKeyIndex index, CudaRowStart start, const uint64_t* __restrict__ keys, uint64_t count,
         float* __restrict__ rows) {
  const Tile tile = ThisTile();
  const uint32_t dim = start.layout.dim;
  Ahead ahead(index, tile, keys, count);
  for (uint64_t i = tile.first; i < count; i += tile.step) {
    const uint32_t next_home = HomeOf(index, ahead.next_key);
    const uint64_t next_first = KeyAt(index, next_home, tile.lane);
    const uint32_t number = Find(index, tile, ahead.key, ahead.home, ahead.first);
    const char* row = start.rows + uint64_t{number} * start.layout.stride;
    float* out = rows + i * dim;
    if (number != kNoCudaRow) {
      for (uint32_t at = tile.lane * kWidth; at < dim; at += kTile * kWidth) {
        float values[kWidth];
        LoadValues<Storage, kWidth>(row, at, values);
        StoreFloats<kWidth>(out + at, values);
      }
    } else {
      const InitialRow initial = InitialRowOf(start.init, ahead.key);
      for (uint32_t at = tile.lane * kWidth; at < dim; at += kTile * kWidth) {
        float values[kWidth];
        InitialValues<kWidth>(initial, at, values);
        if constexpr (Storage::kBytes == 2) {
#pragma unroll
          for (int k = 0; k < kWidth; ++k) values[k] = Storage::FromStored(Storage::ToStored(values[k], 0x8000));
        }
        StoreFloats<kWidth>(out + at, values);
      }
    }
    ahead.Move(tile, keys, count, i, next_home, next_first);
  }
}

template <class Storage, int kWidth>
__device__ void StartRow(const CudaRowStart& start, const Tile& tile, uint64_t key, uint32_t number) {
  const CudaRowLayout& layout = start.layout;
  char* row = start.rows + uint64_t{number} * layout.stride;
  const InitialRow initial = InitialRowOf(start.init, key);
  for (uint32_t at = tile.lane * kWidth; at < layout.dim; at += kTile * kWidth) {
    float values[kWidth];
    InitialValues<kWidth>(initial, at, values);
    StoreValues<Storage, kWidth>(row, at, values, ToNearest);
  }
  for (uint32_t slot = 0; slot < layout.slots; ++slot) {
    auto* to = reinterpret_cast<float*>(row + layout.slots_offset + slot * layout.slot_bytes);
    for (uint32_t at = tile.lane; at < layout.slot_floats; at += kTile) to[at] = start.slots[slot];
  }
  if (tile.lane == 0 && layout.steps_offset < layout.stride) {
    *reinterpret_cast<uint32_t*>(row + layout.steps_offset) = 0;
  }
}

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kThreads)
    FindOrInsert(CudaKeyIndex index, CudaRowStart start, const uint64_t* __restrict__ keys, uint64_t count,
                 uint32_t stamp, const uint32_t* bad_key, uint32_t* __restrict__ number_of, CudaTableTally* tally) {
  __shared__ uint32_t made, refused;  // of the block: one sum a block is added to the tally
  if (bad_key != nullptr && *bad_key != kNoBadKey) return;
  if (threadIdx.x == 0) made = refused = 0;
  __syncthreads();
  const Tile tile = ThisTile();
  Ahead ahead(index, tile, keys, count);
  for (uint64_t i = tile.first; i < count; i += tile.step) {
    const uint32_t next_home = HomeOf(index, ahead.next_key);
    const uint64_t next_first = KeyAt(index, next_home, tile.lane);
    const Inserted row = FindOrInsertOne(index, tile, ahead.key, ahead.home, ahead.first);
    if (row.made) StartRow<Storage, kWidth>(start, tile, ahead.key, row.number);
    if (tile.lane == 0) {
      number_of[i] = row.number;
      if (row.number != kNoCudaRow) StoreRelaxed(&index.stamps[row.number], stamp);  // a key may stand twice
      if (row.made) atomicAdd(&made, 1u);
      if (row.number == kNoCudaRow) atomicAdd(&refused, 1u);
    }
    ahead.Move(tile, keys, count, i, next_home, next_first);
  }
  __syncthreads();
  if (threadIdx.x == 0 && made > 0) atomicAdd(&tally->made, static_cast<unsigned long long>(made));
  if (threadIdx.x == 0 && refused > 0) atomicAdd(&tally->refused, static_cast<unsigned long long>(refused));
}

// Numbers for `count` evicted keys, from the result on.
__device__ uint64_t CountEvicted(CudaTableTally* tally, uint32_t count) {
  return atomicAdd(&tally->evicted, static_cast<unsigned long long>(count));
}
__device__ void Note(const CudaEvictedLog& log, uint64_t number, uint64_t key) {
  log.keys[number & (log.size - 1)] = key;
}

// While others may claim it.
__device__ uint32_t StampAt(const CudaKeyIndex& index, uint32_t number) {
#ifdef __CUDACC__
  return *static_cast<const volatile uint32_t*>(index.stamps + number);
#else
  return __atomic_load_n(index.stamps + number, __ATOMIC_RELAXED);
#endif
}

// The number in the home bucket's window whose row was pushed longest ago, if that was before `stamp`, and when; or
// kNoCudaRow. REQUIRES: no number in the window is free.
struct Oldest {
  uint32_t number, stamp;
};
__device__ Oldest OldestInWindow(const CudaKeyIndex& index, const Tile& tile, uint32_t home, uint32_t stamp) {
  Oldest oldest = {kNoCudaRow, stamp};
  uint32_t bucket = home;
  for (uint32_t left = WindowOf(index); left > 0; --left) {
    const uint32_t number = bucket * kBucket + tile.lane;
    const uint32_t pushed = StampAt(index, number);
    if (pushed < oldest.stamp) oldest = {number, pushed};
    bucket = Next(index, bucket);
  }
  for (int width = kTile / 2; width >= 1; width /= 2) {
    const uint32_t other_number = __shfl_xor_sync(tile.mask, oldest.number, width, kTile);
    const uint32_t other_stamp = __shfl_xor_sync(tile.mask, oldest.stamp, width, kTile);
    if (other_stamp < oldest.stamp || (other_stamp == oldest.stamp && other_number < oldest.number)) {
      oldest = {other_number, other_stamp};
    }
  }
  return oldest;
}

// The key takes over the number of the oldest row in its way. A number is claimed by its stamp, which then is too young
// for others; so its key and row are this tile's alone.
__device__ uint32_t TakeOldest(const CudaKeyIndex& index, const CudaEvictedLog& log, const Tile& tile, uint64_t key,
                               uint32_t stamp, CudaTableTally* tally) {
  const uint32_t home = HomeOf(index, key);
  // Each further turn saw another thread claim the number that this one wanted.
  while (true) {
    const Oldest oldest = OldestInWindow(index, tile, home, stamp);
    if (oldest.number == kNoCudaRow) return kNoCudaRow;
    uint32_t before = 0;
    if (tile.lane == 0) {
      before = atomicCAS(index.stamps + oldest.number, oldest.stamp, stamp);
      if (before == oldest.stamp) {
        Note(log, CountEvicted(tally, 1), index.keys[oldest.number]);
        index.keys[oldest.number] = key;  // nobody looks at keys meanwhile
      }
    }
    if (__shfl_sync(tile.mask, before, 0, kTile) == oldest.stamp) return oldest.number;
  }
}

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kThreads)
    MakeRoom(CudaKeyIndex index, CudaRowStart start, CudaEvictedLog log, const uint64_t* __restrict__ keys,
             uint64_t count, uint32_t stamp, uint32_t* __restrict__ number_of, CudaTableTally* tally) {
  __shared__ uint32_t made;
  if (threadIdx.x == 0) made = 0;
  __syncthreads();
  const Tile tile = ThisTile();
  for (uint64_t i = tile.first; i < count; i += tile.step) {
    const uint32_t had = number_of[i];
    __syncwarp(tile.mask);  // all have read it
    if (had != kNoCudaRow) continue;
    const uint64_t key = keys[i];
    const uint32_t number = TakeOldest(index, log, tile, key, stamp, tally);
    if (number == kNoCudaRow) continue;
    StartRow<Storage, kWidth>(start, tile, key, number);
    if (tile.lane == 0) {
      number_of[i] = number;
      atomicAdd(&made, 1u);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0 && made > 0) {
    const unsigned long long moved = made;
    atomicAdd(&tally->made, moved);
    atomicAdd(&tally->refused, ~moved + 1);  // modulo 2^64: they were counted, and are taken away again
  }
}

__global__ void __launch_bounds__(kThreads)
    EvictBefore(CudaKeyIndex index, CudaEvictedLog log, uint32_t stamp, CudaTableTally* tally) {
  const Tile tile = ThisTile();
  for (uint64_t bucket = tile.first; bucket < index.numbers / kBucket; bucket += tile.step) {
    const uint64_t number = bucket * kBucket + tile.lane;
    const uint64_t key = index.keys[number];
    const bool old = !IsReserved(key) && index.stamps[number] < stamp;
    // No search went on from a bucket with a number that never was taken, so in it the others may look so again.
    const bool never_full = VoteOf(tile, key == CudaKeyIndex::kEmpty) != 0;
    const uint32_t olds = VoteOf(tile, old);
    if (olds == 0) continue;
    uint64_t first = 0;
    if (tile.lane == 0) first = CountEvicted(tally, static_cast<uint32_t>(__popc(olds)));
    first = __shfl_sync(tile.mask, first, 0, kTile);
    if (old) {
      index.keys[number] = never_full ? CudaKeyIndex::kEmpty : CudaKeyIndex::kGone;
      Note(log, first + static_cast<uint32_t>(__popc(olds & ((1u << tile.lane) - 1))), key);
    }
  }
  const uint64_t thread = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (thread < CudaKeyIndex::kReserved && index.reserved[thread] != 0 && index.stamps[index.numbers + thread] < stamp) {
    index.reserved[thread] = 0;
    Note(log, CountEvicted(tally, 1), CudaKeyIndex::kGone + thread);
  }
}

unsigned BlocksFor(uint64_t tiles) {
  const uint64_t blocks = (tiles * kTile + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

template <class StorageType, int kElements>
struct RowKind {
  using Storage = StorageType;
  static constexpr int kWidth = kElements;
};

// choose(RowKind), for a table's storage and width.
template <class Choose>
auto ForRows(const CudaRowStart& start, Choose choose) {
  const bool vectors = start.layout.vectors;
  if (start.storage == DType::kF32) {
    return vectors ? choose(RowKind<F32, 4>()) : choose(RowKind<F32, 1>());
  }
  if (start.storage == DType::kF16) {
    return vectors ? choose(RowKind<F16, 4>()) : choose(RowKind<F16, 1>());
  }
  return vectors ? choose(RowKind<Bf16, 4>()) : choose(RowKind<Bf16, 1>());
}

}  // namespace

cudaError_t StartPull(cudaStream_t stream, const CudaKeyIndex& index, const CudaRowStart& start, const uint64_t* keys,
                      uint64_t count, float* rows) {
  if (count == 0) return cudaSuccess;
  const auto kernel =
      ForRows(start, [](auto kind) { return &Pull<typename decltype(kind)::Storage, decltype(kind)::kWidth>; });
  return Launch(kernel, BlocksFor(count), kThreads, stream, index, start, keys, count, rows);
}

cudaError_t StartFindOrInsert(cudaStream_t stream, const CudaKeyIndex& index, const CudaRowStart& start,
                              const uint64_t* keys, uint64_t count, uint32_t stamp, const uint32_t* bad_key,
                              uint32_t* number_of, CudaTableTally* tally) {
  if (count == 0) return cudaSuccess;
  const auto kernel =
      ForRows(start, [](auto kind) { return &FindOrInsert<typename decltype(kind)::Storage, decltype(kind)::kWidth>; });
  return Launch(kernel, BlocksFor(count), kThreads, stream, index, start, keys, count, stamp, bad_key, number_of,
                tally);
}

cudaError_t StartMakeRoom(cudaStream_t stream, const CudaKeyIndex& index, const CudaRowStart& start,
                          const CudaEvictedLog& log, const uint64_t* keys, uint64_t count, uint32_t stamp,
                          uint32_t* number_of, CudaTableTally* tally) {
  if (count == 0) return cudaSuccess;
  const auto kernel =
      ForRows(start, [](auto kind) { return &MakeRoom<typename decltype(kind)::Storage, decltype(kind)::kWidth>; });
  return Launch(kernel, BlocksFor(count), kThreads, stream, index, start, log, keys, count, stamp, number_of, tally);
}

cudaError_t StartEvictBefore(cudaStream_t stream, const CudaKeyIndex& index, const CudaEvictedLog& log, uint32_t stamp,
                             CudaTableTally* tally) {
  return Launch(EvictBefore, BlocksFor(index.numbers / kBucket), kThreads, stream, index, log, stamp, tally);
}

}  // namespace basin
