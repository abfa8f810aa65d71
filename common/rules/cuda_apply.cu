#include "common/device/cuda_launch.h"
#include "common/rules/cuda_apply.h"

namespace basin {
namespace {

constexpr unsigned kThreads = 256;
constexpr uint64_t kVectors =
    4;  // of four floats, a thread and chunk: enough loads under way to fill the memory's queue
constexpr uint64_t kChunk = kThreads * kVectors * 4;
// Some blocks a multiprocessor; each takes chunks in turn, so that one launch serves any batch.
constexpr unsigned kMostBlocks = 132 * 16;

struct Element {
  float w;
  float slot0;
  float slot1;
};

__device__ float StatisticStep(const CudaRule& rule, float x, float value) {
  switch (rule.statistic) {
    case StatisticKind::kMean:
      return RunningMean(rule.inverse_count, x, value);
    case StatisticKind::kSum:
      return value + x;
    default:
      return x;
  }
}

__device__ Element Step(const CudaRule& rule, float g, Element e) {
  if (rule.statistic != StatisticKind{}) return {StatisticStep(rule, g, e.w), 0, 0};
  switch (rule.kind) {
    case RuleKind::kSgd:
      return {SgdStep(rule.rate, g, e.w), 0, 0};
    case RuleKind::kMomentum: {
      const MomentumState next = rule.nesterov ? NesterovStep(rule.rate, rule.momentum, g, {e.w, e.slot0})
                                               : MomentumStep(rule.rate, rule.momentum, g, {e.w, e.slot0});
      return {next.w, next.v, 0};
    }
    case RuleKind::kAdagrad: {
      const AdagradState next = AdagradStep(rule.rate, rule.epsilon, g, {e.w, e.slot0});
      return {next.w, next.a, 0};
    }
    case RuleKind::kAdam: {
      const AdamState next = AdamStep(rule.adam, g, {e.w, e.slot0, e.slot1});
      return {next.w, next.m, next.v};
    }
    case RuleKind::kFtrl: {
      if (rule.frozen) return e;
      const FtrlState next = FtrlStep(rule.ftrl, g, {e.w, e.slot0, e.slot1});
      return {next.w, next.n, next.z};
    }
    case RuleKind::kRowwiseAdagrad:
      break;  // tables only
  }
  return e;
}

__device__ int SlotsOf(RuleKind kind) {
  switch (kind) {
    case RuleKind::kMomentum:
    case RuleKind::kAdagrad:
      return 1;
    case RuleKind::kAdam:
    case RuleKind::kFtrl:
      return 2;
    default:
      return 0;
  }
}

// The last item whose first chunk is at or before `chunk`.
__device__ uint32_t ItemOf(const CudaApplyItem* items, uint32_t count, uint64_t chunk) {
  uint32_t low = 0, high = count;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    if (items[middle].first_chunk <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

__device__ float4 LoadOnce(const float* at) { return __ldcs(reinterpret_cast<const float4*>(at)); }
__device__ void StoreOnce(float* at, float4 values) { __stcs(reinterpret_cast<float4*>(at), values); }

// Whole vectors of four: returns whether a gradient in them is not finite. Slots is known to the compiler, so that a
// rule without slots moves no bytes for them.
template <int Slots>
__device__ bool Vectors(const CudaApplyItem& item, uint64_t begin, uint64_t end) {
  bool bad = false;
#pragma unroll
  for (uint64_t i = 0; i < kVectors; ++i) {
    const uint64_t at = begin + (uint64_t{threadIdx.x} + i * kThreads) * 4;
    if (at >= end) break;
    const float4 g = LoadOnce(item.gradient + at), w = LoadOnce(item.parameters_in + at);
    float4 a = {}, b = {};
    if constexpr (Slots > 0) a = LoadOnce(item.slots_in[0] + at);
    if constexpr (Slots > 1) b = LoadOnce(item.slots_in[1] + at);
    const Element x = Step(item.rule, g.x, {w.x, a.x, b.x}), y = Step(item.rule, g.y, {w.y, a.y, b.y}),
                  z = Step(item.rule, g.z, {w.z, a.z, b.z}), u = Step(item.rule, g.w, {w.w, a.w, b.w});
    bad = bad || !isfinite(g.x) || !isfinite(g.y) || !isfinite(g.z) || !isfinite(g.w);
    StoreOnce(item.parameters_out + at, {x.w, y.w, z.w, u.w});
    if constexpr (Slots > 0) StoreOnce(item.slots_out[0] + at, {x.slot0, y.slot0, z.slot0, u.slot0});
    if constexpr (Slots > 1) StoreOnce(item.slots_out[1] + at, {x.slot1, y.slot1, z.slot1, u.slot1});
  }
  return bad;
}

// What is left of a block after its last whole vector: at most three elements.
__device__ bool Rest(const CudaApplyItem& item, int slots, uint64_t at) {
  const float g = item.gradient[at];
  Element e = {item.parameters_in[at], slots > 0 ? item.slots_in[0][at] : 0, slots > 1 ? item.slots_in[1][at] : 0};
  e = Step(item.rule, g, e);
  item.parameters_out[at] = e.w;
  if (slots > 0) item.slots_out[0][at] = e.slot0;
  if (slots > 1) item.slots_out[1][at] = e.slot1;
  return !isfinite(g);
}

__global__ void __launch_bounds__(kThreads) ApplyBatch(const CudaApplyItem* __restrict__ items, uint32_t count,
                                                       uint64_t chunks, uint32_t* __restrict__ not_finite) {
  // Without a constructor, which shared memory cannot have.
  alignas(alignof(CudaApplyItem)) __shared__ unsigned char bytes[sizeof(CudaApplyItem)];
  CudaApplyItem& item = *reinterpret_cast<CudaApplyItem*>(bytes);
  uint32_t index = count;  // of the item in shared memory
  for (uint64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    // A block's chunks come in order, so that most are of the item at hand.
    if (index == count || (index + 1 < count && items[index + 1].first_chunk <= chunk)) {
      index = ItemOf(items, count, chunk);
      __syncthreads();  // the chunk before is done with the item
      if (threadIdx.x == 0) item = items[index];
      __syncthreads();
    }
    const uint64_t begin = (chunk - item.first_chunk) * kChunk;
    const uint64_t whole = item.elements / 4 * 4;
    const uint64_t end = begin + kChunk < whole ? begin + kChunk : whole;
    const int slots = SlotsOf(item.rule.kind);
    bool bad = slots == 0   ? Vectors<0>(item, begin, end)
               : slots == 1 ? Vectors<1>(item, begin, end)
                            : Vectors<2>(item, begin, end);
    const uint64_t rest = whole + threadIdx.x;
    if (begin + kChunk >= item.elements && rest < item.elements) bad = Rest(item, slots, rest) || bad;
    // Seldom; other blocks may have other chunks of the item.
    if (__syncthreads_or(bad) != 0 && threadIdx.x == 0) atomicExch(&not_finite[index], 1u);
  }
}

}  // namespace

CudaRule MakeCudaRule(const RuleSpec& spec, float learning_rate, uint64_t step) {
  CudaRule rule;
  rule.kind = spec.kind;
  rule.nesterov = spec.nesterov;
  rule.rate = learning_rate;
  rule.momentum = spec.momentum;
  rule.epsilon = spec.epsilon;
  if (spec.kind == RuleKind::kAdam) {
    rule.adam = AdamNumbersAt(learning_rate, spec.beta1, spec.beta2, spec.epsilon, step);
  }
  rule.frozen = spec.kind == RuleKind::kFtrl && learning_rate == 0;
  if (spec.kind == RuleKind::kFtrl && !rule.frozen) {
    rule.ftrl = FtrlNumbersAt(learning_rate, spec.l1, spec.l2, spec.beta);
  }
  return rule;
}

CudaRule MakeCudaStatistic(StatisticKind statistic, uint64_t count) {
  CudaRule rule;
  // The first value of a mean is taken as it is, as on the host.
  rule.statistic = statistic == StatisticKind::kMean && count == 1 ? StatisticKind::kLast : statistic;
  rule.inverse_count = static_cast<float>(1.0 / static_cast<double>(count));
  return rule;
}

uint64_t CountChunks(CudaApplyItem* items, uint32_t count) {
  uint64_t chunks = 0;
  for (uint32_t i = 0; i < count; ++i) {
    items[i].first_chunk = chunks;
    // An empty block too has one, so that first_chunk names no two items.
    chunks += items[i].elements <= kChunk ? 1 : (items[i].elements + kChunk - 1) / kChunk;
  }
  return chunks;
}

cudaError_t StartApply(cudaStream_t stream, const CudaApplyItem* items, uint32_t count, uint64_t chunks,
                       uint32_t* not_finite) {
  if (count == 0) return cudaSuccess;
  const cudaError_t cleared = cudaMemsetAsync(not_finite, 0, count * sizeof(uint32_t), stream);
  if (cleared != cudaSuccess) return cleared;
  const auto blocks = static_cast<unsigned>(chunks < kMostBlocks ? chunks : kMostBlocks);
  return Launch(ApplyBatch, blocks, kThreads, stream, items, count, chunks, not_finite);
}

}  // namespace basin
