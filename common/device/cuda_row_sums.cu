#include <cstdint>

#include "common/device/cuda_launch.h"
#include "common/device/cuda_row_sums.h"

namespace basin {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint64_t kMostBlocks = 132 * 32;
// A key's pieces are added in so many spans at once, by so many columns.
constexpr uint32_t kSpans = 16, kSpanColumns = kThreads / kSpans;

// kWidth neighbouring columns of a row: one access to memory.
template <int kWidth>
struct Columns {
  float value[kWidth];
};
template <int kWidth>
__device__ Columns<kWidth> LoadColumns(const float* at) {
  if constexpr (kWidth == 4) {
    const float4 loaded = *reinterpret_cast<const float4*>(at);
    return {{loaded.x, loaded.y, loaded.z, loaded.w}};
  } else {
    return {{*at}};
  }
}
template <int kWidth>
__device__ void StoreColumns(float* at, const Columns<kWidth>& columns) {
  if constexpr (kWidth == 4) {
    const float* v = columns.value;
    __stwb(reinterpret_cast<float4*>(at), {v[0], v[1], v[2], v[3]});  // an assignment may become four stores
  } else {
    *at = columns.value[0];
  }
}
template <int kWidth>
__device__ void Add(const Columns<kWidth>& more, Columns<kWidth>* sum) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum->value[i] += more.value[i];
}
template <int kWidth>
__device__ void Scale(float scale, Columns<kWidth>* columns) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) columns->value[i] *= scale;
}

// A group of `lanes` neighbouring threads of a warp has one row at a time, and takes its columns in turn.
struct Group {
  uint32_t lanes;
  uint64_t first, step;  // rows that it has
  uint32_t lane;
};
__device__ Group GroupOf(uint32_t lanes) {
  const uint64_t thread = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int shift = __ffs(static_cast<int>(lanes)) - 1;  // they are a power of two
  return {lanes, thread >> shift, uint64_t{gridDim.x} * blockDim.x >> shift,
          static_cast<uint32_t>(thread) & (lanes - 1)};
}

// Adds the gradients of kPlaces places from `at` on, in sorted order. Their loads are under way at once: what is added
// to what comes behind them all.
template <int kPlaces, int kWidth>
__device__ void AddPlaces(const CudaSortedRows& batch, const float* gradients, uint32_t dim, uint64_t at,
                          uint32_t column, Columns<kWidth>* sum) {
  uint64_t rows[kPlaces];
  Columns<kWidth> columns[kPlaces];
#pragma unroll
  for (int i = 0; i < kPlaces; ++i) rows[i] = batch.sorted_places[at + i];
  if (batch.bag_of_place != nullptr) {
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) rows[i] = batch.bag_of_place[rows[i]];
  }
