#include <algorithm>
#include <cstdint>

#include "common/device/cuda_kernels.h"
#include "common/device/cuda_launch.h"

namespace basin {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;
// Loops go over the grid: enough blocks to fill the largest device, few enough to start quickly.
constexpr int64_t kMostBlocks = 4096;

unsigned BlocksFor(int64_t count, int64_t each) {
  const int64_t blocks = (count + each - 1) / each;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}

__device__ int64_t FirstIndex() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ int64_t IndexStep() { return int64_t{gridDim.x} * blockDim.x; }

__global__ void AddBias(int64_t count, int64_t columns, const float* __restrict__ bias, float* __restrict__ x) {
  for (int64_t i = FirstIndex(); i < count; i += IndexStep()) x[i] += bias[i % columns];
}

// A NaN stays one, as in std::max(x, 0) of the CPU twin.
__global__ void Relu(int64_t count, float* __restrict__ x) {
  for (int64_t i = FirstIndex(); i < count; i += IndexStep()) x[i] = x[i] < 0.0f ? 0.0f : x[i];
}

__global__ void ReluBackward(int64_t count, const float* __restrict__ forward, float* __restrict__ gradient) {
  for (int64_t i = FirstIndex(); i < count; i += IndexStep()) gradient[i] = forward[i] > 0.0f ? gradient[i] : 0.0f;
}

// A block sums kWarp columns: its warps take the rows in turn, so that a warp reads kWarp neighbours, then the first
// warp adds what the others have.
constexpr int kRowsAtOnce = 32;
__global__ void ColumnSums(int64_t rows, int64_t columns, const float* __restrict__ x, float* __restrict__ out) {
  __shared__ float sums[kRowsAtOnce][kWarp];
  for (int64_t first = int64_t{blockIdx.x} * kWarp; first < columns; first += int64_t{gridDim.x} * kWarp) {
    const int64_t column = first + threadIdx.x;
    float sum = 0;
    if (column < columns) {
      for (int64_t row = threadIdx.y; row < rows; row += kRowsAtOnce) sum += x[row * columns + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
      for (int i = 1; i < kRowsAtOnce; ++i) sum += sums[i][threadIdx.x];
      out[column] = sum;
    }
    __syncthreads();
  }
}

// A kernel has as many as its parameters may hold with room to spare; a row of blocks is for each.
constexpr size_t kColumnCopies = 64;
struct ColumnCopies {
  Device::ColumnCopy each[kColumnCopies];
};
__global__ void CopyColumns(int64_t rows, ColumnCopies copies) {
  const Device::ColumnCopy copy = copies.each[blockIdx.y];
  for (int64_t i = FirstIndex(); i < rows * copy.columns; i += IndexStep()) {
    const int64_t row = i / copy.columns, column = i % copy.columns;
    copy.to[row * copy.to_width + column] = copy.from[row * copy.from_width + column];
  }
}

__device__ float WarpMax(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(kAll, value, offset));
  return value;
}
__device__ float WarpSum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAll, value, offset);
  return value;
}
__device__ int64_t WarpMin(int64_t value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const int64_t other = __shfl_xor_sync(kAll, value, offset);
    value = other < value ? other : value;
  }
  return value;
}

// A warp a row. The largest logit is taken off before exp, which cannot overflow then; a NaN is in the sum, and so in
// the loss.
__global__ void SoftmaxCrossEntropy(int64_t rows, int64_t classes, const float* logits,
                                    const uint8_t* __restrict__ labels, float* gradient, RowLoss* __restrict__ losses) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float scale = 1.0f / static_cast<float>(rows);
  for (int64_t row = FirstIndex() / kWarp; row < rows; row += IndexStep() / kWarp) {
    const float* x = logits + row * classes;
    const int64_t label = labels[row];
    float largest = -INFINITY;
    for (int64_t i = lane; i < classes; i += kWarp) largest = fmaxf(largest, x[i]);
    largest = WarpMax(largest);
    float sum = 0;
    int64_t best = classes;  // the first of the largest
    for (int64_t i = lane; i < classes; i += kWarp) {
      sum += expf(x[i] - largest);
      if (x[i] == largest && i < best) best = i;
    }
    sum = WarpSum(sum);
    best = WarpMin(best);
    const float of_label = x[label];
    __syncwarp();  // the gradient may be written over the logits
    if (lane == 0) {
      losses[row].loss = log(static_cast<double>(sum)) - static_cast<double>(of_label - largest);
      losses[row].correct = best == label ? 1 : 0;
    }
    if (gradient == nullptr) continue;
    float* g = gradient + row * classes;
    for (int64_t i = lane; i < classes; i += kWarp) {
      g[i] = scale * (expf(x[i] - largest) / sum - (i == label ? 1.0f : 0.0f));
    }
  }
}

