#include "bench/kernels/naive_kernels.h"
#include "common/base/key_hash.h"
#include "common/device/cuda_launch.h"

namespace basin {
namespace {

constexpr uint32_t kThreads = 256;

__device__ uint64_t ThisThread() { return uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

__global__ void FillSamples(uint64_t seed, float low, uint64_t count, float* out) {
  const uint64_t i = ThisThread();
  if (i < count) out[i] = SampleAt(seed, i, low);
}
__global__ void FillTableKeys(uint64_t first, uint64_t count, uint64_t* keys) {
  const uint64_t i = ThisThread();
  if (i < count) keys[i] = TableKeyAt(first + i);
}
__global__ void FillFoundKeys(uint64_t seed, uint64_t rows, uint64_t count, uint64_t* keys) {
  const uint64_t i = ThisThread();
  if (i < count) keys[i] = FoundKeyAt(seed, i, rows);
}

__global__ void CheckFinite(const float* gradient, uint64_t count, uint32_t* not_finite) {
  const uint64_t i = ThisThread();
  if (i < count && !isfinite(gradient[i])) atomicMax(not_finite, 1u);
}

__global__ void ApplyElement(CudaApplyItem item) {
  const uint64_t i = ThisThread();
  if (i >= item.elements) return;
  const CudaRule& rule = item.rule;
  const float g = item.gradient[i], w = item.parameters_in[i];
  if (rule.kind == RuleKind::kSgd) {
    item.parameters_out[i] = SgdStep(rule.rate, g, w);
  } else if (rule.kind == RuleKind::kMomentum) {
    const MomentumState next = MomentumStep(rule.rate, rule.momentum, g, {w, item.slots_in[0][i]});
    item.parameters_out[i] = next.w;
    item.slots_out[0][i] = next.v;
  } else if (rule.kind == RuleKind::kAdagrad) {
    const AdagradState next = AdagradStep(rule.rate, rule.epsilon, g, {w, item.slots_in[0][i]});
    item.parameters_out[i] = next.w;
    item.slots_out[0][i] = next.a;
  } else if (rule.kind == RuleKind::kAdam) {
    const AdamState next = AdamStep(rule.adam, g, {w, item.slots_in[0][i], item.slots_in[1][i]});
    item.parameters_out[i] = next.w;
    item.slots_out[0][i] = next.m;
    item.slots_out[1][i] = next.v;
  }
}

__global__ void AddGradients(const uint32_t* key_of_place, uint64_t places, const float* gradients, uint32_t dim,
                             float* sums) {
  const uint64_t i = ThisThread();
  if (i < places * dim) atomicAdd(sums + uint64_t{key_of_place[i / dim]} * dim + i % dim, gradients[i]);
}

__global__ void PullOne(CudaKeyIndex index, CudaRowStart start, const uint64_t* keys, uint64_t count, float* rows) {
  const uint64_t i = ThisThread();
  if (i >= count) return;
  const uint64_t key = keys[i], buckets = index.numbers / CudaKeyIndex::kBucket;
  uint64_t number =
      (static_cast<uint64_t>(static_cast<uint32_t>(KeyHash(key))) * buckets >> 32) * CudaKeyIndex::kBucket;
  while (index.keys[number] != key) number = number + 1 < index.numbers ? number + 1 : 0;
  const auto* row = reinterpret_cast<const float*>(start.rows + number * start.layout.stride);
  for (uint32_t column = 0; column < start.layout.dim; ++column) rows[i * start.layout.dim + column] = row[column];
}

unsigned BlocksFor(uint64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

}  // namespace

cudaError_t StartFillSamples(cudaStream_t stream, uint64_t seed, float low, uint64_t count, float* out) {
  return Launch(FillSamples, BlocksFor(count), kThreads, stream, seed, low, count, out);
}
cudaError_t StartFillTableKeys(cudaStream_t stream, uint64_t first, uint64_t count, uint64_t* keys) {
  return Launch(FillTableKeys, BlocksFor(count), kThreads, stream, first, count, keys);
}
cudaError_t StartFillFoundKeys(cudaStream_t stream, uint64_t seed, uint64_t rows, uint64_t count, uint64_t* keys) {
  return Launch(FillFoundKeys, BlocksFor(count), kThreads, stream, seed, rows, count, keys);
}

cudaError_t StartNaiveApply(cudaStream_t stream, const CudaApplyItem& item, uint32_t* not_finite) {
  cudaError_t error = cudaMemsetAsync(not_finite, 0, sizeof(*not_finite), stream);
  if (error != cudaSuccess) return error;
  error = Launch(CheckFinite, BlocksFor(item.elements), kThreads, stream, item.gradient, item.elements, not_finite);
  if (error != cudaSuccess) return error;
  return Launch(ApplyElement, BlocksFor(item.elements), kThreads, stream, item);
}

cudaError_t StartNaiveMerge(cudaStream_t stream, const uint32_t* key_of_place, uint64_t places, uint32_t keys,
                            const float* gradients, uint32_t dim, float* sums) {
  const cudaError_t error = cudaMemsetAsync(sums, 0, uint64_t{keys} * dim * sizeof(float), stream);
  if (error != cudaSuccess) return error;
  return Launch(AddGradients, BlocksFor(places * dim), kThreads, stream, key_of_place, places, gradients, dim, sums);
}

cudaError_t StartNaivePull(cudaStream_t stream, const CudaKeyIndex& index, const CudaRowStart& start,
                           const uint64_t* keys, uint64_t count, float* rows) {
  return Launch(PullOne, BlocksFor(count), kThreads, stream, index, start, keys, count, rows);
}

}  // namespace basin
