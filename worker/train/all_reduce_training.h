// Training a program in several ranks at once, in step: gradients are averaged over all of them, so that it learns what
// one process with the batches of all ranks together would (local_training).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/rules/rule_spec.h"
#include "worker/train/all_reduce_group.h"
#include "worker/train/dataset.h"
#include "worker/train/program.h"
#include "worker/train/schedule.h"
#include "worker/train/timeline.h"

namespace basin {

struct AllReduceOptions {
  RuleSpec rule;
  Schedule schedule = Schedule::kConstant;
  uint64_t batch_size = 128;  // examples of a rank's part of a step
  uint32_t epochs = 1;
  uint64_t max_steps = 0;  // 0: no limit
  uint64_t seed = 1;       // of the order of examples
  uint64_t fusion_bytes = 0;
  // On rank 0: the parameters to start from, by variable; empty: the program's initial values. Others' do not count.
  std::vector<std::vector<float>> initial;
  bool has_initial = false;  // on all ranks
};

struct AllReduceResult {
  uint64_t steps = 0;
  std::vector<double> loss_per_epoch;          // mean over the steps of all ranks' examples
  std::vector<std::vector<float>> parameters;  // by variable, the same on all ranks
};

// Called after each step of this rank with its own batch.
using AfterStep = std::function<void(uint64_t step, const BatchResult& result, uint64_t examples)>;
// Called when all ranks have ended an epoch.
using AfterEpoch = std::function<void(uint32_t epoch, uint64_t steps, double loss)>;

// INVALID_ARGUMENT, on all ranks: they have not the same program, data or options; names the first difference. ABORTED,
// on all ranks: a loss or a gradient is no number. INTERNAL: the ranks' parameters have come to differ. UNAVAILABLE: a
// rank is gone. `timeline` may be null.
absl::StatusOr<AllReduceResult> TrainByAllReduce(Program& program, Device& device, const Dataset& train,
                                                 const AllReduceOptions& options, AllReduceGroup& group,
                                                 Timeline* timeline, const AfterStep& after_step,
                                                 const AfterEpoch& after_epoch);

}  // namespace basin
