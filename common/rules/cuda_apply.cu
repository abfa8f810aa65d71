#include "common/device/cuda_launch.h"
#include "common/rules/cuda_apply.h"

namespace basin {
namespace {

constexpr unsigned kThreads = 256;
constexpr uint32_t kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;
// Of four floats, a thread and chunk. With two, all of a thread's loads are under way before the first is used, and the
// largest batch of a lane has two chunks for each multiprocessor.
constexpr int kVectors = 2;
constexpr uint64_t kChunk = uint64_t{kThreads} * kVectors * 4;
// Some blocks a multiprocessor; each takes chunks in turn, so that one launch serves any batch.
constexpr unsigned kMostBlocks = 132 * 16;

struct Element {
  float w;
  float slot0;
  float slot1;
};

// What becomes of an element: a type a rule, so that its kind is looked at once a chunk, and a rule without slots moves
// no bytes for them.
struct Sgd {
  static constexpr int kSlots = 0;
  __device__ static Element Step(const CudaRule& rule, float g, Element e) {
    return {SgdStep(rule.rate, g, e.w), 0, 0};
  }
};
template <bool kNesterov>
struct Momentum {
  static constexpr int kSlots = 1;
  __device__ static Element Step(const CudaRule& rule, float g, Element e) {
    const MomentumState next = kNesterov ? NesterovStep(rule.rate, rule.momentum, g, {e.w, e.slot0})
                                         : MomentumStep(rule.rate, rule.momentum, g, {e.w, e.slot0});
    return {next.w, next.v, 0};
  }
};
struct Adagrad {
  static constexpr int kSlots = 1;
  __device__ static Element Step(const CudaRule& rule, float g, Element e) {
    const AdagradState next = AdagradStep(rule.rate, rule.epsilon, g, {e.w, e.slot0});
    return {next.w, next.a, 0};
  }
};
struct Adam {
  static constexpr int kSlots = 2;
  __device__ static Element Step(const CudaRule& rule, float g, Element e) {
    const AdamState next = AdamStep(rule.adam, g, {e.w, e.slot0, e.slot1});
    return {next.w, next.m, next.v};
  }
};
struct Ftrl {
  static constexpr int kSlots = 2;
  __device__ static Element Step(const CudaRule& rule, float g, Element e) {
    const FtrlState next = FtrlStep(rule.ftrl, g, {e.w, e.slot0, e.slot1});
    return {next.w, next.n, next.z};
  }
};
struct FrozenFtrl {
  static constexpr int kSlots = 2;
  __device__ static Element Step(const CudaRule&, float, Element e) { return e; }
};
template <StatisticKind kKind>
struct Statistic {
  static constexpr int kSlots = 0;
  __device__ static Element Step(const CudaRule& rule, float x, Element e) {
    if constexpr (kKind == StatisticKind::kMean) return {RunningMean(rule.inverse_count, x, e.w), 0, 0};
    if constexpr (kKind == StatisticKind::kSum) return {e.w + x, 0, 0};
    return {x, 0, 0};
  }
};

// The last item whose first chunk is at or before `chunk`. A warp looks at 32 places at once, since each look waits for
// memory: two looks for a thousand items. All of its threads call it, and get the same.
__device__ uint32_t ItemOf(const CudaApplyItem* items, uint32_t count, uint64_t chunk) {
  uint32_t low = 0, high = count;  // it is in [low, high)
  while (high - low > 1) {
    const uint32_t step = (high - low + kWarp - 1) / kWarp;
    const uint32_t at = low + threadIdx.x % kWarp * step;
    const unsigned before = __ballot_sync(kAll, at < high && items[at].first_chunk <= chunk);
    low += (kWarp - 1 - static_cast<uint32_t>(__clz(static_cast<int>(before)))) * step;
    high = low + step < high ? low + step : high;
  }
  return low;
}

__device__ float4 LoadOnce(const float* at) { return __ldcs(reinterpret_cast<const float4*>(at)); }
__device__ void StoreOnce(float* at, float4 values) { __stcs(reinterpret_cast<float4*>(at), values); }

template <int kSlots>
struct Vector {
  float4 g, w, slots[kSlots > 0 ? kSlots : 1];
};

template <class Rule>
__device__ bool ApplyVector(const CudaRule& rule, const CudaApplyItem& item, uint64_t at, Vector<Rule::kSlots> in) {
  const float4 a = Rule::kSlots > 0 ? in.slots[0] : float4{},
               b = Rule::kSlots > 1 ? in.slots[Rule::kSlots - 1] : float4{};
  const Element x = Rule::Step(rule, in.g.x, {in.w.x, a.x, b.x}), y = Rule::Step(rule, in.g.y, {in.w.y, a.y, b.y}),
                z = Rule::Step(rule, in.g.z, {in.w.z, a.z, b.z}), u = Rule::Step(rule, in.g.w, {in.w.w, a.w, b.w});
  StoreOnce(item.parameters_out + at, {x.w, y.w, z.w, u.w});
  if constexpr (Rule::kSlots > 0) StoreOnce(item.slots_out[0] + at, {x.slot0, y.slot0, z.slot0, u.slot0});
  if constexpr (Rule::kSlots > 1) StoreOnce(item.slots_out[1] + at, {x.slot1, y.slot1, z.slot1, u.slot1});
  return !isfinite(in.g.x) || !isfinite(in.g.y) || !isfinite(in.g.z) || !isfinite(in.g.w);
}

// What is left of a block after its last whole vector: at most three elements.
template <class Rule>
__device__ bool ApplyElement(const CudaApplyItem& item, uint64_t at) {
  const float g = item.gradient[at];
  Element e = {item.parameters_in[at], 0, 0};
  if constexpr (Rule::kSlots > 0) e.slot0 = item.slots_in[0][at];
  if constexpr (Rule::kSlots > 1) e.slot1 = item.slots_in[1][at];
  e = Rule::Step(item.rule, g, e);
  item.parameters_out[at] = e.w;
  if constexpr (Rule::kSlots > 0) item.slots_out[0][at] = e.slot0;
  if constexpr (Rule::kSlots > 1) item.slots_out[1][at] = e.slot1;
  return !isfinite(g);
}

// The item's chunk from `begin` on: returns whether one of this thread's gradients is not finite.
template <class Rule>
__device__ bool ApplyChunk(const CudaApplyItem& item, uint64_t begin) {
  const CudaRule rule = item.rule;
  const uint64_t whole = item.elements / 4 * 4;
  const uint64_t end = begin + kChunk < whole ? begin + kChunk : whole;
  const uint64_t first = begin + uint64_t{threadIdx.x} * 4;
  Vector<Rule::kSlots> in[kVectors] = {};  // or registers are kept for what an earlier chunk left there
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const uint64_t at = first + uint64_t{kThreads} * 4 * i;
    if (at >= end) continue;
    in[i].g = LoadOnce(item.gradient + at);
    in[i].w = LoadOnce(item.parameters_in + at);
#pragma unroll
    for (int slot = 0; slot < Rule::kSlots; ++slot) in[i].slots[slot] = LoadOnce(item.slots_in[slot] + at);
  }
  bool bad = false;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const uint64_t at = first + uint64_t{kThreads} * 4 * i;
    if (at < end) bad = ApplyVector<Rule>(rule, item, at, in[i]) || bad;
  }
  const uint64_t rest = whole + threadIdx.x;
  if (begin + kChunk >= item.elements && rest < item.elements) bad = ApplyElement<Rule>(item, rest) || bad;
  return bad;
}