#pragma unroll
  for (int i = 0; i < kPlaces; ++i) columns[i] = LoadColumns<kWidth>(gradients + rows[i] * dim + column);
  if (batch.bag_of_place != nullptr && batch.mean) {
    for (int i = 0; i < kPlaces; ++i) {
      Scale(1.0f / static_cast<float>(batch.offsets[rows[i] + 1] - batch.offsets[rows[i]]), &columns[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPlaces; ++i) Add(columns[i], sum);
}

// In the order of the batch. The first is added to -0, which leaves it as it is.
template <int kWidth>
__device__ Columns<kWidth> SumPlaces(const CudaSortedRows& batch, const float* gradients, uint32_t dim, uint64_t begin,
                                     uint64_t end, uint32_t column) {
  Columns<kWidth> sum;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum.value[i] = -0.0f;
  uint64_t at = begin;
  for (; at + 4 <= end; at += 4) AddPlaces<4>(batch, gradients, dim, at, column, &sum);
  for (; at < end; ++at) AddPlaces<1>(batch, gradients, dim, at, column, &sum);
  return sum;
}

template <int kWidth>
__device__ void NoteNotFinite(const Columns<kWidth>& sum, uint32_t key, uint32_t* not_finite) {
  bool finite = true;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) finite = finite && isfinite(sum.value[i]);
  if (!finite) atomicMin(not_finite, key);
}

// A group a key, but for those that stand more often than a piece has places.
template <int kWidth>
__global__ void __launch_bounds__(kThreads, 4)
    SumKeys(CudaSortedRows batch, const float* __restrict__ gradients, uint32_t dim, uint32_t lanes,
            float* __restrict__ sums, uint32_t* not_finite) {
  const Group group = GroupOf(lanes);
  for (uint64_t key = group.first; key < batch.keys; key += group.step) {
    const uint64_t begin = batch.begin[key], end = batch.begin[key + 1];
    if (end - begin > batch.piece) continue;
    for (uint32_t column = group.lane * kWidth; column < dim; column += group.lanes * kWidth) {
      const Columns<kWidth> sum = SumPlaces<kWidth>(batch, gradients, dim, begin, end, column);
      NoteNotFinite(sum, static_cast<uint32_t>(key), not_finite);
      StoreColumns(sums + key * dim + column, sum);
    }
  }
}

// Pieces begin at the first place of their key and every `piece` places from there. Of all that begin within places
// [t * piece, (t + 1) * piece), at most one is the first of its key, and at most one is not: the sum of the former is
// partial row 2 t + 1, that of the latter 2 t.
struct Piece {
  uint32_t key;
  uint64_t begin, end;  // empty: there is none
};
__device__ Piece PieceOf(const CudaSortedRows& batch, uint64_t partial) {
  const uint64_t tile = partial / 2 * batch.piece;
  const bool first = partial % 2 == 1;
  const uint64_t last = tile + batch.piece < batch.places ? tile + batch.piece - 1 : batch.places - 1;
  const uint32_t key = batch.key_of_sorted[first ? last : tile];
  const uint64_t begin = batch.begin[key], end = batch.begin[key + 1];
  if (end - begin <= batch.piece) return {key, 0, 0};
  if (first) return begin < tile ? Piece{key, 0, 0} : Piece{key, begin, begin + batch.piece};
  const uint64_t at = begin + (tile - begin + batch.piece - 1) / batch.piece * batch.piece;
  if (at == begin || at >= end) return {key, 0, 0};
  return {key, at, at + batch.piece < end ? at + batch.piece : end};
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads, 4)
    SumPieces(CudaSortedRows batch, const float* __restrict__ gradients, uint32_t dim, uint32_t lanes,
              uint64_t partial_rows, float* __restrict__ partials) {
  const Group group = GroupOf(lanes);
  for (uint64_t partial = group.first; partial < partial_rows; partial += group.step) {
    const Piece piece = PieceOf(batch, partial);
    if (piece.begin == piece.end) continue;
    for (uint32_t column = group.lane * kWidth; column < dim; column += group.lanes * kWidth) {
      StoreColumns(partials + partial * dim + column,
                   SumPlaces<kWidth>(batch, gradients, dim, piece.begin, piece.end, column));
    }
  }
}

// A block a key that has pieces: each span of them is added in order, then the spans are.
__global__ void __launch_bounds__(kThreads) AddPieces(CudaSortedRows batch, const float* __restrict__ partials,
                                                      uint32_t dim, float* __restrict__ sums, uint32_t* not_finite) {
  __shared__ float of_span[kSpans][kSpanColumns];
  const uint32_t span = threadIdx.x / kSpanColumns, lane = threadIdx.x % kSpanColumns;
  const uint64_t tiles = (batch.places + batch.piece - 1) / batch.piece;
  for (uint64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Piece first = PieceOf(batch, 2 * tile + 1);
    if (first.begin == first.end) continue;  // the same for the whole block
    const uint64_t pieces = (batch.begin[first.key + 1] - first.begin + batch.piece - 1) / batch.piece;
    const uint64_t each = (pieces + kSpans - 1) / kSpans;
    const uint64_t begin = span * each, end = begin + each < pieces ? begin + each : pieces;
    for (uint32_t from = 0; from < dim; from += kSpanColumns) {
      const uint32_t column = from + lane;
      if (column < dim && begin < end) {
        float sum = partials[(2 * (tile + begin) + (begin == 0 ? 1 : 0)) * dim + column];
        for (uint64_t i = begin + 1; i < end; ++i) sum += partials[2 * (tile + i) * dim + column];
        of_span[span][lane] = sum;
      }
      __syncthreads();
      if (span == 0 && column < dim) {
        float sum = of_span[0][lane];
        for (uint64_t i = 1; i < kSpans && i * each < pieces; ++i) sum += of_span[i][lane];
        sums[uint64_t{first.key} * dim + column] = sum;
        if (!isfinite(sum)) atomicMin(not_finite, first.key);
      }
      __syncthreads();
    }
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads) ScatterRows(CudaSortedRows batch, const float* __restrict__ rows,
                                                        uint32_t dim, uint32_t lanes, float* __restrict__ places) {
  const Group group = GroupOf(lanes);
  for (uint64_t place = group.first; place < batch.places; place += group.step) {
    const float* from = rows + uint64_t{batch.key_of_place[place]} * dim;
    for (uint32_t column = group.lane * kWidth; column < dim; column += group.lanes * kWidth) {
      StoreColumns(places + place * dim + column, LoadColumns<kWidth>(from + column));
    }
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads) PoolRows(CudaSortedRows batch, const float* __restrict__ rows, uint32_t dim,
                                                     uint32_t lanes, float* __restrict__ pooled) {
  const Group group = GroupOf(lanes);
  for (uint64_t bag = group.first; bag < batch.bags; bag += group.step) {
    const uint64_t begin = batch.offsets[bag], end = batch.offsets[bag + 1];
    for (uint32_t column = group.lane * kWidth; column < dim; column += group.lanes * kWidth) {
      Columns<kWidth> sum = {};
      for (uint64_t place = begin; place < end; ++place) {
        Add(LoadColumns<kWidth>(rows + uint64_t{batch.key_of_place[place]} * dim + column), &sum);
      }
      if (batch.mean && begin < end) Scale(1.0f / static_cast<float>(end - begin), &sum);
      StoreColumns(pooled + bag * dim + column, sum);
    }
  }
}

// Whether four columns may be read and written at once.
template <typename... Floats>
bool InFours(uint32_t dim, const Floats*... at) {
  return dim % 4 == 0 && ((reinterpret_cast<uintptr_t>(at) % sizeof(float4) == 0) && ...);
}

// Threads a row: a power of two, all of one warp.
uint32_t LanesFor(uint32_t dim, uint32_t width) {
  uint32_t lanes = 1;
  while (lanes < 32 && lanes * width < dim) lanes *= 2;
  return lanes;
}
unsigned BlocksFor(uint64_t rows, uint32_t lanes) {
  const uint64_t blocks = (rows * lanes + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}

template <int kWidth>
cudaError_t StartSums(cudaStream_t stream, const CudaSortedRows& batch, const float* gradients, uint32_t dim,
                      float* partials, float* sums, uint32_t* not_finite) {
  const uint32_t lanes = LanesFor(dim, kWidth);
  cudaError_t error = cudaSuccess;
  if (partials != nullptr) {  // first: a piece is the longest that one group has to do
    const uint64_t rows = PartialRows(batch);
    error = Launch(SumPieces<kWidth>, BlocksFor(rows, lanes), kThreads, stream, batch, gradients, dim, lanes, rows,
                   partials);
    if (error == cudaSuccess) {
      error = Launch(AddPieces, BlocksFor(rows / 2, kThreads), kThreads, stream, batch,
                     static_cast<const float*>(partials), dim, sums, not_finite);
    }
  }
  if (error != cudaSuccess) return error;
  return Launch(SumKeys<kWidth>, BlocksFor(batch.keys, lanes), kThreads, stream, batch, gradients, dim, lanes, sums,
                not_finite);
}

}  // namespace

cudaError_t StartSumRows(cudaStream_t stream, const CudaSortedRows& batch, const float* gradients, uint32_t dim,
                         float* partials, float* sums, uint32_t* not_finite) {
  return InFours(dim, gradients, partials, sums)
             ? StartSums<4>(stream, batch, gradients, dim, partials, sums, not_finite)
             : StartSums<1>(stream, batch, gradients, dim, partials, sums, not_finite);
}

cudaError_t StartScatterRows(cudaStream_t stream, const CudaSortedRows& batch, const float* rows, uint32_t dim,
                             float* places) {
  const bool in_fours = InFours(dim, rows, places);
  const uint32_t lanes = LanesFor(dim, in_fours ? 4 : 1);
  return Launch(in_fours ? ScatterRows<4> : ScatterRows<1>, BlocksFor(batch.places, lanes), kThreads, stream, batch,
                rows, dim, lanes, places);
}

cudaError_t StartPoolRows(cudaStream_t stream, const CudaSortedRows& batch, const float* rows, uint32_t dim,
                          float* pooled) {
  const bool in_fours = InFours(dim, rows, pooled);
  const uint32_t lanes = LanesFor(dim, in_fours ? 4 : 1);
  return Launch(in_fours ? PoolRows<4> : PoolRows<1>, BlocksFor(batch.bags, lanes), kThreads, stream, batch, rows, dim,
                lanes, pooled);
}

}  // namespace basin
