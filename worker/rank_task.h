// A rank's part of a run without parameter servers.
#pragma once

#include "absl/status/status.h"
#include "common/device/device.h"
#include "worker/task_options.h"
#include "worker/train/all_reduce_group.h"
#include "worker/train/dataset.h"
#include "worker/train/program.h"

namespace basin {

// Trains in step with the other ranks. Rank 0 writes model.safetensors and evaluation.json to options.outputs and the
// timeline of all ranks, and prints how good the model is on `test`.
absl::Status RunRankTask(AllReduceGroup& group, Program& program, Device& device, const Dataset& train,
                         const Dataset& test, const TaskOptions& options);

}  // namespace basin
