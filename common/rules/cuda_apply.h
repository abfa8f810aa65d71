// The rules on blocks of parameters in device memory: one kernel for a batch of blocks. The twin of apply.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/rules/apply.h"
#include "common/rules/rule_math.h"
#include "common/rules/rule_spec.h"

namespace basin {

// What is the same for all elements of one application.
struct CudaRule {
  RuleKind kind = RuleKind::kSgd;
  StatisticKind statistic = {};  // 0: trained by the rule; else the rule is not looked at
  float inverse_count = 0;   // of a mean
  bool nesterov = false;
  bool frozen = false;  // ftrl at a learning rate of 0: everything stays
  float rate = 0;
  float momentum = 0;
  float epsilon = 0;
  AdamNumbers adam = {};
  FtrlNumbers ftrl = {};
};

// REQUIRES: as for Apply. `step` counts this application.
CudaRule MakeCudaRule(const RuleSpec& spec, float learning_rate, uint64_t step);
// REQUIRES: as for ApplyStatistic. `count` counts this application.
CudaRule MakeCudaStatistic(StatisticKind statistic, uint64_t count);

// One push to one block. All pointers are to device memory, aligned to 16 bytes, except that those of slots that the
// rule lacks are not looked at. Inputs and outputs do not overlap: a block with a NaN or an infinity in its gradient is
// known only when all of it has been read, and then its outputs, of which nothing may be used, are thrown away.
struct CudaApplyItem {
  CudaRule rule;
  const float* gradient = nullptr;
  const float* parameters_in = nullptr;
  float* parameters_out = nullptr;
  const float* slots_in[kMaxSlots] = {};
  float* slots_out[kMaxSlots] = {};
  uint64_t elements = 0;
  uint64_t first_chunk = 0;  // chunks of all items before it: set by CountChunks
};

// Sets first_chunk of each, and returns the chunks of all.
uint64_t CountChunks(CudaApplyItem* items, uint32_t count);

// Starts the kernel. `items` and `not_finite` (one number an item) are in device memory; not_finite[i] becomes 1 where
// gradient i holds a NaN or an infinity, and 0 elsewhere. Bits are those of the host's Apply: nothing is contracted.
cudaError_t StartApply(cudaStream_t stream, const CudaApplyItem* items, uint32_t count, uint64_t chunks,
                       uint32_t* not_finite);

}  // namespace basin