__device__ bool ApplyChunk(const CudaApplyItem& item, uint64_t begin) {
  switch (item.rule.statistic) {
    case StatisticKind::kMean:
      return ApplyChunk<Statistic<StatisticKind::kMean>>(item, begin);
    case StatisticKind::kSum:
      return ApplyChunk<Statistic<StatisticKind::kSum>>(item, begin);
    case StatisticKind::kLast:
      return ApplyChunk<Statistic<StatisticKind::kLast>>(item, begin);
  }
  switch (item.rule.kind) {
    case RuleKind::kSgd:
      return ApplyChunk<Sgd>(item, begin);
    case RuleKind::kMomentum:
      return item.rule.nesterov ? ApplyChunk<Momentum<true>>(item, begin) : ApplyChunk<Momentum<false>>(item, begin);
    case RuleKind::kAdagrad:
      return ApplyChunk<Adagrad>(item, begin);
    case RuleKind::kAdam:
      return ApplyChunk<Adam>(item, begin);
    case RuleKind::kFtrl:
      return item.rule.frozen ? ApplyChunk<FrozenFtrl>(item, begin) : ApplyChunk<Ftrl>(item, begin);
    case RuleKind::kRowwiseAdagrad:
      break;  // tables only
  }
  return false;
}

__global__ void __launch_bounds__(kThreads, 4) ApplyBatch(const CudaApplyItem* __restrict__ items, uint32_t count,
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
    // Seldom; other blocks may have other chunks of the item.
    if (ApplyChunk(item, (chunk - item.first_chunk) * kChunk)) atomicExch(&not_finite[index], 1u);
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