// As the CPU twin: log(1 + e^x) - label x, by the side on which e^x is large.
__global__ void SigmoidCrossEntropy(int64_t rows, const float* logits, const uint8_t* __restrict__ labels,
                                    float* gradient, RowLoss* __restrict__ losses) {
  const float scale = 1.0f / static_cast<float>(rows);
  for (int64_t row = FirstIndex(); row < rows; row += IndexStep()) {
    const float x = logits[row], label = labels[row];
    const float power = expf(-fabsf(x));
    losses[row].loss = log1p(static_cast<double>(power)) + static_cast<double>(x > 0 ? x - label * x : -label * x);
    losses[row].correct = (x > 0) == (label != 0) ? 1 : 0;
    if (gradient != nullptr) gradient[row] = scale * ((x > 0 ? 1 / (1 + power) : power / (1 + power)) - label);
  }
}

__global__ void SumLosses(int64_t rows, const RowLoss* __restrict__ losses, Device::LossResult* sum) {
  __shared__ double loss[kThreads];
  __shared__ unsigned long long correct[kThreads];
  const unsigned me = threadIdx.x;
  loss[me] = 0;
  correct[me] = 0;
  for (int64_t row = me; row < rows; row += kThreads) {
    loss[me] += losses[row].loss;
    correct[me] += losses[row].correct;
  }
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (me >= half) continue;
    loss[me] += loss[me + half];
    correct[me] += correct[me + half];
  }
  if (me == 0) {
    sum->loss_sum = loss[0];
    sum->correct = correct[0];
  }
}

}  // namespace

cudaError_t StartAddBias(cudaStream_t stream, int64_t rows, int64_t columns, const float* bias, float* x) {
  return Launch(AddBias, BlocksFor(rows * columns, kThreads), kThreads, stream, rows * columns, columns, bias, x);
}

cudaError_t StartRelu(cudaStream_t stream, int64_t count, float* x) {
  return Launch(Relu, BlocksFor(count, kThreads), kThreads, stream, count, x);
}

cudaError_t StartReluBackward(cudaStream_t stream, int64_t count, const float* forward, float* gradient) {
  return Launch(ReluBackward, BlocksFor(count, kThreads), kThreads, stream, count, forward, gradient);
}

cudaError_t StartColumnSums(cudaStream_t stream, int64_t rows, int64_t columns, const float* x, float* out) {
  return Launch(ColumnSums, BlocksFor(columns, kWarp), dim3(kWarp, kRowsAtOnce), stream, rows, columns, x, out);
}

cudaError_t StartCopyColumns(cudaStream_t stream, int64_t rows, absl::Span<const Device::ColumnCopy> copies) {
  for (; !copies.empty(); copies.remove_prefix(std::min(copies.size(), kColumnCopies))) {
    const absl::Span<const Device::ColumnCopy> now = copies.first(std::min(copies.size(), kColumnCopies));
    ColumnCopies passed = {};
    int64_t most = 0;
    for (size_t i = 0; i < now.size(); ++i) {
      passed.each[i] = now[i];
      most = std::max(most, now[i].columns);
    }
    const dim3 grid(BlocksFor(rows * most, kThreads), static_cast<unsigned>(now.size()));
    const cudaError_t error = Launch(CopyColumns, grid, kThreads, stream, rows, passed);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t StartSoftmaxCrossEntropy(cudaStream_t stream, int64_t rows, int64_t classes, const float* logits,
                                     const uint8_t* labels, float* gradient, RowLoss* losses) {
  return Launch(SoftmaxCrossEntropy, BlocksFor(rows, kThreads / kWarp), kThreads, stream, rows, classes, logits, labels,
                gradient, losses);
}

cudaError_t StartSigmoidCrossEntropy(cudaStream_t stream, int64_t rows, const float* logits, const uint8_t* labels,
                                     float* gradient, RowLoss* losses) {
  return Launch(SigmoidCrossEntropy, BlocksFor(rows, kThreads), kThreads, stream, rows, logits, labels, gradient,
                losses);
}

cudaError_t StartSumLosses(cudaStream_t stream, int64_t rows, const RowLoss* losses, Device::LossResult* sum) {
  return Launch(SumLosses, 1, kThreads, stream, rows, losses, sum);
}

}  // namespace basin
