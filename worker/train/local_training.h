// Training in one process, without parameter servers: the reference that a cluster's result is compared with. Same
// program, same rules, same initial values, same order of examples.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/rules/rule_spec.h"
#include "worker/train/dataset.h"
#include "worker/train/program.h"
#include "worker/train/schedule.h"

namespace basin {

struct LocalOptions {
  RuleSpec rule;
  Schedule schedule = Schedule::kConstant;
  uint64_t batch_size = 128;
  uint32_t epochs = 1;
  uint64_t seed = 1;
};

struct LocalResult {
  std::vector<double> loss_per_epoch;  // mean over the batches, as they came
  double test_loss = 0, test_accuracy = 0;
  uint64_t steps = 0;
  std::vector<std::vector<float>> parameters;  // by variable
};

// INVALID_ARGUMENT: a wrong rule, no batches or no epochs. ABORTED: the loss is no number any more.
absl::StatusOr<LocalResult> TrainLocally(Program& program, Device& device, const Dataset& train, const Dataset& test,
                                         const LocalOptions& options);

// Over the whole data set: mean loss, and how many are right.
absl::StatusOr<BatchResult> EvaluateAll(Program& program, Device& device, const Dataset& data,
                                        const std::vector<std::vector<float>>& parameters);

}  // namespace basin
