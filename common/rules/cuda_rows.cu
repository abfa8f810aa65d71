#include <cstdint>

#include "common/base/random.h"
#include "common/device/cuda_launch.h"
#include "common/rules/cuda_row_access.cuh"
#include "common/rules/cuda_rows.h"
#include "common/rules/row_rules.h"

namespace basin {
namespace {

using namespace row_rules;
using row_storage::Bf16;
using row_storage::F16;
using row_storage::F32;

constexpr uint32_t kThreads = 256;
constexpr uint64_t kMostBlocks = 132 * 16;

// What Begin sees of a row: all of it, through the tile's threads.
struct WholeRow {
  const float* gradient;
  float* slots;
  uint32_t dim;
  uint32_t lane;
  unsigned mask;

  __device__ float RowSlot() const { return *slots; }
  __device__ void SetRowSlot(float value) const {
    __syncwarp(mask);  // all have read it
    if (lane == 0) *slots = value;
  }
  __device__ float SumOfSquares() const {
    float sum = 0;
    for (uint32_t i = lane; i < dim; i += kTile) sum += gradient[i] * gradient[i];
    for (uint32_t width = kTile / 2; width >= 1; width /= 2) {
      const float other = __shfl_down_sync(mask, sum, width, kTile);
      if (lane < width) sum += other;
    }
    return __shfl_sync(mask, sum, 0, kTile);
  }
};

// What Element sees: neighbouring elements, in registers.
template <int kWidth, int kSlots>
struct Elements {
  float gradient[kWidth];
  mutable float value[kWidth];
  mutable float slots[kSlots > 0 ? kSlots : 1][kWidth];

  __device__ float Gradient(size_t i) const { return gradient[i]; }
  __device__ float Value(size_t i) const { return value[i]; }
  __device__ void SetValue(size_t i, float w) const { value[i] = w; }
  __device__ float Slot(uint32_t slot, size_t i) const { return slots[slot][i]; }
  __device__ void SetSlot(uint32_t slot, size_t i, float w) const { slots[slot][i] = w; }
};

template <class Rule, class Storage, int kWidth>
__device__ void ApplyElements(const typename Rule::Numbers& numbers, const CudaRowLayout& layout, const float* gradient,
                              uint32_t first, uint32_t seed, char* row) {
  Elements<kWidth, Rule::kSlots> elements;
  LoadFloats<kWidth>(gradient + first, elements.gradient);
  LoadValues<Storage, kWidth>(row, first, elements.value);
  const auto slot_at = [&](int slot) {
    return reinterpret_cast<float*>(row + layout.slots_offset + slot * layout.slot_bytes) + first;
  };
#pragma unroll
  for (int slot = 0; slot < Rule::kSlots; ++slot) LoadFloats<kWidth>(slot_at(slot), elements.slots[slot]);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) Rule::Element(numbers, elements, i);
  StoreValues<Storage, kWidth>(row, first, elements.value, [seed](uint32_t i) { return RoundingBits(seed, i); });
#pragma unroll
  for (int slot = 0; slot < Rule::kSlots; ++slot) StoreFloats<kWidth>(slot_at(slot), elements.slots[slot]);
}

template <class Rule, class Storage, int kWidth>
__global__ void __launch_bounds__(kThreads) ApplyRows(RowNumbers numbers, CudaRowLayout layout, CudaRowPush push) {
  if (push.bad_key != nullptr && *push.bad_key != kNoBadKey) return;
  const Tile tile = ThisTile();
  for (uint64_t i = tile.first; i < push.count; i += tile.step) {
    const uint32_t number = push.row_of[i];
    if (number == kNoCudaRow) continue;
    char* row = push.rows + uint64_t{number} * layout.stride;
    const float* gradient = push.gradients + i * layout.dim;
    uint64_t step = 0;
    uint32_t seed = 0;
    if constexpr (Rule::kSteps || Storage::kBytes == 2) {
      auto* steps = reinterpret_cast<uint32_t*>(row + layout.steps_offset);
      step = uint64_t{*steps} + 1;
      if constexpr (!Rule::kSteps) step &= 0xffff;  // two bytes on the host
      __syncwarp(tile.mask);                        // all have read it
      if (tile.lane == 0) *steps = static_cast<uint32_t>(step < 0xffffffffu ? step : 0xffffffffu);
    }
    if constexpr (Storage::kBytes == 2) seed = static_cast<uint32_t>(RandomAt(push.keys[i], step));
    const WholeRow whole = {gradient, reinterpret_cast<float*>(row + layout.slots_offset), layout.dim, tile.lane,
                            tile.mask};
    const typename Rule::Numbers of_row = Rule::Begin(numbers, whole, step);
    for (uint32_t first = tile.lane * kWidth; first < layout.dim; first += kTile * kWidth) {
      ApplyElements<Rule, Storage, kWidth>(of_row, layout, gradient, first, seed, row);
    }
  }
}

using Kernel = void (*)(RowNumbers, CudaRowLayout, CudaRowPush);

template <class Storage, int kWidth>
Kernel KernelFor(const RuleSpec& rule) {
  switch (rule.kind) {
    case RuleKind::kSgd:
      return ApplyRows<Sgd, Storage, kWidth>;
    case RuleKind::kMomentum:
      return rule.nesterov ? ApplyRows<Momentum<true>, Storage, kWidth> : ApplyRows<Momentum<false>, Storage, kWidth>;
    case RuleKind::kAdagrad:
      return ApplyRows<Adagrad, Storage, kWidth>;
    case RuleKind::kAdam:
      return ApplyRows<Adam, Storage, kWidth>;
    case RuleKind::kFtrl:
      return ApplyRows<Ftrl, Storage, kWidth>;
    case RuleKind::kRowwiseAdagrad:
      return ApplyRows<RowwiseAdagrad, Storage, kWidth>;
  }
  return nullptr;  // RowRule has only known ones
}

template <int kWidth>
Kernel KernelFor(const RuleSpec& rule, DType storage) {
  if (storage == DType::kF32) return KernelFor<F32, kWidth>(rule);
  if (storage == DType::kF16) return KernelFor<F16, kWidth>(rule);
  return KernelFor<Bf16, kWidth>(rule);
}

}  // namespace

cudaError_t StartApplyRows(cudaStream_t stream, const RowRule& rule, const CudaRowLayout& layout,
                           const RowNumbers& numbers, const CudaRowPush& push) {
  if (push.count == 0 || rule.IsFrozenAt(numbers.learning_rate)) return cudaSuccess;
  const Kernel kernel =
      layout.vectors ? KernelFor<4>(rule.spec(), rule.storage()) : KernelFor<1>(rule.spec(), rule.storage());
  const uint64_t blocks = (push.count * kTile + kThreads - 1) / kThreads;
  return Launch(kernel, static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks), kThreads, stream, numbers,
                layout, push);
}

}  // namespace basin
