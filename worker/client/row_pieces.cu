#include "common/base/key_hash.h"
#include "common/codec/half_math.h"
#include "common/device/cuda_launch.h"
#include "worker/client/row_pieces.h"

namespace basin {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint64_t kMostBlocks = 132 * 16;

struct AsFloat {
  using Number = float;
  static __device__ float From(float value) { return value; }
};
template <class Half>
struct AsHalf {
  using Number = uint16_t;
  static __device__ uint16_t From(float value) { return Half::From(value); }
};

// `lanes` neighbouring threads a key. Rows have any length, so that no more than 2 bytes divide where they begin.
template <class As>
__global__ void __launch_bounds__(kThreads) PackRows(RowPieceThere piece, const float* __restrict__ sums, uint32_t dim,
                                                     uint32_t lanes, char* __restrict__ out) {
  const uint64_t thread = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x / lanes;
  const uint32_t lane = static_cast<uint32_t>(thread % lanes);
  const uint64_t row_bytes = sums == nullptr ? 0 : uint64_t{dim} * sizeof(typename As::Number);
  for (uint64_t i = thread / lanes; i < piece.count; i += step) {
    const uint64_t at = piece.first + i, key = piece.keys[at];
    const uint64_t bucket = KeyHash(key) >> (64 - piece.bucket_bits);
    const uint64_t begin = piece.bucket_begin[bucket], end = piece.bucket_begin[bucket + 1];
    const uint64_t entry = begin + (at - begin) / piece.most * piece.most;
    const uint64_t of_entry = entry + piece.most < end ? piece.most : end - entry;
    char* const to = out + (entry - piece.first) * (sizeof(key) + row_bytes);
    if (lane == 0) {
      auto* const halves = reinterpret_cast<uint16_t*>(to + (at - entry) * sizeof(key));
      for (int half = 0; half < 4; ++half) halves[half] = static_cast<uint16_t>(key >> (16 * half));
    }
    if (sums == nullptr) continue;
    auto* const row = reinterpret_cast<typename As::Number*>(to + of_entry * sizeof(key) + (at - entry) * row_bytes);
    for (uint32_t column = lane; column < dim; column += lanes) row[column] = As::From(sums[at * dim + column]);
  }
}

// The last span that begins at or before the row.
__device__ RowsSpan SpanOf(const RowSpansThere& spans, uint32_t row) {
  uint32_t low = 0, high = spans.count;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    if (spans.spans[middle].row <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return spans.spans[low];
}

// `lanes` neighbouring threads a row, as in PackRows.
template <class As>
__global__ void __launch_bounds__(kThreads)
    PlaceRows(RowSpansThere spans, const uint64_t* __restrict__ keys, const float* __restrict__ sums, uint32_t dim,
              uint32_t lanes, uint64_t* __restrict__ keys_to, typename As::Number* __restrict__ rows_to) {
  const uint64_t thread = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x / lanes;
  const uint32_t lane = static_cast<uint32_t>(thread % lanes);
  for (uint64_t row = thread / lanes; row < spans.rows; row += step) {
    const RowsSpan span = SpanOf(spans, static_cast<uint32_t>(row));
    const uint64_t at = span.first + (row - span.row);
    if (lane == 0) keys_to[row] = keys[at];
    if (sums == nullptr) continue;
    for (uint32_t column = lane; column < dim; column += lanes) {
      rows_to[row * dim + column] = As::From(sums[at * dim + column]);
    }
  }
}

__global__ void __launch_bounds__(kThreads) TakeRows(RowSpansThere spans, const float* __restrict__ from, uint32_t dim,
                                                     uint32_t lanes, float* __restrict__ rows) {
  const uint64_t thread = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x / lanes;
  for (uint64_t row = thread / lanes; row < spans.rows; row += step) {
    const RowsSpan span = SpanOf(spans, static_cast<uint32_t>(row));
    const uint64_t at = span.first + (row - span.row);
    for (uint32_t column = static_cast<uint32_t>(thread % lanes); column < dim; column += lanes) {
      rows[at * dim + column] = from[row * dim + column];
    }
  }
}

__global__ void NameUnfit(const uint64_t* __restrict__ keys, const float* __restrict__ sums, uint32_t dim,
                          const uint32_t* not_finite, uint32_t none, UnfitSum* found) {
  if (not_finite != nullptr) {
    found->unfit.element = Unfit::kNone;
    found->unfit.value = 0;
    const uint64_t row = *not_finite;
    for (uint32_t column = 0; row != none && column < dim; ++column) {
      const float value = sums[row * dim + column];
      if (isfinite(value)) continue;
      found->unfit.element = row * dim + column;
      found->unfit.value = value;
      break;
    }
  }
  found->key = found->unfit.element == Unfit::kNone ? 0 : keys[found->unfit.element / dim];
}

// Threads of a row of so many numbers.
uint32_t LanesFor(uint32_t dim) {
  uint32_t lanes = 1;
  while (lanes < 32 && lanes < dim) lanes *= 2;
  return lanes;
}

unsigned BlocksFor(uint64_t threads) {
  const uint64_t blocks = (threads + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}

template <class As>
cudaError_t StartPlace(cudaStream_t stream, const RowSpansThere& spans, const uint64_t* keys, const float* sums,
                       uint32_t dim, uint64_t* keys_to, void* rows_to) {
  const uint32_t lanes = LanesFor(sums == nullptr ? 1 : dim);
  return Launch(PlaceRows<As>, BlocksFor(uint64_t{spans.rows} * lanes), kThreads, stream, spans, keys, sums, dim, lanes,
                keys_to, static_cast<typename As::Number*>(rows_to));
}

}  // namespace

cudaError_t StartPlaceRows(cudaStream_t stream, const RowSpansThere& spans, const uint64_t* keys, const float* sums,
                           uint32_t dim, DType type, uint64_t* keys_to, void* rows_to) {
  const auto start = type == DType::kF32   ? StartPlace<AsFloat>
                     : type == DType::kF16 ? StartPlace<AsHalf<half::Float16>>
                                           : StartPlace<AsHalf<half::Bfloat16>>;
  return start(stream, spans, keys, sums, dim, keys_to, rows_to);
}

cudaError_t StartTakeRows(cudaStream_t stream, const RowSpansThere& spans, const float* from, uint32_t dim,
                          float* rows) {
  const uint32_t lanes = LanesFor(dim);
  return Launch(TakeRows, BlocksFor(uint64_t{spans.rows} * lanes), kThreads, stream, spans, from, dim, lanes, rows);
}

cudaError_t StartPackRows(cudaStream_t stream, const RowPieceThere& piece, const float* sums, uint32_t dim, DType type,
                          char* out) {
  const uint32_t lanes = LanesFor(sums == nullptr ? 1 : dim);
  const unsigned grid = BlocksFor(uint64_t{piece.count} * lanes);
  return Launch(type == DType::kF32   ? PackRows<AsFloat>
                : type == DType::kF16 ? PackRows<AsHalf<half::Float16>>
                                      : PackRows<AsHalf<half::Bfloat16>>,
                grid, kThreads, stream, piece, sums, dim, lanes, out);
}

cudaError_t StartNameUnfit(cudaStream_t stream, const uint64_t* keys, const float* sums, uint32_t dim,
                           const uint32_t* not_finite, uint32_t none, UnfitSum* found) {
  return Launch(NameUnfit, 1, 1, stream, keys, sums, dim, not_finite, none, found);
}

}  // namespace basin
